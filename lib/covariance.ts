import { getRandomValues } from "node:crypto";
import { OutOfRangeError } from "./errors.js";
import { describe, Frame } from "./native/frame.js";
import { compound, operation, type Steps } from "./native/operation.js";
import { checkPositive, matrixShape } from "./native/shared-arguments.js";
import type { Tensor } from "./tensor.js";

const METHODS = ["sample", "ledoit_wolf", "oas", "private"] as const;
const NEIGHBOURS = ["add_or_remove", "replace"] as const;

export type CovarianceMethod = (typeof METHODS)[number];

/** Data sets that must not be told apart: with a row more or less, or with another row in one's place. */
export type Neighbours = (typeof NEIGHBOURS)[number];

export interface PrivacyOptions {
  /** ε > 0. */
  epsilon: number;
  /** 0 < δ < 1. */
  delta: number;
  /** C: longer rows are cut to this length. Choose it without looking at the data. */
  clip: number;
  /** Default "replace". */
  neighbours?: Neighbours;
  /** What the sum of squares is divided by. Default N, which "replace" takes to be known; needed with "add_or_remove", where N itself is private. */
  count?: number;
  /** Of the noise, for tests: whoever knows it can take the noise off. Default: from the system's cryptographic source. */
  seed?: number;
}

export interface CovarianceArgs {
  /** [N, D] f32 f64 f16 bf16. */
  x: Tensor;
  /** Default "sample". */
  method?: CovarianceMethod;
  /** Rows are not centred first. Default false; "private" never centres. */
  assumeCentered?: boolean;
  /** Of the method "private". */
  privacy?: PrivacyOptions;
}

/** What a private estimate cost. */
export interface PrivacySpent {
  epsilon: number;
  delta: number;
  /** Of Σ x·xᵀ, in the Frobenius norm: C² when a row is added or removed, √2·C² when one is replaced. */
  sensitivity: number;
  /** σ of the noise on the diagonal of Σ x·xᵀ; beside it σ/√2. */
  noiseScale: number;
  neighbours: Neighbours;
}

export interface CovarianceResult {
  /** [D, D] f64, positive semidefinite to rounding. */
  covariance: Tensor<"f64">;
  /** [D] f64: of the rows, 0 where they were not centred. */
  mean: Tensor<"f64">;
  /** s of (1 − s)·S + s·tr(S)/D·I; 0 but for ledoit_wolf and oas. */
  shrinkage: number;
  /** Of the method "private". */
  spent?: PrivacySpent;
}

export interface CovarianceOut {
  out?: { covariance?: Tensor };
}

export interface GaussianNoiseScaleArgs {
  /** ε > 0. */
  epsilon: number;
  /** 0 < δ < 1. */
  delta: number;
  /** Largest distance of the results of neighbouring data sets, in the Euclidean (Frobenius) norm. */
  sensitivity: number;
}

function* noiseScaleSteps({ epsilon, delta, sensitivity }: GaussianNoiseScaleArgs, _: { out?: never }): Steps<number> {
  const frame = new Frame("gaussianNoiseScale");
  frame.number("epsilon", epsilon).number("delta", delta).number("sensitivity", sensitivity);
  const noiseScale = frame.result("noiseScale", "f64", [1]);
  yield frame;
  return noiseScale.data[0] ?? Number.NaN;
}

const noiseScaleFaces = operation(noiseScaleSteps);
/**
 * The smallest standard deviation of Gaussian noise that makes a result of this sensitivity (ε, δ) private, for any ε > 0: the analytic Gaussian mechanism
 * (Balle & Wang 2018, arXiv 1805.06530).
 * @throws OutOfRangeError
 */
export const gaussianNoiseScale = noiseScaleFaces.async;
/** gaussianNoiseScale on this thread. */
export const gaussianNoiseScaleSync = noiseScaleFaces.sync;

function checkOneOf<T extends string>(name: string, value: T, known: readonly T[]): void {
  if (known.includes(value)) return;
  throw new OutOfRangeError(`${name}: unknown name ${describe(value)}; known are ${known.join(", ")}`);
}

