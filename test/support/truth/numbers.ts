/** Scalar helpers of the reference formulas, in float64. */

export type Numbers = ArrayLike<number>;

/** The target index that marks a token as not counted. */
export const IGNORED_TARGET = -100;

/** values[index], or an error: an index out of range must not turn into NaN further on. */
export function at(values: Numbers, index: number): number {
  const value = values[index];
  if (value === undefined) throw new RangeError(`index ${index} is outside 0..${values.length - 1}`);
  return value;
}

export function row(matrix: Numbers, index: number, width: number): Float64Array {
  return Float64Array.from({ length: width }, (_, column) => at(matrix, index * width + column));
}

export function sum(values: Numbers): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += at(values, i);
  return total;
}

export function dot(a: Numbers, b: Numbers): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += at(a, i) * at(b, i);
  return total;
}

export function sigmoid(x: number): number {
  return x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
}

/** ln σ(x) */
export function logSigmoid(x: number): number {
  return Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)));
}

/** ln Σ eˣ */
export function logSumExp(values: Numbers): number {
  let largest = -Infinity;
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, at(values, i));
  if (largest === -Infinity) return -Infinity;
  let total = 0;
  for (let i = 0; i < values.length; i++) total += Math.exp(at(values, i) - largest);
  return largest + Math.log(total);
}

export function requireLength(values: Numbers, expected: number, name: string): void {
  if (values.length !== expected) throw new RangeError(`${name} has ${values.length} values instead of ${expected}`);
}
