/**
 * Reference for divergence: D(p‖q) of p = softmax z(policy) and q = softmax z(reference), row by row, with its gradient in the policy's
 * logits. z = softcap·tanh(logit/softcap)/temperature. Nothing cancels however near the rows are: everything is a function of
 * t = ln p/q, whose Σ q·(eᵗ − 1) = 0, so that D = Σ q·h(t) with h(t) = f(eᵗ) − f(1) − f′(1)(eᵗ − 1) ≥ 0.
 */

import { remembered } from "../remember.js";
import { at, dot, IGNORED_TARGET, logSumExp, type Numbers, requireLength, row, sum } from "./numbers.js";
import type { LogitOptions } from "./token-log-probs.js";
import { type TransportSpec, transport } from "./transport.js";

export type DivergenceSpec =
  | { readonly name: "kl" | "forward_kl" | "jeffreys" | "bhattacharyya" | "tv" | "chi2" | "neyman_chi2" }
  | { readonly name: "renyi" | "alpha" | "tsallis"; readonly alpha: number }
  | { readonly name: "hellinger"; readonly root?: boolean }
  | { readonly name: "js"; readonly beta?: number }
  | { readonly name: "f"; readonly f: (ratio: number) => number; readonly derivative: (ratio: number) => number }
  | { readonly name: "wasserstein"; readonly exponent?: number }
  | TransportSpec;

export interface RowDivergence {
  readonly value: number;
  /** In z of the policy; of no meaning where the value is infinite. */
  readonly gradient: Float64Array;
  /** Σ|terms| of each gradient, for the bound of SPEC 9. */
  readonly terms: Float64Array;
}

/** One outcome: its probabilities p and q, their logarithms, and t = ln p/q. */
interface Outcome {
  readonly logP: number;
  readonly logQ: number;
  readonly p: number;
  readonly q: number;
  readonly t: number;
}

/** An f-divergence, outcome by outcome. */
interface Generator {
  /** q·h(t) */
  value(outcome: Outcome): number;
  /** p·(f′(eᵗ) − f′(1)) */
  slope(outcome: Outcome): number;
  /** p·df′(eᵗ)/dt: what an error of t does to the slope. */
  curvature(outcome: Outcome): number;
}

const kl: Generator = {
  value: ({ p, q, t }) => (Math.abs(t) < 1 ? q * (t * Math.expm1(t) - expm1Minus(t)) : times(p, t) - p + q),
  slope: ({ p, t }) => times(p, t),
  curvature: ({ p }) => p,
};

const forwardKl: Generator = {
  value: ({ p, q, t }) => (Math.abs(t) < 1 ? q * expm1Minus(t) : p - q - times(q, t)),
  slope: ({ logP, t }) => -scaledExpm1(logP, -t),
  curvature: ({ q }) => q,
};

const jeffreys: Generator = sumOf(kl, forwardKl);

/** ½(√r − 1)² */
const hellinger: Generator = {
  value: ({ p, q, t }) => (t < 0 ? 0.5 * q * Math.expm1(t / 2) ** 2 : 0.5 * p * Math.expm1(-t / 2) ** 2),
  slope: ({ logP, t }) => (t === -Infinity ? 0 : -0.5 * scaledExpm1(logP, -t / 2)),
  curvature: ({ logP, logQ }) => 0.25 * Math.exp((logP + logQ) / 2),
};

const tv: Generator = {
  value: ({ p, q, t }) => 0.5 * (t < 0 ? q * -Math.expm1(t) : p * -Math.expm1(-t)),
  slope: ({ p, t }) => 0.5 * p * Math.sign(t),
  curvature: () => 0,
};

const chi2: Generator = {
  value: ({ logQ, t }) => squaredExcess(logQ, t),
  slope: ({ logP, t }) => (t === -Infinity ? 0 : 2 * scaledExpm1(logP, t)),
  curvature: ({ logP, t }) => (t === -Infinity ? 0 : 2 * Math.exp(logP + t)),
};

/** (r − 1)²/r */
const neymanChi2: Generator = {
  value: ({ logP, t }) => squaredExcess(logP, -t),
  slope: ({ logP, t }) => -scaledExpm1(logP, -2 * t),
  curvature: ({ logP, t }) => 2 * Math.exp(logP - 2 * t),
};

