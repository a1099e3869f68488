import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Divergence, divergences } from "dpo-kernels";

/** rbf with its bandwidth fixed, or the mixture with all its parameters trained. */
export const KERNELS = ["rbf", "hmk"] as const;
export type KernelChoice = (typeof KERNELS)[number];

/** What a run of the quickstart can be told. */
export interface Options {
  readonly data: string;
  readonly out: string;
  readonly steps: number;
  readonly supervisedSteps: number;
  readonly seed: number;
  readonly pairs: number;
  readonly vocab: number;
  /** Of the hybrid arms. */
  readonly kernel: KernelChoice;
  /** Of the third arm; undefined: there are two. */
  readonly divergence: Divergence | undefined;
  /** Its weight. */
  readonly alpha: number;
  readonly quiet: boolean;
}

/** The divergences that need no parameter. */
const DIVERGENCES: Readonly<Record<string, Divergence>> = {
  kl: divergences.kl(),
  forward_kl: divergences.forwardKl(),
  jeffreys: divergences.jeffreys(),
  js: divergences.js(),
  hellinger: divergences.hellinger(),
  bhattacharyya: divergences.bhattacharyya(),
  tv: divergences.tv(),
  chi2: divergences.chi2(),
  neyman_chi2: divergences.neymanChi2(),
};

export const HELP = `Usage: npm run quickstart -- [options]

  --data FILE              preference pairs in HH-RLHF form, .jsonl or .jsonl.gz (default: the set beside this example)
  --out DIR                where report.html and results.json go (default: quickstart-out)
  --steps N                preference steps, the same for every arm (default: 80)
  --supervised-steps N     supervised steps before them (default: 60)
  --seed N                 seed of weights, split and batch order (default: 7)
  --pairs N                read at most N usable pairs (default: all)
  --vocab N                tokens kept, the most frequent first (default: 4096)
  --kernel NAME            kernel of the hybrid arms: rbf (default), its bandwidth fixed, or hmk, the mixture of kernels,
                           its weights and parameters trained
  --divergence NAME        divergence from the reference in the third arm (default: js), or none for two arms;
                           ${Object.keys(DIVERGENCES).join(" ")}
  --alpha X                its weight (default: 1)
  --quiet                  no progress bar and no table
  --help                   this text
`;

const DEFAULT_DATA = fileURLToPath(new URL("./data/pairs.jsonl", import.meta.url));

function integer(name: string, text: string, least: number): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least) {
    throw new RangeError(`--${name} must be a whole number, at least ${least}; it was "${text}"`);
  }
  return value;
}

function finite(name: string, text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new RangeError(`--${name} must be a number; it was "${text}"`);
  return value;
}

function divergenceOf(name: string): Divergence | undefined {
  if (name === "none") return undefined;
  if (Object.hasOwn(DIVERGENCES, name)) return DIVERGENCES[name];
  throw new RangeError(`--divergence must be none or one of ${Object.keys(DIVERGENCES).join(", ")}; it was "${name}"`);
}

function kernelOf(name: string): KernelChoice {
  const kernel = KERNELS.find((known) => known === name);
  if (kernel === undefined) throw new RangeError(`--kernel must be one of ${KERNELS.join(", ")}; it was "${name}"`);
  return kernel;
}

/** Reads the command line; returns undefined when help was asked for. */
export function parseOptions(args: readonly string[]): Options | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      data: { type: "string", default: DEFAULT_DATA },
      out: { type: "string", default: "quickstart-out" },
      steps: { type: "string", default: "80" },
      "supervised-steps": { type: "string", default: "60" },
      seed: { type: "string", default: "7" },
      pairs: { type: "string" },
      vocab: { type: "string", default: "4096" },
      kernel: { type: "string", default: "rbf" },
      divergence: { type: "string", default: "js" },
      alpha: { type: "string", default: "1" },
      quiet: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  return {
    data: values.data,
    out: values.out,
    steps: integer("steps", values.steps, 1),
    supervisedSteps: integer("supervised-steps", values["supervised-steps"], 0),
    seed: integer("seed", values.seed, 0),
    pairs: values.pairs === undefined ? Number.POSITIVE_INFINITY : integer("pairs", values.pairs, 20),
    vocab: integer("vocab", values.vocab, 64),
    kernel: kernelOf(values.kernel),
    divergence: divergenceOf(values.divergence),
    alpha: finite("alpha", values.alpha),
    quiet: values.quiet,
  };
}
