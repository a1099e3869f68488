import { OutOfRangeError } from "./errors.js";
import { checkFitted, type Kernel } from "./kernels/kernel.js";
import { kernelGradientResults, writeKernel } from "./kernels/write-kernel.js";
import { describe, Frame } from "./native/frame.js";
import { operation, type Steps } from "./native/operation.js";
import { matrixShape } from "./native/shared-arguments.js";
import { asTensor, checkOut, checkShape, inShape, resultDType, type Tensor, type VectorInput } from "./tensor.js";

/** How distances are computed; see gram. */
export type GramAccuracy = "gemm" | "exact";

/** Two sets of rows and the kernel between them. */
export interface GramRows {
  /** [N, D] f32 f64 f16 bf16. */
  x: Tensor;
  /** [M, D], dtype of x. Left out: x again, and the matrix is symmetric. */
  y?: Tensor;
  kernel: Kernel;
  /**
   * "gemm" (default): squared distances from norms and products. "exact": from differences, several times slower, with all digits of the distances of
   * near-duplicate rows.
   */
  accuracy?: GramAccuracy;
}

export interface GramGradients {
  /** [N, D], dtype of x. */
  x: Tensor;
  /** [M, D]. Present when y was given. */
  y?: Tensor;
  /** By parameter name, f64. */
  params: Record<string, Tensor<"f64">>;
}

export interface GramVjpArgs extends GramRows {
  /** [N, M] f32 f64: gradient of the loss in each element of the matrix. */
  upstream: Tensor;
  /**
   * The matrix itself, as gram returned it for the same rows and kernel. rbf, mahalanobis and matern of ν = ∞ alone take their distances from it instead of
   * computing them again, which spares a quarter of the work; other kernels do not look at it.
   */
  gram?: Tensor;
}

export interface GramReduceArgs extends GramRows {
  /** [M] or [M, C] f32 f64. */
  vectors: VectorInput;
}

export interface GramReduceVjpArgs extends GramReduceArgs {
  /** [N] or [N, C] f32 f64, as gramReduce's result: gradient of the loss in it. */
  upstream: VectorInput;
}

export interface GramReduceGradients extends GramGradients {
  /** As vectors; f64 for f64 rows, else f32. */
  vectors: Tensor;
}

export interface GramOut {
  out?: { gram?: Tensor };
}

export interface GramVjpOut {
  out?: { x?: Tensor; y?: Tensor };
}

export interface GramReduceOut {
  out?: { sums?: Tensor };
}

export interface GramReduceVjpOut {
  out?: { x?: Tensor; y?: Tensor; vectors?: Tensor };
}

const ACCURACIES = ["gemm", "exact"] as const;

/** Writes the rows and the kernel; returns [N, M]. */
export function writeGramRows(frame: Frame, { x, y, kernel, accuracy = "gemm" }: GramRows): [number, number] {
  checkFitted(kernel);
  const [rows] = matrixShape("x", x);
  const [columns] = y === undefined ? [rows] : matrixShape("y", y);
  if (!ACCURACIES.includes(accuracy)) throw new OutOfRangeError(`accuracy: expected "gemm" or "exact", got ${describe(accuracy)}`);
  frame.input("x", x).optionalInput("y", y);
  writeKernel(frame, kernel);
  frame.code(accuracy === "exact");
  return [rows, columns];
}

/** Declares the results of a pull-back to rows and kernel. What it returns reads them. */
export function gramGradientResults(frame: Frame, { x, y, kernel }: GramRows, out: GramVjpOut["out"] = {}): () => GramGradients {
  const gradX = frame.result("out.x", x.dtype, x.shape, out.x, x);
  const gradY = y && frame.result("out.y", x.dtype, y.shape, out.y, y);
  if (gradY === undefined) frame.absent();
  const params = kernelGradientResults(frame, kernel);
  return () => ({ x: gradX, ...(gradY && { y: gradY }), params: params() });
}

export function* gramSteps(args: GramRows, { out }: GramOut): Steps<Tensor> {
  const frame = new Frame("gram");
  const shape = writeGramRows(frame, args);
  const gram = frame.result("out.gram", resultDType(args.x.dtype), shape, out?.gram, args.x);
  yield frame;
  return gram;
}

export function* gramVjpSteps(args: GramVjpArgs, { out }: GramVjpOut): Steps<GramGradients> {
  const frame = new Frame("gramVjp");
  writeGramRows(frame, args);
  frame.input("upstream", args.upstream).optionalInput("gram", args.gram);
  const grads = gramGradientResults(frame, args, out);
  yield frame;
  return grads();
}

