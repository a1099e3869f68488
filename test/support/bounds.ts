/**
 * The numeric contract (SPEC 9), one function per row. Each throws an error that names the index, the actual value, the
 * truth, the error and the bound of the worst element; each returns that worst element when all is well, so that a test
 * or a table can show how much room was left. A NaN on either side fails, and so does an empty array: a comparison of
 * nothing proves nothing.
 */

import { fromBits16, largest, type Storage, type Storage16, stored, ulp } from "./storage.js";

export const FLOAT32_EPSILON = 2 ** -23;

/** Below fp32's normal range a result may be flushed to 0 or be an exponential's own smallest value: no error either way. */
const UNDERFLOW = 2 ** -120;

export interface Worst {
  readonly index: number;
  readonly actual: number;
  readonly truth: number;
  readonly error: number;
  readonly bound: number;
}

export interface Report {
  readonly count: number;
  /** The element that came nearest to its bound, or went furthest past it. */
  readonly worst: Worst;
}

export interface GradientReport extends Report {
  /** Σ(actual − truth)² / Σ truth². */
  readonly nmse: number;
}

export interface Labelled {
  /** Stands in front of the message. */
  readonly label?: string | undefined;
}

export interface ValueBounds extends Labelled {
  readonly abs?: number | undefined;
  readonly rel?: number | undefined;
}

/** Log-probabilities, losses, divergences, log k: |error| ≤ abs + rel·|truth|. Equal infinities agree. */
export function expectValues(actual: ArrayLike<number>, truth: ArrayLike<number>, { abs = 1e-5, rel = 1e-6, label }: ValueBounds = {}): Report {
  return compare(actual, truth, (_, t) => abs + rel * Math.abs(t), label, `${abs} + ${rel}·|truth|`);
}

/** One number, by the same bound. */
export function expectValue(actual: number, truth: number, bounds: ValueBounds = {}): Report {
  return expectValues([actual], [truth], bounds);
}

export interface GradientBounds extends Labelled {
  /**
   * Σ|terms| of each element: the sum of the magnitudes of what is added up to make it, which a cancelling sum's error
   * is measured by. Without it the largest |truth| stands in for every element.
   */
  readonly termSums?: ArrayLike<number> | number | undefined;
  readonly nmse?: number | undefined;
  /** The epsilon of the type that the sums are stored in. */
  readonly epsilon?: number | undefined;
}

/**
 * Gradients stored fp32: NMSE ≤ 1e-11, and each error ≤ 20·Σ|terms|·eps. Where termSums show that the whole gradient
 * cancels (its norm under a millionth of theirs), only rounding noise is left to compare, and the NMSE is not asked.
 */
export function expectGradient(
  actual: ArrayLike<number>,
  truth: ArrayLike<number>,
  { termSums, nmse: nmseBound = 1e-11, epsilon = FLOAT32_EPSILON, label }: GradientBounds = {},
): GradientReport {
  requireComparable(actual, truth, label);
  const terms = termSumsOf(termSums, truth, label);
  const report = compare(actual, truth, (i) => 20 * at(terms, i) * epsilon + UNDERFLOW, label, "20·Σ|terms|·eps");
  const nmse = normalisedSquaredError(actual, truth);
  const cancelled = termSums !== undefined && norm(truth) < 1e-6 * norm(terms);
  if (!(nmse <= nmseBound) && !cancelled) {
    const { index, actual: a, truth: t, error } = largestError(actual, truth);
    throw new Error(
      `${prefix(label)}NMSE ${show(nmse)} is over its bound ${show(nmseBound)} (${actual.length} values); ` +
        `largest error at [${index}]: actual ${show(a)}, truth ${show(t)}, error ${show(error)}`,
    );
  }
  return { ...report, nmse };
}

export interface Stored16Bounds extends Labelled {
  /** Where a sum cancels, the fp32 error of the sum (20·Σ|terms|·eps) comes on top of the ulp; left out, it does not. */
  readonly termSums?: ArrayLike<number> | number | undefined;
}

/** Gradients stored 16-bit, given as bits: within 1 ulp of the storage type. Past its range, infinity is right too. */
export function expectStored16(
  actualBits: ArrayLike<number>,
  truth: ArrayLike<number>,
  storage: Storage16,
  { label, termSums }: Stored16Bounds = {},
): Report {
  const actual = Array.from(actualBits, (bits) => fromBits16(bits, storage));
  requireComparable(actual, truth, label);
  const sums = termSums === undefined ? undefined : termSumsOf(termSums, truth, label);
  const bound = (i: number, t: number): number =>
    Math.max(ulp(t, storage), UNDERFLOW) + (sums === undefined ? 0 : 20 * at(sums, i) * FLOAT32_EPSILON);
  return compare(actual, reachable(actual, truth, storage), bound, label, `1 ulp of ${storage}`);
}

