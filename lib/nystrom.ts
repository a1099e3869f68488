import { copyToOut } from "./device.js";
import { DTypeError, OutOfRangeError, ShapeError } from "./errors.js";
import { gramReduceSteps, gramReduceVjpSteps, gramSteps } from "./gram.js";
import { checkFitted, type Kernel } from "./kernels/kernel.js";
import { LANDMARK_METHODS, type LandmarkMethod } from "./kernels/kernel-fit.js";
import { float64Rows, spacedRows, unitRows } from "./kernels/rows.js";
import { eighSteps } from "./linear-algebra.js";
import { describe, Frame } from "./native/frame.js";
import { type AsyncOptions, compound, type Steps } from "./native/operation.js";
import { matrixShape } from "./native/shared-arguments.js";
import { checkOut, checkUsable, type DType, Tensor } from "./tensor.js";

export interface NystromArgs {
  /** [N, D] f32 f64 f16 bf16: rows to take landmarks from. */
  x: Tensor;
  kernel: Kernel;
  /** How many rows become landmarks. */
  landmarks: number;
  /**
   * "uniform" (default); "kmeans++": by squared distance from those chosen before, so that they spread; "leverage": by ridge-leverage scores, from at
   * most 1024 evenly spaced rows.
   */
  method?: LandmarkMethod;
  /** How many features to keep at most, those of the largest eigenvalues. Default: all that are not 0 to rounding. */
  rank?: number;
  /** Default 0. */
  seed?: number;
}

export interface FeaturesOut {
  out?: { features?: Tensor };
}

export interface FeaturesVjpArgs {
  /** [N, D] f32 f64. */
  x: Tensor;
  /** [N, rank] f32 f64: gradient of the loss in the features. */
  upstream: Tensor;
}

export interface FeaturesVjpOut {
  out?: { x?: Tensor };
}

/** Leverage scores cost the cube of their number. */
const MOST_SCORED_ROWS = 1024;

/** Features φ(x) [rank] of a kernel, φ(x)·φ(y) ≈ k(x, y), exact at the landmarks: φ(x) = projection·k(landmarks, x). */
export class NystromFeatures {
  readonly kernel: Kernel;
  /** [M, D] f64, of length 1 where the kernel normalises. */
  readonly landmarks: Tensor<"f64">;
  /** [rank] f64: the largest eigenvalues μ of the landmarks' Gram matrix U·diag(μ)·Uᵀ, descending. */
  readonly eigenvalues: Tensor<"f64">;
  /** [rank, M] f64: diag(μ)^(−½)·Uᵀ. */
  readonly projection: Tensor<"f64">;
  readonly #transform = compound((args: { x: Tensor }, options: FeaturesOut) => this.#features(args.x, options));
  readonly #transformVjp = compound((args: FeaturesVjpArgs, options: FeaturesVjpOut) => this.#pullBack(args, options));

  constructor(parts: { kernel: Kernel; landmarks: Tensor<"f64">; eigenvalues: Tensor<"f64">; projection: Tensor<"f64"> }) {
    this.kernel = parts.kernel;
    this.landmarks = parts.landmarks;
    this.eigenvalues = parts.eigenvalues;
    this.projection = parts.projection;
  }

  /** How many features a row has. */
  get width(): number {
    return this.eigenvalues.size;
  }

  /** [N, rank] features of rows [N, D] f32 f64; dtype of x. Arithmetic in f64. */
  transform(x: Tensor, options: FeaturesOut & AsyncOptions = {}): Promise<Tensor> {
    return this.#transform.async({ x }, options);
  }

  /** transform on this thread. */
  transformSync(x: Tensor, options: FeaturesOut = {}): Tensor {
    return this.#transform.sync({ x }, options);
  }

  /** The gradient in x. The features' own parts count as constants. */
  transformVjp(args: FeaturesVjpArgs, options: FeaturesVjpOut & AsyncOptions = {}): Promise<{ x: Tensor }> {
    return this.#transformVjp.async(args, options);
  }