/** β KL(p‖m) + (1 − β) KL(q‖m), each of them as Σ m·h(ln p/m) and Σ m·h(ln q/m) of kl's h. */
function js(beta: number): Generator {
  const mixed = ({ logP, logQ, t }: Outcome) => {
    const ofP = t < 0 ? t - Math.log1p(beta * Math.expm1(t)) : -Math.log1p((1 - beta) * Math.expm1(-t)); // ln p/m
    const ofQ = t < 0 ? -Math.log1p(beta * Math.expm1(t)) : ofP - t; // ln q/m
    return { ofP, ofQ, logM: t < 0 ? logQ - ofQ : logP - ofP };
  };
  const against = (logM: number, s: number): number => kl.value({ logP: logM + s, logQ: logM, p: Math.exp(logM + s), q: Math.exp(logM), t: s });
  return {
    value: (outcome) => {
      const { ofP, ofQ, logM } = mixed(outcome);
      return beta * against(logM, ofP) + (1 - beta) * against(logM, ofQ);
    },
    slope: (outcome) => beta * times(outcome.p, mixed(outcome).ofP),
    curvature: (outcome) => beta * (1 - beta) * Math.exp(outcome.logP + outcome.logQ - mixed(outcome).logM),
  };
}

/** Σ(pᵅq^(1−α) − 1)/(α − 1), which is kl at α = 1. Without cancellation for α ≥ ½. */
function power(alpha: number): Generator {
  const a = alpha - 1;
  /** p·(rᵃ − 1)/a */
  const excess = ({ logP, p, t }: Outcome): number => {
    if (t === -Infinity && alpha > 0) return 0;
    return a === 0 ? times(p, t) : scaledExpm1(logP, a * t) / a;
  };
  return {
    value: (outcome) => {
      const { p, q, t } = outcome;
      if (!(Math.abs(t) < 1 && Math.abs(a * t) < 1)) return excess(outcome) - p + q;
      const [e, rest] = a === 0 ? [t, 0] : [Math.expm1(a * t) / a, expm1Minus(a * t) / a];
      return q * (Math.expm1(t) * e + rest - expm1Minus(t));
    },
    slope: (outcome) => alpha * excess(outcome),
    curvature: (outcome) => alpha * Math.exp(logPower(outcome, alpha)),
  };
}

/** (Σ pᵅq^(1−α) − 1)/(α(α−1)); with α and 1 − α, p and q change places. */
function amari(alpha: number): Generator {
  const { value } = power(Math.max(alpha, 1 - alpha));
  const a = alpha - 1;
  return {
    value: (outcome) => value(alpha < 0.5 ? reversed(outcome) : outcome) / Math.max(alpha, 1 - alpha),
    slope: ({ logP, p, t }) => {
      if (t === -Infinity && alpha > 0) return 0;
      return a === 0 ? times(p, t) : scaledExpm1(logP, a * t) / a;
    },
    curvature: (outcome) => Math.exp(logPower(outcome, alpha)),
  };
}

/** A caller's f, shifted to f(1) = f′(1) = 0. */
function ofCaller(f: (ratio: number) => number, derivative: (ratio: number) => number): Generator {
  const [f1, slope1] = [f(1), derivative(1)];
  const slopeAt = (t: number) => derivative(Math.exp(t)) - slope1;
  return {
    // q·f(p/q) tends to p·f′(∞) as q falls to 0.
    value: ({ p, q, t }) => (t === Infinity ? p * slopeAt(t) : q * (f(Math.exp(t)) - f1 - slope1 * Math.expm1(t))),
    slope: ({ p, t }) => (p === 0 ? 0 : p * slopeAt(t)),
    curvature: ({ p, t }) => (Number.isFinite(t) ? Math.abs((p * (slopeAt(t + 1e-4) - slopeAt(t - 1e-4))) / 2e-4) : 0),
  };
}

function sumOf(a: Generator, b: Generator): Generator {
  return {
    value: (outcome) => a.value(outcome) + b.value(outcome),
    slope: (outcome) => a.slope(outcome) + b.slope(outcome),
    curvature: (outcome) => a.curvature(outcome) + b.curvature(outcome),
  };
}