/** Scalar formulas: within some ulps of the type they are computed in. */
export function expectUlps(
  actual: ArrayLike<number>,
  truth: ArrayLike<number>,
  storage: Storage = "f32",
  { ulps = 4, label }: Labelled & { readonly ulps?: number | undefined } = {},
): Report {
  const within = (_: number, t: number): number => ulps * ulp(t, storage);
  return compare(actual, reachable(actual, truth, storage), within, label, `${ulps} ulp of ${storage}`);
}

/** Backend against backend: NMSE ≤ 1e-11. */
export function expectSameAcrossBackends(
  actual: ArrayLike<number>,
  other: ArrayLike<number>,
  { label, nmse: bound = 1e-11 }: Labelled & { readonly nmse?: number | undefined } = {},
): number {
  requireComparable(actual, other, label);
  const nmse = normalisedSquaredError(actual, other);
  if (!(nmse <= bound)) {
    const { index, actual: a, truth: t, error } = largestError(actual, other);
    throw new Error(
      `${prefix(label)}NMSE ${show(nmse)} between backends is over its bound ${show(bound)} (${actual.length} values); ` +
        `largest difference at [${index}]: ${show(a)} against ${show(t)}, ${show(error)} apart`,
    );
  }
  return nmse;
}

/** Run to run, and across thread counts: bitwise equal. (−0 differs from 0; the same NaN does not differ.) */
export function expectBitwiseEqual(actual: ArrayLike<number>, other: ArrayLike<number>, { label }: Labelled = {}): void {
  requireSameLength(actual, other, label);
  for (let i = 0; i < actual.length; i++) {
    if (!Object.is(actual[i], other[i])) {
      throw new Error(`${prefix(label)}bits differ at [${i}]: ${show(at(actual, i))} against ${show(at(other, i))}`);
    }
  }
}

/** Against the error of the plain formula in the plain type: at most `factor` times its largest, plus one rounding. */
export function expectNoWorseThanPlain(
  actual: ArrayLike<number>,
  plain: ArrayLike<number>,
  truth: ArrayLike<number>,
  { factor = 2, storage = "f32", label }: Labelled & { factor?: number | undefined; storage?: Storage | undefined } = {},
): Report {
  requireComparable(plain, truth, label);
  const allowed = factor * largestError(plain, truth).error;
  return compare(actual, truth, (_, t) => allowed + ulp(t, storage), label, `${factor} × the plain error + 1 ulp`);
}

/** Σ(actual − truth)² / Σ truth²; when truth is all zeros, 0 if actual is too and else infinite. */
export function normalisedSquaredError(actual: ArrayLike<number>, truth: ArrayLike<number>): number {
  const scale = norm(truth);
  let sum = 0;
  for (let i = 0; i < truth.length; i++) {
    const error = errorOf(at(actual, i), at(truth, i));
    if (error !== 0) sum += (error / scale) ** 2; // a scale of 0 makes this infinite, as it should
  }
  return sum;
}

function compare(
  actual: ArrayLike<number>,
  truth: ArrayLike<number>,
  boundOf: (index: number, truth: number) => number,
  label: string | undefined,
  rule: string,
): Report {
  requireComparable(actual, truth, label);
  let failures = 0;
  let worst: Worst | undefined;
  let worstRatio = -1;
  for (let i = 0; i < truth.length; i++) {
    const [a, t] = [at(actual, i), at(truth, i)];
    const error = errorOf(a, t);
    const bound = boundOf(i, t);
    if (Number.isNaN(bound) || bound === Infinity) {
      // An infinite truth is compared exactly; any other bound has to be a number.
      if (Math.abs(t) !== Infinity) throw new Error(`${prefix(label)}the bound at [${i}] is ${bound}: it bounds nothing`);
    }
    const within = Math.abs(t) === Infinity ? error === 0 : error <= bound;
    if (!within) failures++;
    const ratio = ratioOf(error, bound, within);
    if (worst === undefined || ratio > worstRatio) {
      worst = { index: i, actual: a, truth: t, error, bound };
      worstRatio = ratio;
    }
  }
  if (worst === undefined) throw new Error(`${prefix(label)}nothing to compare`);
  if (failures > 0) {
    throw new Error(
      `${prefix(label)}${failures} of ${truth.length} out of bounds (${rule}); worst at [${worst.index}]: ` +
        `actual ${show(worst.actual)}, truth ${show(worst.truth)}, error ${show(worst.error)}, bound ${show(worst.bound)}`,
    );
  }
  return { count: truth.length, worst };
}

