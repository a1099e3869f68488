import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { HeadShape } from "../inputs.js";
import type { Variant } from "../measure.js";

const script = fileURLToPath(new URL("pytorch.py", import.meta.url));

type Work = "copy" | "tokenLogProbs" | "linearTokenLogProbs" | "objective";

/** A PyTorch process that times work on request, in turn with ours. */
export class PyTorch {
  readonly version: string;
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;

  private constructor(process: ChildProcessWithoutNullStreams, lines: AsyncIterator<string>, version: string) {
    this.#process = process;
    this.#lines = lines;
    this.version = version;
  }

  /** Undefined when `python` is missing or has no torch. */
  static async open(python: string): Promise<PyTorch | undefined> {
    const child = spawn(python, [script]);
    const started = await new Promise<boolean>((resolve) => {
      child.once("spawn", () => resolve(true));
      child.once("error", () => resolve(false));
    });
    if (!started) return undefined;
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const first = await lines.next();
    const greeting = (first.done ? {} : JSON.parse(first.value)) as { version?: string };
    return greeting.version === undefined ? undefined : new PyTorch(child, lines, greeting.version);
  }

  /** The work as a variant to be timed, `runs` times a round. */
  variant(work: Work, shape: HeadShape & { pairs?: number }, runs = 1): Variant {
    return async () => {
      this.#process.stdin.write(`${JSON.stringify({ work, ...shape, runs })}\n`);
      const line = await this.#lines.next();
      if (line.done) throw new Error("the PyTorch process ended");
      return (JSON.parse(line.value) as { ms: number[] }).ms;
    };
  }

  close(): void {
    this.#process.stdin.end();
  }
}
