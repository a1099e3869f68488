import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import type { NativeFailure } from "../errors.js";

/** What native/addon exports. */
interface Addon {
  readonly operations: readonly string[];
  run(operation: number, frame: Float64Array, claimed: boolean, ...memory: ArrayBufferView[]): NativeFailure | undefined;
  start(
    operation: number,
    frame: Float64Array,
    claimed: boolean,
    cancel: Int32Array,
    ...memory: ArrayBufferView[]
  ): Promise<NativeFailure | undefined>;
  claim(inputs: number, ...memory: ArrayBufferView[]): number | NativeFailure;
  release(claim: number): void;
  backends(): { name: string; variant: string; score: number; reason: string; selected: boolean; operations: string[] }[];
  useBackend(name: string): string | undefined;
  threads(): number;
  useThreads(count: number): void;
}

const load = createRequire(import.meta.url)("node-gyp-build") as (root: string) => Addon;

// From lib/native (in tests) as from dist/native, the package's root is two folders up.
export const addon = load(fileURLToPath(new URL("../..", import.meta.url)));