/** How near to its bound: 0 exact, 1 at it. What is out of bounds ranks above all that is within. */
function ratioOf(error: number, bound: number, within: boolean): number {
  if (error === 0) return 0;
  if (Number.isNaN(error)) return Infinity;
  return within ? error / bound : Math.max(error / bound, 1 + Number.EPSILON);
}

/** Equal infinities are no error; NaN is never equal to anything. */
function errorOf(actual: number, truth: number): number {
  return actual === truth ? 0 : Math.abs(actual - truth);
}

/** A truth past the type's range can only be stored as infinity (or the largest value): then ask for what was stored. */
function reachable(actual: ArrayLike<number>, truth: ArrayLike<number>, storage: Storage): Float64Array {
  return Float64Array.from(truth, (t, i) => {
    const overflows = Number.isFinite(t) && !Number.isFinite(stored(t, storage));
    const nearest = [Math.sign(t) * Infinity, Math.sign(t) * largest(storage)];
    return overflows ? (nearest.find((value) => value === actual[i]) ?? Math.sign(t) * Infinity) : t;
  });
}

function largestError(actual: ArrayLike<number>, truth: ArrayLike<number>): Omit<Worst, "bound"> {
  let worst = { index: 0, actual: at(actual, 0), truth: at(truth, 0), error: errorOf(at(actual, 0), at(truth, 0)) };
  for (let i = 1; i < truth.length; i++) {
    const error = errorOf(at(actual, i), at(truth, i));
    if (Number.isNaN(error) || error > worst.error) {
      worst = { index: i, actual: at(actual, i), truth: at(truth, i), error };
      if (Number.isNaN(error)) break;
    }
  }
  return worst;
}

function termSumsOf(termSums: ArrayLike<number> | number | undefined, truth: ArrayLike<number>, label: string | undefined): ArrayLike<number> {
  if (typeof termSums === "object") {
    requireSameLength(termSums, truth, label, "termSums", "truth");
    return termSums;
  }
  let scale = termSums ?? 0;
  if (termSums === undefined) for (let i = 0; i < truth.length; i++) scale = Math.max(scale, Math.abs(at(truth, i)));
  return new Float64Array(truth.length).fill(scale);
}

/** The Euclidean norm, without overflow. */
function norm(values: ArrayLike<number>): number {
  let sum = 0;
  let scale = 0;
  for (let i = 0; i < values.length; i++) scale = Math.max(scale, Math.abs(at(values, i)));
  if (scale === 0 || !Number.isFinite(scale)) return scale;
  for (let i = 0; i < values.length; i++) sum += (at(values, i) / scale) ** 2;
  return scale * Math.sqrt(sum);
}

function requireComparable(actual: ArrayLike<number>, truth: ArrayLike<number>, label: string | undefined): void {
  requireSameLength(actual, truth, label);
  for (let i = 0; i < truth.length; i++) {
    if (Number.isNaN(at(truth, i))) throw new Error(`${prefix(label)}the truth at [${i}] is NaN: there is no truth`);
    if (Number.isNaN(at(actual, i))) {
      throw new Error(`${prefix(label)}actual at [${i}] is NaN, truth ${show(at(truth, i))}`);
    }
  }
}

function requireSameLength(
  actual: ArrayLike<number>,
  truth: ArrayLike<number>,
  label: string | undefined,
  actualName = "actual",
  truthName = "truth",
): void {
  if (actual.length !== truth.length) {
    throw new Error(`${prefix(label)}${actualName} has ${actual.length} values, ${truthName} has ${truth.length}`);
  }
  if (truth.length === 0) throw new Error(`${prefix(label)}nothing to compare: both are empty`);
}

function at(values: ArrayLike<number>, index: number): number {
  const value = values[index];
  if (value === undefined) throw new RangeError(`index ${index} is outside 0..${values.length - 1}`);
  return value;
}

function prefix(label: string | undefined): string {
  return label === undefined ? "" : `${label}: `;
}

function show(value: number): string {
  return Object.is(value, -0) ? "-0" : String(value);
}
