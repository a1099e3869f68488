/** What the tests of divergence and linear_divergence share: every kind with its reference formula, and families of row pairs. */

import { type Divergence, divergences } from "dpo-kernels";
import type { Random } from "./random.js";
import { type Storage, stored, storedAll, ulp } from "./storage.js";
import type { DivergenceSpec } from "./truth/divergences.js";

export interface Kind {
  readonly name: string;
  readonly kind: Divergence;
  readonly spec: DivergenceSpec;
}

/** The kind that the package makes of a reference formula. */
export function kindOf(spec: DivergenceSpec): Divergence {
  switch (spec.name) {
    case "kl":
      return divergences.kl();
    case "forward_kl":
      return divergences.forwardKl();
    case "jeffreys":
      return divergences.jeffreys();
    case "renyi":
      return divergences.renyi(spec);
    case "bhattacharyya":
      return divergences.bhattacharyya();
    case "hellinger":
      return divergences.hellinger(spec);
    case "js":
      return divergences.js(spec);
    case "tv":
      return divergences.tv();
    case "chi2":
      return divergences.chi2();
    case "neyman_chi2":
      return divergences.neymanChi2();
    case "alpha":
      return divergences.alpha(spec);
    case "tsallis":
      return divergences.tsallis(spec);
    case "f":
      return divergences.f(spec);
    case "wasserstein":
      return divergences.wasserstein(spec.exponent === undefined ? {} : { exponent: spec.exponent });
    case "transport":
      throw new TypeError("transport takes its cost as a tensor: make it where it is tested");
  }
}

export function nameOfSpec({ name, ...parameters }: DivergenceSpec): string {
  const values = Object.values(parameters).map((value) => (typeof value === "function" ? "own" : String(value)));
  return values.length === 0 ? name : `${name}(${values.join(", ")})`;
}

function kind(spec: DivergenceSpec): Kind {
  return { name: nameOfSpec(spec), kind: kindOf(spec), spec };
}

const withAlpha = (name: "renyi" | "alpha" | "tsallis", alphas: readonly number[]): DivergenceSpec[] => alphas.map((alpha) => ({ name, alpha }));

/** Every kind but transport. */
export const KINDS: readonly Kind[] = [
  ...(["kl", "forward_kl", "jeffreys", "bhattacharyya", "tv", "chi2", "neyman_chi2"] as const).map((name): DivergenceSpec => ({ name })),
  ...withAlpha("renyi", [0.5, 0.9, 1, 1.0001, 1.1, 2, 5, Infinity]),
  ...withAlpha("alpha", [-1, 0, 0.5, 1, 2, 3]),
  ...withAlpha("tsallis", [0.5, 1, 2]),
  ...[0.5, 0.1, 0.9].map((beta): DivergenceSpec => ({ name: "js", beta })),
  ...[false, true].map((root): DivergenceSpec => ({ name: "hellinger", root })),
  ...[1, 2, 1.5].map((exponent): DivergenceSpec => ({ name: "wasserstein", exponent })),
].map(kind);

/** Is the divergence infinite where p > 0 = q? */
export function needsReference({ spec }: Kind): boolean {
  if (spec.name === "renyi" || spec.name === "alpha" || spec.name === "tsallis") return spec.alpha >= 1;
  return ["kl", "jeffreys", "chi2"].includes(spec.name);
}

/** Is the divergence infinite where q > 0 = p? */
export function needsPolicy({ spec }: Kind): boolean {
  return ["forward_kl", "jeffreys", "neyman_chi2"].includes(spec.name) || (spec.name === "alpha" && spec.alpha <= 0);
}

/** Is the divergence infinite where no outcome is possible to both? */
export function needsOverlap(one: Kind): boolean {
  return needsReference(one) || needsPolicy(one) || one.spec.name === "renyi" || one.spec.name === "bhattacharyya";
}

/** Two matrices of logits, as their storage type holds them. */
export interface Logits {
  readonly policy: Float64Array;
  readonly reference: Float64Array;
}

type Family = (random: Random, rows: number, width: number) => Logits;

const normals: Family = (random, rows, width) => ({
  policy: random.normals(rows * width, 0, 2),
  reference: random.normals(rows * width, 0, 2),
});

/** Adds to some logits of each row. */
function raised(logits: Float64Array, width: number, by: number, at: (row: number, column: number) => boolean): Float64Array {
  return logits.map((z, i) => (at(Math.floor(i / width), i % width) ? z + by : z));
}

/** Pairs of rows of one character each. All of them finite to every kind. */
export const FAMILIES: Readonly<Record<string, Family>> = {
  random: normals,
  peaked: (random, rows, width) => {
    const { policy, reference } = normals(random, rows, width);
    return {
      policy: raised(policy, width, 9, (row, column) => column === (7 * row + 1) % width),
      reference: raised(reference, width, 9, (row, column) => column === (5 * row + 3) % width),
    };
  },
  "agreeing on a peak": (random, rows, width) => {
    const { policy, reference } = normals(random, rows, width);
    const peak = (row: number, column: number) => column === (7 * row + 1) % width;
    return { policy: raised(policy, width, 14, peak), reference: raised(reference, width, 12, peak) };
  },
  disjoint: (random, rows, width) => {
    const { policy, reference } = normals(random, rows, width);
    return {
      policy: raised(policy, width, 12, (_, column) => column % 2 === 0),
      reference: raised(reference, width, 12, (_, column) => column % 2 === 1),
    };
  },
  "one-hot policy": (random, rows, width) => {
    const { reference } = normals(random, rows, width);
    return { policy: raised(new Float64Array(rows * width), width, 25, (row, column) => column === (3 * row) % width), reference };
  },
  "shifted apart by 2e4": (random, rows, width) => {
    const { policy, reference } = normals(random, rows, width);
    const eighths = (logits: Float64Array, shift: number) => logits.map((z) => Math.round(z * 8) / 8 + shift);
    return { policy: eighths(policy, 1e4), reference: eighths(reference, -1e4) };
  },
  "-inf on both sides": (random, rows, width) => {
    const { policy, reference } = normals(random, rows, width);
    const masked = policy.map((_, i) => (i % width !== 0 && random.uniform() < 0.4 ? 1 : 0));
    const mask = (logits: Float64Array) => logits.map((z, i) => (masked[i] === 1 ? -Infinity : z));
    return { policy: mask(policy), reference: mask(reference) };
  },
};

/** Rows around an order of magnitude apart, `spread` being the deviation of policy − reference. */
export function nearIdentical(random: Random, rows: number, width: number, spread: number): Logits {
  const reference = random.normals(rows * width, 0, 2);
  return { policy: reference.map((y) => y + random.normal(0, spread)), reference };
}

/**
 * The logits rounded to the storage type, with one largest ratio p/q in each row: of several equal ones, which renyi(∞) has its gradient
 * from is nobody's business.
 */
export function storedLogits({ policy, reference }: Logits, width: number, storage: Storage): Logits {
  const [x, y] = [storedAll(policy, storage), storedAll(reference, storage)];
  for (let begin = 0; begin < x.length; begin += width) {
    const ratios = x.subarray(begin, begin + width).map((xj, j) => (xj === -Infinity ? -Infinity : xj - (y[begin + j] ?? 0)));
    const most = ratios.reduce((a, b) => Math.max(a, b), -Infinity);
    const winner = ratios.indexOf(most);
    if (ratios.lastIndexOf(most) === winner) continue;
    const before = x[begin + winner] ?? 0;
    x[begin + winner] = stored(before + Math.max(2 ** -6, 2 * ulp(before, storage)), storage);
  }
  return { policy: x, reference: y };
}
