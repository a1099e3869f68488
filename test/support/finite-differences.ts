/** Derivatives of float64 functions from their values alone, and the comparison of SPEC 9 with analytic ones. */

import type { Report } from "./bounds.js";

export interface Derivative {
  readonly value: number;
  /** How far off `value` may be, as the extrapolation itself saw it. */
  readonly error: number;
}

export interface DifferenceOptions {
  /** The widest step tried; by default 2^-4 of max(1, |x|). It must not step over a kink or out of the domain. */
  readonly step?: number | undefined;
}

const CONTRACTION = Math.SQRT2;
const LEVELS = 12;

/** Central differences at shrinking steps, extrapolated to step 0 (Richardson's extrapolation, in Ridders' tableau). */
export function derivative(f: (x: number) => number, x: number, { step }: DifferenceOptions = {}): Derivative {
  const widest = step ?? 2 ** -4 * Math.max(1, Math.abs(x));
  let best: Derivative = { value: Number.NaN, error: Infinity };
  let coarser: number[] = [];
  for (let level = 0; level < LEVELS; level++) {
    const h = widest / CONTRACTION ** level;
    const [above, below] = [x + h, x - h];
    const row = [(f(above) - f(below)) / (above - below)]; // the step as it was rounded, not as it was meant
    let factor = 1;
    for (const previous of coarser) {
      factor *= CONTRACTION ** 2; // cancels the next even power of h
      const last = row[row.length - 1] ?? Number.NaN;
      const extrapolated = last + (last - previous) / (factor - 1);
      const error = Math.max(Math.abs(extrapolated - last), Math.abs(extrapolated - previous));
      if (error < best.error) best = { value: extrapolated, error };
      row.push(extrapolated);
    }
    coarser = row;
  }
  return best;
}

export interface NumericGradient {
  readonly values: Float64Array;
  readonly errors: Float64Array;
}

/** The gradient of f at x, one coordinate after the other. x is not changed; f must not keep its argument. */
export function gradient(f: (x: Float64Array) => number, x: ArrayLike<number>, options: DifferenceOptions = {}): NumericGradient {
  const values = new Float64Array(x.length);
  const errors = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) {
    const moved = Float64Array.from(x);
    const along = (xi: number): number => {
      moved[i] = xi;
      return f(moved);
    };
    const { value, error } = derivative(along, moved[i] ?? Number.NaN, options);
    values[i] = value;
    errors[i] = error;
  }
  return { values, errors };
}

export interface FiniteDifferenceBounds extends DifferenceOptions {
  readonly rel?: number | undefined;
  /** Under this magnitude a derivative counts as 0. */
  readonly floor?: number | undefined;
  readonly label?: string | undefined;
}

/** The same along a few directions instead of each coordinate, for functions that take long. */
export function expectDirectionalDifferences(
  f: (x: Float64Array) => number,
  x: ArrayLike<number>,
  analytic: ArrayLike<number>,
  directions: readonly ArrayLike<number>[],
  bounds: FiniteDifferenceBounds = {},
): Report {
  const moved = (steps: Float64Array) =>
    Float64Array.from(x, (value, i) => directions.reduce((sum, direction, k) => sum + (steps[k] ?? 0) * (direction[i] ?? Number.NaN), value));
  const slopes = directions.map((direction) => Array.from(analytic).reduce((sum, slope, i) => sum + slope * (direction[i] ?? Number.NaN), 0));
  return expectFiniteDifferences((steps) => f(moved(steps)), new Float64Array(directions.length), slopes, bounds);
}

/**
 * Analytic against finite differences: |difference| ≤ rel·max(|analytic|, |numeric|) + the error that the numeric
 * derivative owns to. That error may itself not pass rel of the largest derivative (or the floor): a check that is too
 * coarse to fail throws too.
 */
export function expectFiniteDifferences(
  f: (x: Float64Array) => number,
  x: ArrayLike<number>,
  analytic: ArrayLike<number>,
  { rel = 1e-6, floor = 1e-9, label, step }: FiniteDifferenceBounds = {},
): Report {
  const prefix = label === undefined ? "" : `${label}: `;
  if (x.length === 0) throw new Error(`${prefix}nothing to differentiate by`);
  if (analytic.length !== x.length) {
    throw new Error(`${prefix}the analytic gradient has ${analytic.length} values, the point has ${x.length}`);
  }
  const numeric = gradient(f, x, { step });
  const scale = numeric.values.reduce((most, value) => Math.max(most, Math.abs(value)), floor / rel);
  let worst: Report["worst"] | undefined;
  for (let i = 0; i < x.length; i++) {
    const [actual, truth] = [analytic[i] ?? Number.NaN, numeric.values[i] ?? Number.NaN];
    const uncertainty = numeric.errors[i] ?? Number.NaN;
    if (!(uncertainty <= rel * scale)) {
      throw new Error(`${prefix}the numeric derivative [${i}] is too uncertain to judge by: ${truth} ± ${uncertainty}`);
    }
    const error = Math.abs(actual - truth);
    const bound = Math.max(rel * Math.max(Math.abs(actual), Math.abs(truth)), floor) + uncertainty;
    if (!(error <= bound)) {
      throw new Error(`${prefix}derivative [${i}] differs: analytic ${actual}, numeric ${truth}, error ${error}, bound ${bound}`);
    }
    if (worst === undefined || error / bound > worst.error / worst.bound) worst = { index: i, actual, truth, error, bound };
  }
  if (worst === undefined) throw new Error(`${prefix}nothing was compared`);
  return { count: x.length, worst };
}
