/** The work as loops over typed arrays: what one writes in TypeScript without a library. */

function logSumExp(x: Float32Array): number {
  let most = -Infinity;
  for (const value of x) if (value > most) most = value;
  let sum = 0;
  for (const value of x) sum += Math.exp(value - most);
  return most + Math.log(sum);
}

/** Log-probabilities of the targets, and the gradient of their sum. */
export function tokenLogProbs(logits: Float32Array, targets: Int32Array, values: Float32Array, gradient: Float32Array): void {
  const vocabulary = logits.length / targets.length;
  for (let row = 0; row < targets.length; row++) {
    const [begin, end] = [row * vocabulary, (row + 1) * vocabulary];
    const target = begin + (targets[row] as number);
    const normalizer = logSumExp(logits.subarray(begin, end));
    values[row] = (logits[target] as number) - normalizer;
    for (let i = begin; i < end; i++) gradient[i] = -Math.exp((logits[i] as number) - normalizer);
    gradient[target] = (gradient[target] as number) + 1;
  }
}

/** A divergence of one row of logits from another: writes its gradient with respect to `policy`, returns its value. */
export type RowDivergence = (policy: Float32Array, reference: Float32Array, gradient: Float32Array) => number;

/** ½ KL(p ‖ m) + ½ KL(q ‖ m), m = ½ (p + q). */
export const js: RowDivergence = (policy, reference, gradient) => {
  const [ofPolicy, ofReference] = [logSumExp(policy), logSumExp(reference)];
  let [value, mean] = [0, 0];
  for (let i = 0; i < policy.length; i++) {
    const logP = (policy[i] as number) - ofPolicy;
    const logQ = (reference[i] as number) - ofReference;
    const [p, q] = [Math.exp(logP), Math.exp(logQ)];
    const logM = Math.log(0.5 * (p + q));
    const slope = 0.5 * (logP - logM);
    value += p * slope + 0.5 * q * (logQ - logM);
    mean += p * slope;
    gradient[i] = slope;
  }
  for (let i = 0; i < policy.length; i++) gradient[i] = Math.exp((policy[i] as number) - ofPolicy) * ((gradient[i] as number) - mean);
  return value;
};

/** ln Σ p² / q. */
export const renyi2: RowDivergence = (policy, reference, gradient) => {
  const [ofPolicy, ofReference] = [logSumExp(policy), logSumExp(reference)];
  for (let i = 0; i < policy.length; i++) gradient[i] = 2 * ((policy[i] as number) - ofPolicy) - ((reference[i] as number) - ofReference);
  const value = logSumExp(gradient);
  for (let i = 0; i < policy.length; i++) gradient[i] = 2 * (Math.exp((gradient[i] as number) - value) - Math.exp((policy[i] as number) - ofPolicy));
  return value;
};

/** Every row's value, and the gradient of their sum. */
export function divergence(of: RowDivergence, policy: Float32Array, reference: Float32Array, values: Float32Array, gradient: Float32Array): void {
  const vocabulary = policy.length / values.length;
  for (let row = 0; row < values.length; row++) {
    const part = (all: Float32Array) => all.subarray(row * vocabulary, (row + 1) * vocabulary);
    values[row] = of(part(policy), part(reference), part(gradient));
  }
}