function scaled(factor: number, { value, slope, curvature }: Generator): Generator {
  return {
    value: (outcome) => factor * value(outcome),
    slope: (outcome) => factor * slope(outcome),
    curvature: (outcome) => Math.abs(factor) * curvature(outcome),
  };
}

function generatorOf(spec: DivergenceSpec): Generator {
  switch (spec.name) {
    case "kl":
      return kl;
    case "forward_kl":
      return forwardKl;
    case "jeffreys":
      return jeffreys;
    case "hellinger":
      return hellinger;
    case "tv":
      return tv;
    case "chi2":
      return chi2;
    case "neyman_chi2":
      return neymanChi2;
    case "js":
      return js(spec.beta ?? 0.5);
    case "alpha":
      return amari(spec.alpha);
    case "tsallis":
      return scaled(spec.alpha, amari(spec.alpha));
    case "f":
      return ofCaller(spec.f, spec.derivative);
    default:
      throw new RangeError(`${spec.name} is no f-divergence`);
  }
}

/** A pair of rows of z, and how uncertain each exponent is, in epsilons of the type that computes it. */
class RowPair {
  readonly outcomes: readonly Outcome[];
  readonly p: Float64Array;
  readonly q: Float64Array;
  /** Of ln p, its normalisation included. */
  readonly ofLogP: Float64Array;
  /** Of t. */
  readonly ofT: Float64Array;

  constructor(logP: Float64Array, logQ: Float64Array, t: Float64Array, policyTerms: Numbers, referenceTerms: Numbers) {
    this.p = logP.map(Math.exp);
    this.q = logQ.map(Math.exp);
    this.outcomes = Array.from(t, (tj, j) => ({ logP: at(logP, j), logQ: at(logQ, j), p: at(this.p, j), q: at(this.q, j), t: tj }));
    const [x, y] = [exponentTerms(logP, policyTerms), exponentTerms(logQ, referenceTerms)];
    const [ofX, ofY] = [dot(this.p, x), dot(this.q, y)];
    this.ofLogP = x.map((terms) => 1 + terms + ofX);
    this.ofT = x.map((terms, j) => terms + ofX + at(y, j) + ofY);
  }

  /** Σ over the outcomes that either row holds possible. */
  sum(term: (outcome: Outcome) => number): number {
    let total = 0;
    for (const outcome of this.outcomes) if (possible(outcome)) total += term(outcome);
    return total;
  }

  map(term: (outcome: Outcome, index: number) => number): Float64Array {
    return Float64Array.from(this.outcomes, (outcome, j) => (possible(outcome) ? term(outcome, j) : 0));
  }

  /** What the uncertainty of t moves each slope of this curvature by. */
  moved(curvature: (outcome: Outcome) => number): Float64Array {
    return this.map((outcome, j) => times(curvature(outcome), at(this.ofT, j)));
  }
}

/** Whether either row holds it possible. */
function possible({ logP, logQ }: Outcome): boolean {
  return logP !== -Infinity || logQ !== -Infinity;
}

function exponentTerms(logs: Float64Array, terms: Numbers): Float64Array {
  return logs.map((log, j) => (log === -Infinity ? 0 : Math.abs(log) + at(terms, j)));
}

/** Value and gradient of one pair of rows. */
function rowDivergence(spec: DivergenceSpec, pair: RowPair): RowDivergence {
  switch (spec.name) {
    case "renyi":
      return renyi(pair, spec.alpha);
    case "bhattacharyya":
      return scaledResult(renyi(pair, 0.5), 0.5);
    case "hellinger":
      return spec.root ? rootOf(fDivergence(pair, hellinger)) : fDivergence(pair, hellinger);
    case "wasserstein":
      return ordered(pair, spec.exponent ?? 1);
    case "transport": {
      const { value, gradient, terms } = transport(spec, pair.p, pair.q);
      return { value, gradient, terms: terms.map((term, j) => term * at(pair.ofLogP, j)) };
    }
    default:
      return fDivergence(pair, generatorOf(spec));
  }
}

function fDivergence(pair: RowPair, { value, slope, curvature }: Generator): RowDivergence {
  return pulledBack(pair, pair.sum(value), pair.map(slope), pair.moved(curvature));
}