/** The vectors as columns [·, C]. */
function columnsOf(name: string, value: VectorInput): Tensor {
  const vectors = asTensor(name, value);
  return vectors.shape.length === 1 ? vectors.reshape([vectors.size, 1]) : vectors;
}

export function* gramReduceSteps(args: GramReduceArgs, { out }: GramReduceOut): Steps<Tensor> {
  const given = asTensor("vectors", args.vectors);
  const frame = new Frame("gramReduce");
  const [rows] = writeGramRows(frame, args);
  const columns = columnsOf("vectors", given);
  frame.input("vectors", columns);
  const shape = given.shape.length === 1 ? [rows] : [rows, columns.shape[1] ?? 1];
  const target = out?.sums;
  if (target !== undefined) checkOut("out.sums", target, resultDType(args.x.dtype), shape);
  const sums = frame.result("out.sums", resultDType(args.x.dtype), [rows, columns.shape[1] ?? 1], target && columnsOf("out.sums", target), columns);
  yield frame;
  return target ?? inShape(sums, shape);
}

export function* gramReduceVjpSteps(args: GramReduceVjpArgs, { out }: GramReduceVjpOut): Steps<GramReduceGradients> {
  const given = asTensor("vectors", args.vectors);
  const columns = columnsOf("vectors", given);
  const frame = new Frame("gramReduceVjp");
  const [rows] = writeGramRows(frame, args);
  const upstream = asTensor("upstream", args.upstream);
  checkShape("upstream", upstream, given.shape.length === 1 ? [rows] : [rows, columns.shape[1] ?? 1]);
  frame.input("vectors", columns).input("upstream", columnsOf("upstream", upstream));
  const grads = gramGradientResults(frame, args, out);
  const target = out?.vectors;
  if (target !== undefined) checkOut("out.vectors", target, resultDType(args.x.dtype), given.shape);
  const ofVectors = frame.result("out.vectors", resultDType(args.x.dtype), columns.shape, target && columnsOf("out.vectors", target), columns);
  yield frame;
  return { ...grads(), vectors: target ?? inShape(ofVectors, given.shape) };
}

const forward = operation(gramSteps);

/**
 * The Gram matrix [N, M] of k(x_i, y_j), f64 for f64 rows, else f32. K itself, not log K: of a single kernel e^(log k), of a mixture Σ w_m·k_m. Of x alone it
 * is symmetric to the last bit, half of it computed, and its diagonal exact.
 *
 * `accuracy: "gemm"` takes squared distances from norms and one matrix product, r² = ‖x‖² + ‖y‖² − 2⟨x, y⟩ ≥ 0, after the mean of all rows has been taken
 * off them. In f32 that leaves an error of about 1e-7·(‖x‖² + ‖y‖²), lengths from the mean, in r²: nothing to a smooth kernel wider than that, but a Matérn kernel of
 * ν = ½, which sees √r², of rows closer than 1e-3 of their length keeps only 3 digits. `"exact"` sums squared differences instead and keeps them all. laplacian always does.
 * @throws ShapeError, DTypeError; NonFiniteError; OutOfRangeError for a zero row when the kernel normalises, or rows whose distances overflow.
 */
export const gram = forward.async;
/** gram on this thread. */
export const gramSync = forward.sync;

const pullBack = operation(gramVjpSteps);

/**
 * Pull-back of gram: gradients in x, y (where given), and every parameter of the kernel, through normalisation. Weights are made a block at a time and never
 * held as [N, M].
 * @throws as gram; NonFiniteError for an upstream that is not finite.
 */
export const gramVjp = pullBack.async;
/** gramVjp on this thread. */
export const gramVjpSync = pullBack.sync;

const reduce = operation(gramReduceSteps);

/**
 * K·vectors without K: [N] or [N, C], f64 for f64 rows, else f32. Working memory is a few copies of the rows and a tile per thread.
 * @throws as gram; NonFiniteError for vectors that are not finite.
 */
export const gramReduce = reduce.async;
/** gramReduce on this thread. */
export const gramReduceSync = reduce.sync;

const reducePullBack = operation(gramReduceVjpSteps);

/**
 * Pull-back of gramReduce: gradients in x, y (where given), the vectors, and every parameter of the kernel.
 * @throws as gramReduce.
 */
export const gramReduceVjp = reducePullBack.async;
/** gramReduceVjp on this thread. */
export const gramReduceVjpSync = reducePullBack.sync;
