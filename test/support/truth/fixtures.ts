/** The committed fixtures of test/fixtures, typed. Its README tells what each field is. */

import { readFileSync } from "node:fs";
import type { AdamWOptions } from "dpo-kernels";
import type { PreferenceOptions } from "./preference.js";
import type { LogitOptions } from "./token-log-probs.js";

interface Fixture<Case> {
  readonly header: {
    readonly generator: string;
    readonly versions: Readonly<Record<string, string>>;
    readonly seed: number;
    readonly source: string;
  };
  readonly cases: readonly Case[];
}

type Batches<Batch> = { readonly batches: Readonly<Record<string, Batch>> };

export interface PreferenceBatch {
  readonly policy: readonly number[];
  readonly reference: readonly number[];
  readonly logKernel: readonly number[];
  readonly tokenCounts: readonly number[];
}

export interface PreferenceCase {
  readonly name: string;
  readonly batch: string;
  readonly options: PreferenceOptions;
  readonly weights?: readonly number[];
  readonly expected: {
    readonly loss: number;
    readonly perPair: readonly number[];
    readonly gradPolicy: readonly number[];
    readonly gradLogKernel: readonly number[];
    readonly rewards: readonly number[];
  };
}

interface ExpectedLogProbs {
  readonly logProbs: readonly number[];
  readonly logSumExp: readonly number[];
  readonly entropy: readonly number[];
}

export interface TokenLogProbsCase {
  readonly name: string;
  readonly n: number;
  readonly v: number;
  readonly options: LogitOptions;
  readonly logits: readonly number[];
  readonly targets: readonly number[];
  readonly upstream: readonly number[];
  readonly expected: ExpectedLogProbs & { readonly gradLogits: readonly number[] };
}

export interface LinearShape {
  readonly n: number;
  readonly d: number;
  readonly v: number;
  readonly hidden: readonly number[];
  readonly weight: readonly number[];
  readonly bias: readonly number[];
}

export interface LinearTokenLogProbsCase {
  readonly name: string;
  readonly shape: string;
  readonly biased: boolean;
  readonly options: LogitOptions;
  readonly targets: readonly number[];
  readonly upstream: readonly number[];
  readonly expected: ExpectedLogProbs & {
    readonly gradHidden: readonly number[];
    readonly gradWeight: readonly number[];
    /** Only where biased. */
    readonly gradBias?: readonly number[];
  };
}

export interface PairKernelCase {
  readonly name: string;
  readonly n: number;
  readonly d: number;
  readonly sigma: number;
  readonly normalize: boolean;
  readonly u: readonly number[];
  readonly v: readonly number[];
  readonly upstream: readonly number[];
  readonly expected: {
    readonly logK: readonly number[];
    readonly gradU: readonly number[];
    readonly gradV: readonly number[];
    readonly gradSigma: number;
    readonly gradGamma: number;
  };
}

/** A kernel of the kind `kind`, or "mixture": ((rbf, polynomial), (spectral, mahalanobis)), whose parameters have paths as names. */
export interface KernelFamilyCase {
  readonly name: string;
  readonly kind: string;
  readonly n: number;
  readonly d: number;
  readonly normalize: boolean;
  readonly parameters: Readonly<Record<string, readonly number[]>>;
  /** What is not trained: of matern `nu`; of random_fourier `projection`; of spectral `landmarks`, `projection` and `baseSigma`. */
  readonly fixed: {
    readonly nu?: 0.5 | 1.5 | 2.5;
    readonly projection?: readonly number[];
    readonly landmarks?: readonly number[];
    readonly baseSigma?: number;
  };
  readonly u: readonly number[];
  readonly v: readonly number[];
  readonly upstream: readonly number[];
  readonly expected: {
    readonly logK: readonly number[];
    readonly gradU: readonly number[];
    readonly gradV: readonly number[];
    readonly gradParameters: Readonly<Record<string, readonly number[]>>;
    /** Of mixtures, [n, members]. */
    readonly responsibilities?: readonly number[];
  };
}

/** The diagonal of a matrix of scikit-learn's kernels, by their own options. */
export interface PairwiseCase {
  readonly name: string;
  readonly options: Readonly<Record<string, number | "inf">>;
  readonly n: number;
  readonly d: number;
  readonly u: readonly number[];
  readonly v: readonly number[];
  readonly logK: readonly number[];
}

export interface SequenceBatch {
  readonly offsets: readonly number[];
  readonly targets: readonly number[];
  readonly logProbs: readonly number[];
  readonly upstream: readonly number[];
}

