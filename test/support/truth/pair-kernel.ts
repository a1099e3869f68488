/**
 * Reference for pair_kernel: log k of row i of u and row i of v. So far the rbf kernel, log k = −|û − v̂|²/(2σ²), where
 * û = u/|u| with `normalize` (the default) and û = u without.
 */

import { at, dot, type Numbers, requireLength, row } from "./numbers.js";

export interface RbfInputs {
  /** [N, D] */
  readonly u: Numbers;
  readonly v: Numbers;
  /** D */
  readonly width: number;
  readonly sigma: number;
  readonly normalize?: boolean | undefined;
}

export interface RbfGradients {
  readonly u: Float64Array;
  readonly v: Float64Array;
  readonly sigma: number;
  /** With γ = 1/(2σ²) as the parameter instead of σ. */
  readonly gamma: number;
}

export interface RbfVjp extends RbfGradients {
  /** Σ|terms| of each gradient, for the bound of SPEC 9. */
  readonly termSums: RbfGradients;
}

export function rbfLogKernel(inputs: RbfInputs): Float64Array {
  const rows = rowsOf(inputs);
  return Float64Array.from({ length: rows }, (_, i) => {
    const r = difference(side(inputs.u, i, inputs).unit, side(inputs.v, i, inputs).unit);
    return -dot(r, r) / (2 * inputs.sigma ** 2);
  });
}

/** The gradients of Σ upstream·logK. */
export function rbfLogKernelVjp(inputs: RbfInputs & { readonly upstream: Numbers }): RbfVjp {
  const { width, sigma, upstream } = inputs;
  const rows = rowsOf(inputs);
  requireLength(upstream, rows, "upstream");
  const u = new Float64Array(rows * width);
  const v = new Float64Array(rows * width);
  const uTerms = new Float64Array(rows * width);
  const vTerms = new Float64Array(rows * width);
  let squares = 0;
  let squareTerms = 0;
  for (let i = 0; i < rows; i++) {
    const g = at(upstream, i);
    const [a, b] = [side(inputs.u, i, inputs), side(inputs.v, i, inputs)];
    const r = difference(a.unit, b.unit);
    const spread = a.unit.map((x, j) => Math.abs(x) + Math.abs(at(b.unit, j))); // Σ|terms| of r
    squares += g * dot(r, r);
    squareTerms += Math.abs(g) * dot(spread, spread);
    const toA = r.map((x) => (-g * x) / sigma ** 2);
    const toB = r.map((x) => (g * x) / sigma ** 2);
    const terms = spread.map((x) => (Math.abs(g) * x) / sigma ** 2);
    u.set(a.pullBack(toA), i * width);
    v.set(b.pullBack(toB), i * width);
    uTerms.set(a.pullBackTerms(terms), i * width);
    vTerms.set(b.pullBackTerms(terms), i * width);
  }
  const termSums = { u: uTerms, v: vTerms, sigma: squareTerms / sigma ** 3, gamma: squareTerms };
  return { u, v, sigma: squares / sigma ** 3, gamma: -squares, termSums };
}

interface Side {
  readonly unit: Float64Array;
  pullBack(gradient: Float64Array): Float64Array;
  pullBackTerms(terms: Float64Array): Float64Array;
}

/** One embedding as the kernel sees it, and the way back: d(x/|x|) takes g to (g − x̂(x̂·g))/|x|. */
function side(matrix: Numbers, index: number, { width, normalize = true }: RbfInputs): Side {
  const x = row(matrix, index, width);
  if (!normalize) return { unit: x, pullBack: (g) => g, pullBackTerms: (t) => t };
  const length = Math.hypot(...x);
  if (length === 0) throw new RangeError(`row ${index} is zero and has no direction`);
  const unit = x.map((value) => value / length);
  const magnitudes = unit.map(Math.abs);
  return {
    unit,
    pullBack: (g) => {
      const along = dot(unit, g);
      return g.map((value, j) => (value - at(unit, j) * along) / length);
    },
    pullBackTerms: (t) => {
      const along = dot(magnitudes, t);
      return t.map((value, j) => (value + at(magnitudes, j) * along) / length);
    },
  };
}

function difference(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, j) => value - at(b, j));
}

function rowsOf({ u, v, width }: RbfInputs): number {
  requireLength(v, u.length, "v");
  const rows = u.length / width;
  if (!Number.isInteger(rows)) throw new RangeError(`u's ${u.length} values are no rows of ${width}`);
  return rows;
}