/**
 * dD/dz_j = p_j·(g_j − Σ p g), of slopes p·g and what uncertain exponents move them by. A constant in g changes nothing: the likeliest
 * outcome's is taken off first, so that nothing cancels where it leaves the others next to no probability.
 */
function pulledBack(pair: RowPair, value: number, slopes: Float64Array, moved: Float64Array): RowDivergence {
  const likeliest = pair.p.reduce((best, p, j) => (p > at(pair.p, best) ? j : best), 0);
  const constant = at(slopes, likeliest) / at(pair.p, likeliest);
  const centred = slopes.map((slope, j) => (j === likeliest ? 0 : slope - at(pair.p, j) * constant));
  const total = sum(centred);
  const magnitude = sum(slopes.map(Math.abs));
  const allMoved = sum(moved);
  const terms = slopes.map((slope, j) => {
    const p = at(pair.p, j);
    return (Math.abs(slope) + p * magnitude) * at(pair.ofLogP, j) + at(moved, j) + p * allMoved;
  });
  return { value, gradient: centred.map((slope, j) => slope - at(pair.p, j) * total), terms };
}

/** ln(Σ pᵅq^(1−α))/(α − 1) */
function renyi(pair: RowPair, alpha: number): RowDivergence {
  if (alpha === Infinity) return largestRatio(pair);
  const a = alpha - 1;
  const value = renyiValue(pair, alpha);
  // The gradient is that of the logits of the tilted distribution pᵅq^(1−α)/Σ, less p: α·p·(e^(a(t − D)) − 1)/a.
  const slopes = pair.map(({ logP, p, t }) => {
    if (t === -Infinity) return 0;
    return a === 0 ? times(p, t - value) : (alpha * scaledExpm1(logP, a * (t - value))) / a;
  });
  const moved = pair.moved((outcome) => alpha * Math.exp(logPower(outcome, alpha) - a * value));
  const { gradient, terms } = pulledBack(pair, value, slopes, moved);
  return { value, gradient: value === 0 ? new Float64Array(gradient.length) : gradient, terms };
}

function renyiValue(pair: RowPair, alpha: number): number {
  const a = alpha - 1;
  const excess = alpha < 0.5 ? alpha * pair.sum(amari(alpha).value) : pair.sum(power(alpha).value);
  if (a === 0 || excess === Infinity) return excess;
  if (a * excess > -0.5 && a * excess < 1) return Math.log1p(a * excess) / a;
  return logSumExp(pair.outcomes.map((outcome) => (possible(outcome) ? logPower(outcome, alpha) : -Infinity))) / a;
}

/** max ln(p/q): its gradient is that of ln p at the largest, 1 − p there and −p elsewhere. */
function largestRatio(pair: RowPair): RowDivergence {
  const ratios = pair.outcomes.map((outcome) => (outcome.logP === -Infinity ? -Infinity : outcome.t));
  const value = ratios.reduce((most, t) => Math.max(most, t), -Infinity);
  const winner = ratios.indexOf(value);
  const gradient = pair.p.map((p, j) => (j === winner ? pair.p.reduce((others, pk, k) => (k === j ? others : others + pk), 0) : -p));
  const terms = pair.p.map((p, j) => (j === winner ? 1 : p) * at(pair.ofLogP, j));
  return { value, gradient: value === 0 ? gradient.fill(0) : gradient, terms };
}

function rootOf({ value, gradient, terms }: RowDivergence): RowDivergence {
  const factor = value === 0 ? 0 : 0.5 / Math.sqrt(value);
  return { ...scaledResult({ value, gradient, terms }, factor), value: Math.sqrt(value) };
}

function scaledResult({ value, gradient, terms }: RowDivergence, factor: number): RowDivergence {
  return { value: factor * value, gradient: gradient.map((g) => factor * g), terms: terms.map((term) => factor * term) };
}