export interface SequenceCase {
  readonly name: string;
  readonly batch: string;
  readonly options: { readonly reduce?: "sum" | "mean"; readonly ldAlpha?: number };
  readonly expected: {
    readonly sequenceLogProbs: readonly number[];
    readonly tokenCounts: readonly number[];
    readonly gradLogProbs: readonly number[];
  };
}

/** Estimates of scikit-learn by method. */
export interface CovarianceCase {
  readonly name: string;
  readonly n: number;
  readonly d: number;
  readonly assumeCentered: boolean;
  readonly x: readonly number[];
  readonly expected: Readonly<Record<"sample" | "ledoit_wolf" | "oas", { readonly covariance: readonly number[]; readonly shrinkage: number }>>;
}

/** Noise of the analytic Gaussian mechanism in units of the sensitivity. */
export interface NoiseScaleCase {
  readonly epsilon: number;
  readonly delta: number;
  readonly scale: number;
}

/** What approximations of a kernel are on average over many seeds. */
export interface RandomFeaturesCase {
  readonly name: string;
  readonly n: number;
  readonly d: number;
  readonly sigma: number;
  readonly components: number;
  readonly seeds: number;
  readonly x: readonly number[];
  readonly expected: { readonly kernel: readonly number[]; readonly mean: readonly number[]; readonly rms: number };
}

export interface AdamWCase {
  readonly options: AdamWOptions;
  readonly start: Readonly<Record<string, readonly number[]>>;
  /** By parameter, one list a step. */
  readonly grads: Readonly<Record<string, readonly (readonly number[])[]>>;
  readonly expected: Readonly<Record<string, readonly (readonly number[])[]>>;
}

export interface CholeskyCase {
  readonly name: string;
  readonly n: number;
  readonly a: readonly number[];
  readonly upstream: readonly number[];
  readonly expected: { readonly factor: readonly number[]; readonly gradA: readonly number[] };
}

export interface TriangularCase {
  readonly name: string;
  readonly n: number;
  readonly k: number;
  readonly lower: boolean;
  readonly transpose: boolean;
  readonly a: readonly number[];
  readonly b: readonly number[];
  readonly upstream: readonly number[];
  readonly expected: { readonly x: readonly number[]; readonly gradA: readonly number[]; readonly gradB: readonly number[] };
}

export interface EighCase {
  readonly name: string;
  readonly n: number;
  readonly a: readonly number[];
  readonly upstreamValues: readonly number[];
  readonly upstreamVectors: readonly number[];
  readonly expected: {
    readonly values: readonly number[];
    readonly vectors: readonly number[];
    readonly gradOfValues: readonly number[];
    readonly gradOfVectors: readonly number[];
  };
}

export interface NystromCase {
  readonly name: string;
  readonly kernel: "rbf" | "laplacian" | "polynomial";
  readonly options: { readonly normalize: boolean; readonly gamma?: number; readonly degree?: number; readonly coef0?: number };
  readonly n: number;
  readonly m: number;
  readonly d: number;
  readonly x: readonly number[];
  readonly landmarks: readonly number[];
  readonly expected: { readonly products: readonly number[] };
}

export interface Fixtures {
  readonly preference: Fixture<PreferenceCase> & Batches<PreferenceBatch>;
  readonly token_log_probs: Fixture<TokenLogProbsCase>;
  readonly linear_token_log_probs: Fixture<LinearTokenLogProbsCase> & {
    readonly shapes: Readonly<Record<string, LinearShape>>;
  };
  readonly pair_kernel: Fixture<PairKernelCase> & { readonly kernels: readonly KernelFamilyCase[]; readonly pairwise: readonly PairwiseCase[] };
  readonly sequence: Fixture<SequenceCase> & Batches<SequenceBatch>;
  readonly adamw: Fixture<AdamWCase>;
  readonly covariance: Fixture<CovarianceCase> & { readonly noiseScales: readonly NoiseScaleCase[] };
  readonly linear_algebra: Fixture<CholeskyCase> & { readonly triangular: readonly TriangularCase[]; readonly eigh: readonly EighCase[] };
  readonly nystrom: Fixture<NystromCase>;
  readonly random_features: Fixture<RandomFeaturesCase>;
}

export function loadFixture<Name extends keyof Fixtures>(name: Name): Fixtures[Name] {
  const text = readFileSync(new URL(`../../fixtures/${name}.json`, import.meta.url), "utf8");
  const infinite = (_: string, value: unknown): unknown => (value === "-inf" ? -Infinity : value);
  return JSON.parse(text, infinite) as Fixtures[Name];
}

/** The entry that a case names; an error if there is none. */
export function named<T>(entries: Readonly<Record<string, T>>, name: string): T {
  const entry = entries[name];
  if (entry === undefined) throw new RangeError(`the fixture has no entry "${name}"`);
  return entry;
}
