import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { HeadShape } from "../inputs.js";
import type { Variant } from "../measure.js";

const script = fileURLToPath(new URL("pytorch.py", import.meta.url));

type Work =
  | "copy"
  | "tokenLogProbs"
  | "linearTokenLogProbs"
  | "objective"
  | "preferenceLoss"
  | "divergence"
  | "linearDivergence"
  | "pairKernel"
  | "gram";

/** The shape of a work and what else it needs to know. */
interface Details extends HeadShape {
  pairs?: number;
  kind?: "kl" | "renyi(2)" | "js";
  compiled?: boolean;
  /** Without gradients. */
  valueOnly?: boolean;
  /** Calls that are timed together. */
  calls?: number;
}

/** Names of work that begins with hidden × head, which PyTorch multiplies out. */
function ofHead(variants: Record<string, Variant>): Record<string, Variant> {
  return Object.fromEntries(Object.entries(variants).map(([name, variant]) => [`${name} (holds all logits)`, variant]));
}

/** A PyTorch process that times work on request, in turn with ours. */
export class PyTorch {
  readonly version: string;
  readonly #compiles: boolean;
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;

  private constructor(process: ChildProcessWithoutNullStreams, lines: AsyncIterator<string>, version: string, compiles: boolean) {
    this.#compiles = compiles;
    this.#process = process;
    this.#lines = lines;
    this.version = version;
  }

  /**
   * Undefined when `python` is missing, or has no torch that runs on the device.
   *
   * @param compiles whether work is also timed through torch.compile, which takes up to a minute to compile it
   */
  static async open(python: string, device: "cpu" | "cuda", compiles: boolean): Promise<PyTorch | undefined> {
    const child = spawn(python, [script, device]);
    const started = await new Promise<boolean>((resolve) => {
      child.once("spawn", () => resolve(true));
      child.once("error", () => resolve(false));
    });
    if (!started) return undefined;
    child.stderr.resume();
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const first = await lines.next();
    const greeting = (first.done ? {} : JSON.parse(first.value)) as { version?: string };
    return greeting.version === undefined ? undefined : new PyTorch(child, lines, greeting.version, compiles);
  }

  /** The work as a variant to be timed. */
  eager(work: Work, details: Details): Record<string, Variant> {
    return { "PyTorch eager": () => this.#times({ work, ...details, runs: 1 }) };
  }

  /** The same and, where asked for, another one by torch.compile; without that, with a message, where it cannot compile. */
  async variants(work: Work, details: Details): Promise<Record<string, Variant>> {
    const eager = this.eager(work, details);
    if (!this.#compiles) return eager;
    const compiled = { work, ...details, compiled: true };
    try {
      await this.#times({ ...compiled, runs: 0 });
    } catch (error) {
      console.error(`${work} without torch.compile: ${(error as Error).message.split("\n")[0]}`);
      return eager;
    }
    return { ...eager, "torch.compile": () => this.#times({ ...compiled, runs: 1 }) };
  }

  async variantsOfHead(work: Work, details: Details): Promise<Record<string, Variant>> {
    return ofHead(await this.variants(work, details));
  }

  eagerOfHead(work: Work, details: Details): Record<string, Variant> {
    return ofHead(this.eager(work, details));
  }

  async #times(request: Details & { work: Work; runs: number }): Promise<number[]> {
    this.#process.stdin.write(`${JSON.stringify(request)}\n`);
    const line = await this.#lines.next();
    if (line.done) throw new Error("the PyTorch process ended");
    const { ms, error } = JSON.parse(line.value) as { ms?: number[]; error?: string };
    if (ms === undefined) throw new Error(`PyTorch: ${error}`);
    return ms;
  }

  close(): void {
    this.#process.stdin.end();
  }
}