/** Σ_k |F_p(k) − F_q(k)|^exponent of the cumulative distributions. */
function ordered(pair: RowPair, exponent: number): RowDivergence {
  const differences = cumulative(pair.map(({ p, q, t }) => (t < 0 ? q * Math.expm1(t) : p * -Math.expm1(-t))));
  differences[differences.length - 1] = 0; // both add up to 1
  const value = sum(differences.map((difference) => Math.abs(difference) ** exponent));
  const derivatives = differences.map((difference) => exponent * Math.abs(difference) ** (exponent - 1) * Math.sign(difference));
  const slopes = suffixSums(derivatives).map((g, j) => times(at(pair.p, j), g));
  // An error of a difference, Σ p·(of t) up to it, moves its derivative by exponent·(exponent − 1)·|difference|^(exponent − 2).
  const errors = cumulative(pair.map(({ p, q }, j) => (p + q) * at(pair.ofT, j)));
  const bends = differences.map((difference, k) =>
    difference === 0 || exponent === 1 ? 0 : exponent * (exponent - 1) * Math.abs(difference) ** (exponent - 2) * at(errors, k),
  );
  const moved = suffixSums(bends).map((bend, j) => at(pair.p, j) * bend);
  return pulledBack(pair, value, slopes, moved);
}

function cumulative(values: Float64Array): Float64Array {
  let total = 0;
  return values.map((value) => {
    total += value;
    return total;
  });
}

function suffixSums(values: Float64Array): Float64Array {
  return cumulative(values.slice().reverse()).reverse();
}

// ---- Elementary functions that do not cancel -------------------------------------------------------------------------------------------

/** eˢ − 1 − s, by its series where that cancels. */
function expm1Minus(s: number): number {
  if (!(Math.abs(s) < 0.5)) return Math.expm1(s) - s;
  let term = (s * s) / 2;
  let total = 0;
  for (let k = 3; term !== 0 && k < 24; k++) {
    total += term;
    term *= s / k;
  }
  return total;
}

/** e^logWeight·(eˢ − 1), also where eˢ alone overflows. */
function scaledExpm1(logWeight: number, s: number): number {
  return s < 1 ? Math.exp(logWeight) * Math.expm1(s) : Math.exp(logWeight + s) - Math.exp(logWeight);
}

/** e^logWeight·(eˢ − 1)² */
function squaredExcess(logWeight: number, s: number): number {
  return s < 1 ? Math.exp(logWeight) * Math.expm1(s) ** 2 : s === Infinity ? Infinity : Math.exp(logWeight + 2 * s) * Math.expm1(-s) ** 2;
}

/** a·b, where nothing of infinity is nothing. */
function times(a: number, b: number): number {
  return a === 0 ? 0 : a * b;
}

/** α·ln p + (1 − α)·ln q */
function logPower({ logP, logQ }: Outcome, alpha: number): number {
  return times(alpha, logP) + times(1 - alpha, logQ);
}

function reversed({ logP, logQ, p, q, t }: Outcome): Outcome {
  return { logP: logQ, logQ: logP, p: q, q: p, t: -t };
}

// ---- The committed fixture -------------------------------------------------------------------------------------------------------------

interface FixtureBatch {
  readonly n: number;
  readonly v: number;
  readonly options: LogitOptions;
  readonly policy: readonly number[];
  readonly reference: readonly number[];
  readonly upstream: readonly number[];
  readonly targets?: readonly number[];
  readonly targetUpstream?: readonly number[];
}

/** "inf" stands for an infinite alpha. */
type FixtureKind = { readonly name: string; readonly alpha?: number | "inf" };

interface FixtureCase {
  readonly name: string;
  readonly batch: string;
  readonly kind: FixtureKind;
  readonly expected: { readonly values: readonly number[]; readonly gradPolicy: readonly number[] };
}

interface HeadsCase {
  readonly name: string;
  readonly n: number;
  /** The policy's width. */
  readonly d: number;
  /** The reference's width. */
  readonly e: number;
  readonly v: number;
  readonly kind: FixtureKind;
  readonly options: LogitOptions;
  readonly targets: readonly number[];
  readonly policyHidden: readonly number[];
  readonly policyWeight: readonly number[];
  readonly policyBias: readonly number[];
  readonly referenceHidden: readonly number[];
  readonly referenceWeight: readonly number[];
  readonly upstream: readonly number[];
  readonly targetUpstream: readonly number[];
  readonly expected: {
    readonly values: readonly number[];
    readonly gradHidden: readonly number[];
    readonly gradWeight: readonly number[];
    readonly gradBias: readonly number[];
  };
}