  /** transformVjp on this thread. */
  transformVjpSync(args: FeaturesVjpArgs, options: FeaturesVjpOut = {}): { x: Tensor } {
    return this.#transformVjp.sync(args, options);
  }

  *#features(x: Tensor, { out = {} }: FeaturesOut): Steps<Tensor> {
    const rows = this.#rows(x);
    checkOut("out.features", out.features, x.dtype, [rows.shape[0] ?? 0, this.width]);
    const features = yield* gramReduceSteps({ x: rows, y: this.landmarks, kernel: this.kernel, vectors: this.#weights() }, {});
    return yield* copyToOut(out.features, asDType(features, x.dtype));
  }

  *#pullBack({ x, upstream }: FeaturesVjpArgs, { out = {} }: FeaturesVjpOut): Steps<{ x: Tensor }> {
    const rows = this.#rows(x);
    checkOut("out.x", out.x, x.dtype, x.shape);
    const args = { x: rows, y: this.landmarks, kernel: this.kernel, vectors: this.#weights(), upstream };
    const grads = yield* gramReduceVjpSteps(args, {});
    return { x: yield* copyToOut(out.x, asDType(grads.x, x.dtype)) };
  }

  /** The rows in f64: where eigenvalues are small the projection magnifies errors of the kernel, in f32 to the size of the features themselves. */
  #rows(x: Tensor): Tensor<"f64"> {
    const [count, width] = matrixShape("x", x);
    checkUsable("x", x);
    const data = x.readSync();
    if (x.dtype !== "f32" && x.dtype !== "f64") throw new DTypeError(`x: expected f32 or f64, got ${x.dtype}`);
    if (width !== this.landmarks.shape[1]) throw new ShapeError(`x: expected rows of ${this.landmarks.shape[1]} numbers, got ${width}`);
    return new Tensor(x.dtype === "f64" ? (data as Float64Array) : new Float64Array(data), [count, width], "f64");
  }

  /** [M, rank]: the projection, transposed. */
  #weights(): Tensor<"f64"> {
    const [rank = 0, count = 0] = this.projection.shape;
    const weights = new Float64Array(rank * count);
    this.projection.data.forEach((value, at) => {
      weights[(at % count) * rank + Math.floor(at / count)] = value;
    });
    return new Tensor(weights, [count, rank], "f64");
  }
}

/** The f64 numbers in the dtype of a result. */
function asDType(values: Tensor, dtype: DType): Tensor {
  return dtype === "f64" ? values : new Tensor(new Float32Array(values.data), values.shape, "f32");
}

function checkCount(name: string, value: number, most: number): number {
  if (Number.isSafeInteger(value) && value >= 1 && value <= most) return value;
  throw new OutOfRangeError(`${name}: expected a whole number from 1 to ${most}, got ${describe(value)}`);
}

export function* nystromSteps(args: NystromArgs, _: { out?: never }): Steps<NystromFeatures> {
  const { x, kernel, method = "uniform", seed = 0 } = args;
  checkFitted(kernel);
  const [rows] = matrixShape("x", x);
  if (!LANDMARK_METHODS.includes(method))
    throw new OutOfRangeError(`method: unknown name ${describe(method)}; known are ${LANDMARK_METHODS.join(", ")}`);
  const candidates = spacedRows(rows, method === "leverage" ? MOST_SCORED_ROWS : rows);
  const count = checkCount("landmarks", args.landmarks, candidates.length);
  const rank = args.rank === undefined ? count : checkCount("rank", args.rank, count);
  const all = float64Rows("x", x, candidates);
  const seen = kernel.normalize ? unitRows("x", all, candidates) : all;
  const scores = method === "leverage" ? yield* leverageScores(seen, kernel, count) : undefined;
  const indices = yield* landmarkIndices(seen, count, { method, seed, scores });
  const landmarks = float64Rows("x", seen, indices);
  return new NystromFeatures({ kernel, landmarks, ...(yield* eigenfeatures(landmarks, kernel, rank)) });
}

