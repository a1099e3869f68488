/**
 * Reference for the reduction of token log-probabilities to one per sequence. Rows are packed: sequence i has the tokens
 * offsets[i] … offsets[i+1], the B chosen sequences come first, then the B rejected; ignored tokens do not count.
 *
 * Every reduction is a weighted sum, so it is given by its weights: 1 (sum); 1/max(count, 1) (mean); or, with ldAlpha,
 * 1 up to the pair's shared length (the smaller of its two counts) and ldAlpha past it.
 */

import { at, IGNORED_TARGET, type Numbers, requireLength } from "./numbers.js";

export interface SequenceInputs {
  readonly logProbs: Numbers;
  readonly targets: Numbers;
  /** [2B + 1] */
  readonly offsets: Numbers;
  readonly reduce?: "sum" | "mean" | undefined;
  /** LD-DPO; only with the sum. */
  readonly ldAlpha?: number | undefined;
}

export interface SequenceLogProbs {
  /** [2B] */
  readonly logProbs: Float64Array;
  /** [2B] counted tokens. */
  readonly counts: Float64Array;
}

export function reduceSequences(inputs: SequenceInputs): SequenceLogProbs {
  const weights = tokenWeights(inputs);
  const counts = tokenCounts(inputs);
  const logProbs = new Float64Array(counts.length);
  forEachToken(inputs.offsets, (token, sequence) => {
    const weight = at(weights, token);
    if (weight !== 0) logProbs[sequence] = at(logProbs, sequence) + weight * at(inputs.logProbs, token);
  });
  return { logProbs, counts };
}

/** The gradient of Σ upstream·logProbs to the token log-probabilities. */
export function reduceSequencesVjp(inputs: SequenceInputs & { readonly upstream: Numbers }): Float64Array {
  const gradient = tokenWeights(inputs);
  requireLength(inputs.upstream, inputs.offsets.length - 1, "upstream");
  forEachToken(inputs.offsets, (token, sequence) => {
    gradient[token] = at(gradient, token) * at(inputs.upstream, sequence);
  });
  return gradient;
}

/** What each token's log-probability counts for in its sequence's. */
export function tokenWeights(inputs: SequenceInputs): Float64Array {
  const { targets, offsets, reduce = "sum", ldAlpha } = inputs;
  if (ldAlpha !== undefined && reduce !== "sum") throw new RangeError("ldAlpha goes with the sum only");
  const counts = tokenCounts(inputs);
  const pairs = counts.length / 2;
  const weights = new Float64Array(targets.length);
  const position = new Float64Array(counts.length); // counted tokens seen so far, by sequence
  forEachToken(offsets, (token, sequence) => {
    if (at(targets, token) === IGNORED_TARGET) return;
    const count = at(counts, sequence);
    const place = at(position, sequence);
    position[sequence] = place + 1;
    if (ldAlpha !== undefined) {
      const shared = Math.min(count, at(counts, (sequence + pairs) % counts.length));
      weights[token] = place < shared ? 1 : ldAlpha;
    } else {
      weights[token] = reduce === "mean" ? 1 / Math.max(count, 1) : 1;
    }
  });
  return weights;
}

function tokenCounts({ targets, offsets, logProbs }: SequenceInputs): Float64Array {
  requireLength(logProbs, targets.length, "logProbs");
  if (at(offsets, offsets.length - 1) !== targets.length) throw new RangeError("the last offset is not the token count");
  const counts = new Float64Array(offsets.length - 1);
  forEachToken(offsets, (token, sequence) => {
    if (at(targets, token) !== IGNORED_TARGET) counts[sequence] = at(counts, sequence) + 1;
  });
  return counts;
}

function forEachToken(offsets: Numbers, visit: (token: number, sequence: number) => void): void {
  for (let sequence = 0; sequence + 1 < offsets.length; sequence++) {
    for (let token = at(offsets, sequence); token < at(offsets, sequence + 1); token++) visit(token, sequence);
  }
}