interface TransportCase {
  readonly name: string;
  readonly n: number;
  readonly v: number;
  /** Width of the embeddings. */
  readonly d: number;
  readonly options: {
    readonly method: "exact" | "sinkhorn";
    readonly epsilon?: number;
    readonly debias?: boolean;
    readonly metric?: "euclidean" | "sqeuclidean" | "cosine";
    readonly topK?: number;
  };
  readonly policy: readonly number[];
  readonly reference: readonly number[];
  readonly upstream: readonly number[];
  readonly cost?: readonly number[];
  readonly embeddings?: readonly number[];
  readonly expected: { readonly values: readonly number[]; readonly gradPolicy: readonly number[] };
}

declare module "./fixtures.js" {
  interface Fixtures {
    readonly divergence: {
      readonly batches: Readonly<Record<string, FixtureBatch>>;
      readonly cases: readonly FixtureCase[];
      readonly heads: readonly HeadsCase[];
      readonly transport: readonly TransportCase[];
    };
  }
}

export function specOfFixture(kind: FixtureKind): DivergenceSpec {
  return (kind.alpha === "inf" ? { ...kind, alpha: Infinity } : kind) as DivergenceSpec;
}

// ---- Rows of logits --------------------------------------------------------------------------------------------------------------------

export type Reduction = "none" | "sum" | "mean" | "batchmean";

export interface DivergenceInputs extends LogitOptions {
  readonly spec: DivergenceSpec;
  /** [N, V] */
  readonly policy: Numbers;
  /** [N, V] */
  readonly reference: Numbers;
  /** N */
  readonly rows: number;
  /** [N] */
  readonly targets?: Numbers | undefined;
  readonly reduction?: Reduction | undefined;
  /** [N], or the same for every row or for the reduced value; default 1. */
  readonly upstream?: Numbers | number | undefined;
  /** [N] */
  readonly targetUpstream?: Numbers | undefined;
  /** [N, V] Σ|terms| of each logit, where the logits were themselves computed. */
  readonly policyTerms?: Numbers | undefined;
  readonly referenceTerms?: Numbers | undefined;
}

export interface DivergenceTruth {
  readonly values: Float64Array;
  /** The values reduced; their sum when they are not. */
  readonly value: number;
  readonly gradPolicy: Float64Array;
  /** Σ|terms| of each gradient, for the bound of SPEC 9. */
  readonly termSums: Float64Array;
}

export const divergenceTruth = remembered(divergenceTruthOf);

function divergenceTruthOf(inputs: DivergenceInputs): DivergenceTruth {
  const { rows, targets, targetUpstream, spec } = inputs;
  const width = inputs.policy.length / rows;
  requireLength(inputs.reference, inputs.policy.length, "reference");
  const counted = Array.from({ length: rows }, (_, n) => targets === undefined || at(targets, n) !== IGNORED_TARGET);
  const weight = reductionWeight(inputs.reduction ?? "none", rows, counted.filter(Boolean).length);
  const values = new Float64Array(rows);
  const gradPolicy = new Float64Array(rows * width);
  const termSums = new Float64Array(rows * width);
  for (let n = 0; n < rows; n++) {
    if (!counted[n]) continue;
    const pair = rowPairOf(inputs, n, width);
    const { value, gradient, terms } = rowDivergence(spec, pair);
    values[n] = value;
    const upstream = weight * upstreamOf(inputs.upstream, n);
    const atTarget = targetUpstream === undefined ? 0 : at(targetUpstream, n);
    const target = targets === undefined ? -1 : at(targets, n);
    for (let j = 0; j < width; j++) {
      const hit = j === target ? 1 : 0;
      const { slope, slopeTerms } = transformSlope(at(inputs.policy, n * width + j), inputs);
      gradPolicy[n * width + j] = slope * (times(upstream, at(gradient, j)) + atTarget * (hit - at(pair.p, j)));
      const ofTarget = Math.abs(atTarget) * (hit + at(pair.p, j) * at(pair.ofLogP, j));
      termSums[n * width + j] = slopeTerms * (times(Math.abs(upstream), at(terms, j)) + ofTarget);
    }
  }
  return { values, value: weight * sum(values), gradPolicy, termSums };
}

