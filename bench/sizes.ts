import type { HeadShape } from "./inputs.js";

/** How large the benchmarks are. */
export interface Sizes {
  /** Runs of each variant that count. */
  rounds: number;
  /** Logits, hidden states and heads; the rows of a number that 4 divides. */
  head: HeadShape;
  /** Calls are short, and timed so many times as often as others. */
  preference: { pairs: number; repeats: number };
  /** Sequences of `tokens` tokens each, two of a pair. */
  hmkObjective: { pairs: number; tokens: number; depth: number; vocabulary: number };
  /** A training batch, and rows that fill no cache; as many calls are timed together as it takes for `pairs` pairs. */
  pairKernel: { rows: readonly number[]; width: number; fitted: number; pairs: number; fewestRounds: number };
  /** Rows of both samples. */
  gram: { rows: number; width: number };
}

export const SIZES: Record<"full" | "tiny", Sizes> = {
  full: {
    rounds: 15,
    head: { rows: 512, depth: 512, vocabulary: 32_000 },
    preference: { pairs: 256, repeats: 100 },
    hmkObjective: { pairs: 32, tokens: 128, depth: 768, vocabulary: 32_000 },
    pairKernel: { rows: [32, 4096], width: 768, fitted: 256, pairs: 8192, fewestRounds: 15 },
    gram: { rows: 4096, width: 768 },
  },
  /** To see that all of it runs, on a simulated device too; the times say nothing. */
  tiny: {
    rounds: 2,
    head: { rows: 8, depth: 24, vocabulary: 101 },
    preference: { pairs: 8, repeats: 2 },
    hmkObjective: { pairs: 4, tokens: 3, depth: 16, vocabulary: 67 },
    pairKernel: { rows: [3, 9], width: 24, fitted: 8, pairs: 18, fewestRounds: 2 },
    gram: { rows: 24, width: 16 },
  },
};
