/** Reference for linear_token_log_probs: token log-probabilities of logits = hidden·weightᵀ + bias, all held at once. */

import { remembered } from "../remember.js";
import { at, type Numbers, requireLength } from "./numbers.js";
import { type LogitOptions, type TokenLogProbs, tokenLogProbs, tokenLogProbsVjp } from "./token-log-probs.js";

export interface LinearTokenLogProbsInputs extends LogitOptions {
  /** [N, D] */
  readonly hidden: Numbers;
  /** [V, D] */
  readonly weight: Numbers;
  /** [V] */
  readonly bias?: Numbers | undefined;
  /** [N] */
  readonly targets: Numbers;
  /** D */
  readonly width: number;
}

export interface LinearGradients {
  readonly hidden: Float64Array;
  readonly weight: Float64Array;
  readonly bias: Float64Array;
}

export interface LinearTokenLogProbsVjp extends LinearGradients {
  /** Σ|terms| of each gradient, for the bound of SPEC 9. */
  readonly termSums: LinearGradients;
}

export const linearTokenLogProbs = remembered(linearTokenLogProbsOf);

function linearTokenLogProbsOf(inputs: LinearTokenLogProbsInputs): TokenLogProbs {
  const { targets, temperature, softcap } = inputs;
  return tokenLogProbs({ logits: linearLogits(inputs), targets, temperature, softcap });
}

/** The gradients of Σ upstream·logProbs. `bias` is always given; without a bias, ignore it. */
export const linearTokenLogProbsVjp = remembered(linearTokenLogProbsVjpOf);

function linearTokenLogProbsVjpOf(inputs: LinearTokenLogProbsInputs & { readonly upstream: Numbers }): LinearTokenLogProbsVjp {
  const { targets, upstream, temperature, softcap } = inputs;
  const logits = linearLogits(inputs);
  const ofLogits = tokenLogProbsVjp({ logits, targets, upstream, logitTerms: linearLogitTerms(inputs), temperature, softcap });
  return linearPullBack(inputs, ofLogits.logits, ofLogits.termSums.logits);
}

/** Σ|terms| of each logit. */
export function linearLogitTerms(inputs: LinearTokenLogProbsInputs): Float64Array {
  return linearLogits({
    ...inputs,
    hidden: Float64Array.from(inputs.hidden, Math.abs),
    weight: Float64Array.from(inputs.weight, Math.abs),
    bias: inputs.bias === undefined ? undefined : Float64Array.from(inputs.bias, Math.abs),
  });
}

/** The gradients of a head from those of its logits [N, V] and their Σ|terms|. `bias` is always given; without a bias, ignore it. */
export function linearPullBack(
  { hidden, weight, targets, width }: LinearTokenLogProbsInputs,
  ofLogits: Numbers,
  termsOfLogits: Numbers,
): LinearTokenLogProbsVjp {
  const words = weight.length / width;
  const zeros = (): LinearGradients => ({
    hidden: new Float64Array(hidden.length),
    weight: new Float64Array(weight.length),
    bias: new Float64Array(words),
  });
  const gradients = zeros();
  const termSums = zeros();
  for (let n = 0; n < targets.length; n++) {
    for (let v = 0; v < words; v++) {
      const dz = at(ofLogits, n * words + v);
      const dzTerms = at(termsOfLogits, n * words + v);
      if (dzTerms === 0) continue;
      add(gradients.bias, v, dz);
      add(termSums.bias, v, dzTerms);
      for (let d = 0; d < width; d++) {
        const [h, w] = [at(hidden, n * width + d), at(weight, v * width + d)];
        add(gradients.hidden, n * width + d, dz * w);
        add(termSums.hidden, n * width + d, dzTerms * Math.abs(w));
        add(gradients.weight, v * width + d, dz * h);
        add(termSums.weight, v * width + d, dzTerms * Math.abs(h));
      }
    }
  }
  return { ...gradients, termSums };
}

/** [N, V], row by row. */
export function linearLogits({ hidden, weight, bias, targets, width }: LinearTokenLogProbsInputs): Float64Array {
  const rows = targets.length;
  const words = weight.length / width;
  if (!Number.isInteger(words)) throw new RangeError(`weight's ${weight.length} values are no rows of ${width}`);
  requireLength(hidden, rows * width, "hidden");
  if (bias !== undefined) requireLength(bias, words, "bias");
  const logits = new Float64Array(rows * words);
  for (let n = 0; n < rows; n++) {
    for (let v = 0; v < words; v++) {
      let logit = bias === undefined ? 0 : at(bias, v);
      for (let d = 0; d < width; d++) logit += at(hidden, n * width + d) * at(weight, v * width + d);
      logits[n * words + v] = logit;
    }
  }
  return logits;
}

function add(values: Float64Array, index: number, term: number): void {
  values[index] = at(values, index) + term;
}