/** A whole number of 53 bits that nobody can guess. */
function secretInteger(): number {
  const [low = 0, high = 0] = getRandomValues(new Uint32Array(2));
  return low + (high % 2 ** 21) * 2 ** 32;
}

/** How much noise, and which. */
interface Noise {
  clip: number;
  count: number;
  scale: number;
  seed: number;
  stream: number;
}

const NO_NOISE: Noise = { clip: 0, count: 0, scale: 0, seed: 0, stream: 0 };

function* privacySteps(rows: number, options: PrivacyOptions | undefined): Steps<{ noise: Noise; spent: PrivacySpent }> {
  if (options === undefined) throw new OutOfRangeError("privacy: missing: the method private needs epsilon, delta and clip");
  const { epsilon, delta, clip, seed, neighbours = "replace" } = options;
  checkOneOf("privacy.neighbours", neighbours, NEIGHBOURS);
  if (neighbours === "add_or_remove" && options.count === undefined)
    throw new OutOfRangeError(
      "privacy.count: missing: where rows may be added or removed their number is private, so what to divide by must be given",
    );
  const count = checkPositive("privacy.count", options.count ?? rows);
  const sensitivity = checkPositive("privacy.clip", clip) ** 2 * (neighbours === "replace" ? Math.SQRT2 : 1);
  const scale = yield* noiseScaleSteps({ epsilon, delta, sensitivity: checkPositive("privacy.clip, squared", sensitivity) }, {});
  const noise = { clip, count, scale, ...(seed === undefined ? { seed: secretInteger(), stream: secretInteger() } : { seed, stream: 0 }) };
  return { noise, spent: { epsilon, delta, sensitivity, noiseScale: scale, neighbours } };
}

export function* covarianceSteps(args: CovarianceArgs, { out = {} }: CovarianceOut): Steps<CovarianceResult> {
  const { x, assumeCentered = false, method = "sample" } = args;
  checkOneOf("method", method, METHODS);
  if (typeof assumeCentered !== "boolean") throw new OutOfRangeError(`assumeCentered: expected true or false, got ${describe(assumeCentered)}`);
  if (method !== "private" && args.privacy !== undefined) throw new OutOfRangeError(`privacy: the method ${method} is not private`);
  const [rows, width] = matrixShape("x", x);
  const { noise, spent } = method === "private" ? yield* privacySteps(rows, args.privacy) : { noise: NO_NOISE, spent: undefined };
  const frame = new Frame("covariance");
  frame.input("x", x).code(METHODS.indexOf(method)).code(assumeCentered);
  frame.number("clip", noise.clip).number("count", noise.count).number("noiseScale", noise.scale);
  frame.integer("seed", noise.seed).integer("stream", noise.stream);
  const covariance = frame.result("out.covariance", "f64", [width, width], out.covariance);
  const mean = frame.result("mean", "f64", [width]);
  const shrinkage = frame.result("shrinkage", "f64", [1]);
  yield frame;
  return { covariance, mean, shrinkage: shrinkage.data[0] ?? Number.NaN, ...(spent && { spent }) };
}

const faces = compound(covarianceSteps);

/**
 * The covariance of the columns of rows, arithmetic in f64. "sample": Σ (x − m)(x − m)ᵀ/N; "ledoit_wolf", "oas": (1 − s)·S + s·tr(S)/D·I with the shares of
 * Ledoit & Wolf (2004) and Chen et al. (2010), as scikit-learn's; "private": (Σ x·xᵀ + noise)/count of rows cut to length C, not centred, eigenvalues below
 * 0 set to 0, which is (ε, δ) differentially private by the analytic Gaussian mechanism in the idealisation of real numbers: in floating point the lowest
 * bits of noise can leak (Mironov 2012).
 * @throws ShapeError, DTypeError, NonFiniteError, OutOfRangeError
 */
export const covariance = faces.async;
/** covariance on this thread. */
export const covarianceSync = faces.sync;
