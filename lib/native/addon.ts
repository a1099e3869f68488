import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import type { NativeFailure } from "../errors.js";

declare const externalBrand: unique symbol;
/** Memory of a device, as the addon hands it out. */
export interface ExternalMemory {
  readonly [externalBrand]: "memory of a device";
}

/** What a tensor's elements are in: a typed array, or memory of a device. */
export type NativeMemory = ArrayBufferView | ExternalMemory;

/** What native/addon exports. */
interface Addon {
  readonly operations: readonly string[];
  run(operation: number, frame: Float64Array, claimed: boolean, ...memory: NativeMemory[]): NativeFailure | undefined;
  start(operation: number, frame: Float64Array, claimed: boolean, cancel: Int32Array, ...memory: NativeMemory[]): Promise<NativeFailure | undefined>;
  claim(inputs: number, ...memory: NativeMemory[]): number | NativeFailure;
  release(claim: number): void;
  allocate(backend: string, bytes: number): { memory: ExternalMemory; backend: string } | string | undefined;
  free(memory: ExternalMemory): void;
  exportDlpack(memory: ExternalMemory, offset: number, dtype: number, ...shape: number[]): object | undefined;
  importDlpack(
    external: unknown,
    backend: string,
  ): { memory: ExternalMemory; backend: string; offset: number; dtype: number; shape: number[] } | string;
  backends(): { name: string; variant: string; score: number; reason: string; selected: boolean; operations: string[] }[];
  useBackend(name: string): string | undefined;
  threads(): number;
  useThreads(count: number): void;
}

const load = createRequire(import.meta.url)("node-gyp-build") as { (root: string): Addon; path(root: string): string };

// From lib/native (in tests) as from dist/native, the package's root is two folders up.
const ROOT = fileURLToPath(new URL("../..", import.meta.url));

export const addon = load(ROOT);

/** The file that the addon was loaded from; backends are beside it. */
export function addonFile(): string {
  return load.path(ROOT);
}