function* landmarkIndices(
  x: Tensor<"f64">,
  count: number,
  { method, seed, scores }: { method: LandmarkMethod; seed: number; scores: Float64Array | undefined },
): Steps<Int32Array> {
  const frame = new Frame("landmarks");
  frame.input("x", x).optionalInput("scores", scores).code(LANDMARK_METHODS.indexOf(method)).integer("seed", seed);
  const indices = frame.result("landmarks", "i32", [count]);
  yield frame;
  return indices.data;
}

/** diag(K(K + λI)⁻¹), λ = Σ_(k > count) μ_k/count (Musco & Musco 2017, arXiv 1605.07583). */
function* leverageScores(x: Tensor<"f64">, kernel: Kernel, count: number): Steps<Float64Array> {
  const [rows = 0] = x.shape;
  const { values, vectors } = yield* eighSteps({ a: yield* gramSteps({ x, kernel }, {}) }, {});
  const eigenvalues = Float64Array.from(values.data, (value) => Math.max(0, value));
  const largest = eigenvalues.at(-1) ?? 0;
  const tail = eigenvalues.subarray(0, rows - count).reduce((sum, value) => sum + value, 0);
  const ridge = Math.max(tail / count, rows * Number.EPSILON * largest);
  const scores = new Float64Array(rows);
  for (let i = 0; i < rows; i++) {
    let score = 0;
    for (let k = 0; k < rows; k++) {
      const value = eigenvalues[k] ?? 0;
      score += ((vectors.data[i * rows + k] ?? 0) ** 2 * value) / (value + ridge);
    }
    scores[i] = score;
  }
  return scores;
}

/**
 * The features' parts from the eigenvectors of the landmarks' Gram matrix. Eigenvalues that are 0 to rounding are left out; of a kernel that is not positive
 * semi-definite also those below the most negative one, which are as far from meaning anything.
 */
function* eigenfeatures(landmarks: Tensor<"f64">, kernel: Kernel, rank: number): Steps<Pick<NystromFeatures, "eigenvalues" | "projection">> {
  const [count = 0] = landmarks.shape;
  const { values, vectors } = yield* eighSteps({ a: yield* gramSteps({ x: landmarks, kernel, accuracy: "exact" }, {}) }, {});
  const least = Math.max(count * Number.EPSILON * (values.data[count - 1] ?? 0), -(values.data[0] ?? 0));
  const kept = Float64Array.from(values.data)
    .reverse()
    .filter((value) => value > least)
    .slice(0, rank);
  if (kept.length === 0) throw new OutOfRangeError("kernel: its matrix of the landmarks has no eigenvalue above 0");
  const projection = new Float64Array(kept.length * count);
  for (let k = 0; k < kept.length; k++) {
    for (let j = 0; j < count; j++) projection[k * count + j] = (vectors.data[j * count + count - 1 - k] ?? 0) / Math.sqrt(kept[k] ?? 1);
  }
  return {
    eigenvalues: new Tensor(kept, [kept.length], "f64"),
    projection: new Tensor(projection, [kept.length, count], "f64"),
  };
}

const both = compound(nystromSteps);

/**
 * Nyström features of a kernel (Williams & Seeger 2001): φ(x) = diag(μ)^(−½)·Uᵀ·k(landmarks, x), U·diag(μ)·Uᵀ the landmarks' Gram matrix. As scikit-learn's
 * Nystroem, but for a rotation.
 * @throws ShapeError, DTypeError, NonFiniteError; OutOfRangeError for more landmarks than rows, or a zero row when the kernel normalises.
 */
export const nystrom = both.async;
/** nystrom on this thread. */
export const nystromSync = both.sync;