function reductionWeight(reduction: Reduction, rows: number, counted: number): number {
  if (reduction === "mean") return 1 / Math.max(counted, 1);
  return reduction === "batchmean" ? 1 / rows : 1;
}

function upstreamOf(upstream: Numbers | number | undefined, index: number): number {
  if (upstream === undefined) return 1;
  return typeof upstream === "number" ? upstream : at(upstream, index);
}

function rowPairOf(inputs: DivergenceInputs, index: number, width: number): RowPair {
  const [x, y] = [row(inputs.policy, index, width), row(inputs.reference, index, width)];
  const u = x.map((xj, j) => transformedDifference(xj, at(y, j), inputs));
  const [zx, zy] = [x.map((xj) => transformed(xj, inputs)), y.map((yj) => transformed(yj, inputs))];
  const [logP, logQ] = [relativeToTotal(zx), relativeToTotal(zy)];
  const termsOf = (z: Float64Array, ofLogits: Numbers | undefined) =>
    z.map(
      (zj, j) =>
        (inputs.softcap === undefined || zj === -Infinity ? 0 : Math.abs(zj)) +
        (ofLogits === undefined ? 0 : at(ofLogits, index * width + j) / (inputs.temperature ?? 1)),
    );
  return new RowPair(logP, logQ, logRatios(u, logP, logQ), termsOf(zx, inputs.policyTerms), termsOf(zy, inputs.referenceTerms));
}

/** t = ln p/q = u − ln Σ q·eᵘ, where both rows hold the same outcomes possible; the sum by expm1 once it is near 1. */
function logRatios(u: Float64Array, logP: Float64Array, logQ: Float64Array): Float64Array {
  const first = u.find((uj) => !Number.isNaN(uj)) ?? 0;
  if (u.every((uj) => Number.isNaN(uj) || uj === first)) return new Float64Array(u.length); // rows that differ by a shift alone
  const sameSupport = logP.every((log, j) => (log === -Infinity) === (at(logQ, j) === -Infinity));
  if (!sameSupport) return logP.map((log, j) => (log === at(logQ, j) ? 0 : log - at(logQ, j)));
  const rough = logSumExp(logQ.map((log, j) => (log === -Infinity ? -Infinity : log + at(u, j))));
  const near = u.map((uj, j) => (at(logQ, j) === -Infinity ? 0 : uj - rough));
  const rest = Math.log1p(logQ.reduce((total, log, j) => (log === -Infinity ? total : total + scaledExpm1(log, at(near, j))), 0));
  return near.map((t, j) => (at(logQ, j) === -Infinity ? 0 : t - rest));
}

/** z − logsumexp z, the largest taken off first so that a large shift of z costs no digits. */
function relativeToTotal(z: Float64Array): Float64Array {
  const largest = z.reduce((most, value) => Math.max(most, value), -Infinity);
  const centred = z.map((value) => value - largest);
  const total = logSumExp(centred);
  return centred.map((value) => value - total);
}

function transformed(logit: number, { softcap, temperature = 1 }: LogitOptions): number {
  return (softcap === undefined ? logit : softcap * Math.tanh(logit / softcap)) / temperature;
}

/** z(x) − z(y), by tanh a − tanh b = sinh(a − b)/(cosh a·cosh b) where the two are near. */
function transformedDifference(x: number, y: number, { softcap, temperature = 1 }: LogitOptions): number {
  if (softcap === undefined) return (x - y) / temperature;
  const [a, b] = [x / softcap, y / softcap];
  const near = Math.abs(a - b) < 1 && Math.abs(a) < 300;
  const difference = near ? Math.sinh((x - y) / softcap) / (Math.cosh(a) * Math.cosh(b)) : Math.tanh(a) - Math.tanh(b);
  return (softcap * difference) / temperature;
}

/** dz/dlogit = (1 − tanh²)/temperature. */
function transformSlope(logit: number, { softcap, temperature = 1 }: LogitOptions): { slope: number; slopeTerms: number } {
  if (softcap === undefined) return { slope: 1 / temperature, slopeTerms: 1 / temperature };
  const squared = Math.tanh(logit / softcap) ** 2;
  return { slope: 1 / Math.cosh(logit / softcap) ** 2 / temperature, slopeTerms: (1 + squared) / temperature };
}
