import { OutOfRangeError, ShapeError } from "./errors.js";
import { describe, Frame } from "./native/frame.js";
import { operation, type Steps } from "./native/operation.js";
import { matrixShape } from "./native/shared-arguments.js";
import { asTensor, checkUsable, inShape, ofTensor, type Tensor, type VectorInput } from "./tensor.js";

export interface CholeskyArgs {
  /** [D, D] f32 f64, symmetric: the lower triangle is read. */
  a: Tensor;
  /**
   * Where a has no factor, jitter·mean(|diagonal|) is added to its diagonal, then ten times, then a hundred times as much. Default 1e-6; 0: nothing is.
   */
  jitter?: number;
}

export interface CholeskyResult {
  /** [D, D], dtype of a: lower triangular L, a + jitter·I = L·Lᵀ. */
  factor: Tensor;
  /** What was added to each element of the diagonal; 0 where a has a factor. */
  jitter: number;
}

export interface CholeskyOut {
  out?: { factor?: Tensor };
}

export function* choleskySteps({ a, jitter = 1e-6 }: CholeskyArgs, { out = {} }: CholeskyOut): Steps<CholeskyResult> {
  const shape = matrixShape("a", a);
  const frame = new Frame("cholesky");
  frame.input("a", a).number("jitter", jitter);
  const factor = frame.result("out.factor", a.dtype, shape, out.factor, a);
  const used = frame.result("jitter", "f64", [1]);
  yield frame;
  return { factor, jitter: used.data[0] ?? 0 };
}

const choleskyFaces = operation(choleskySteps);
/**
 * The Cholesky factor L of a symmetric positive definite matrix, a = L·Lᵀ. Arithmetic in f64.
 * @throws ShapeError, DTypeError, NonFiniteError; NotPsdError when the third jitter does not help either.
 */
export const cholesky = choleskyFaces.async;
/** cholesky on this thread. */
export const choleskySync = choleskyFaces.sync;

export interface CholeskyVjpArgs {
  /** [D, D]: as cholesky returned it. */
  factor: Tensor;
  /** [D, D], dtype of factor: gradient of the loss in the factor; its lower triangle counts. */
  upstream: Tensor;
}

/** A gradient in a matrix. */
export interface MatrixGradient {
  /** [D, D], dtype of the inputs, symmetric. */
  a: Tensor;
}

export interface MatrixGradientOut {
  out?: { a?: Tensor };
}

function* choleskyVjpSteps({ factor, upstream }: CholeskyVjpArgs, { out = {} }: MatrixGradientOut): Steps<MatrixGradient> {
  const shape = matrixShape("factor", factor);
  const frame = new Frame("choleskyVjp");
  frame.input("factor", factor).input("upstream", upstream);
  const a = frame.result("out.a", factor.dtype, shape, out.a, factor);
  yield frame;
  return { a };
}

const choleskyVjpFaces = operation(choleskyVjpSteps);
/**
 * The pull-back of cholesky, symmetric (Murray 2016, arXiv 1602.07527): the change of the loss is Σ_ij gradient_ij·da_ij for a symmetric change da.
 * @throws ShapeError, DTypeError, NonFiniteError; OutOfRangeError for a zero on the diagonal of the factor, or a gradient that overflows.
 */
export const choleskyVjp = choleskyVjpFaces.async;
/** choleskyVjp on this thread. */
export const choleskyVjpSync = choleskyVjpFaces.sync;

/** Which system a triangular matrix stands for. */
export interface TriangularOptions {
  /** The lower triangle is read (default), else the upper one. */
  lower?: boolean;
  /** aᵀ·x = b instead. Default false. */
  transpose?: boolean;
}

export interface SolveTriangularArgs extends TriangularOptions {
  /** [D, D] f32 f64. */
  a: Tensor;
  /** [D, K], or [D]; dtype of a. */
  b: VectorInput;
}

export interface SolveTriangularOut {
  out?: { x?: Tensor };
}

/** A vector as a matrix of one column. */
function columns(name: string, tensor: Tensor): Tensor {
  checkUsable(name, tensor);
  if (tensor.shape.length > 2) throw new ShapeError(`${name}: expected a matrix or a vector, got shape [${tensor.shape.join(", ")}]`);
  return tensor.shape.length === 1 ? tensor.reshape([tensor.size, 1]) : tensor;
}

/** The same of an argument that must have as many axes as `like`. */
function columnsLike(name: string, tensor: Tensor, like: Tensor): Tensor {
  if (tensor.shape.length === like.shape.length) return columns(name, tensor);
  throw new ShapeError(`${name}: expected shape [${like.shape.join(", ")}], got [${tensor.shape.join(", ")}]`);
}

function writeTriangularOptions(frame: Frame, { lower = true, transpose = false }: TriangularOptions): void {
  for (const [name, value] of Object.entries({ lower, transpose })) {
    if (typeof value !== "boolean") throw new OutOfRangeError(`${name}: expected true or false, got ${describe(value)}`);
    frame.code(value);
  }
}

export function* solveTriangularSteps({ a, b, ...options }: SolveTriangularArgs, { out = {} }: SolveTriangularOut): Steps<Tensor> {
  matrixShape("a", a);
  const given = asTensor("b", b);
  const right = columns("b", given);
  const frame = new Frame("solveTriangular");
  frame.input("a", a).input("b", right);
  writeTriangularOptions(frame, options);
  const x = frame.result("out.x", a.dtype, right.shape, out.x && columnsLike("out.x", ofTensor("out.x", out.x), given), right);
  yield frame;
  return out.x ?? inShape(x, given.shape);
}

const solveTriangularFaces = operation(solveTriangularSteps);
/**
 * x of a·x = b, or aᵀ·x = b, with a triangular. Shape of b. Arithmetic in f64.
 * @throws ShapeError, DTypeError, NonFiniteError; OutOfRangeError for a zero on the diagonal, or a solution that overflows.
 */
export const solveTriangular = solveTriangularFaces.async;
/** solveTriangular on this thread. */
export const solveTriangularSync = solveTriangularFaces.sync;

export interface SolveTriangularVjpArgs extends TriangularOptions {
  /** [D, D]. */
  a: Tensor;
  /** [D, K], or [D]: the solution, as solveTriangular returned it. */
  x: VectorInput;
  /** Shape and dtype of x: gradient of the loss in the solution. */
  upstream: VectorInput;
}

export interface TriangularGradients {
  /** [D, D]: of the triangle that is read, the rest 0. */
  a: Tensor;
  /** Shape of b. */
  b: Tensor;
}

export interface SolveTriangularVjpOut {
  out?: Partial<TriangularGradients>;
}

function* solveTriangularVjpSteps(
  { a, x, upstream, ...options }: SolveTriangularVjpArgs,
  { out = {} }: SolveTriangularVjpOut,
): Steps<TriangularGradients> {
  const shape = matrixShape("a", a);
  const given = asTensor("x", x);
  const solution = columns("x", given);
  const frame = new Frame("solveTriangularVjp");
  frame
    .input("a", a)
    .input("x", solution)
    .input("upstream", columnsLike("upstream", asTensor("upstream", upstream), given));
  writeTriangularOptions(frame, options);
  const gradA = frame.result("out.a", a.dtype, shape, out.a, a);
  const gradB = frame.result("out.b", a.dtype, solution.shape, out.b && columnsLike("out.b", ofTensor("out.b", out.b), given), solution);
  yield frame;
  return { a: gradA, b: out.b ?? inShape(gradB, given.shape) };
}

const solveTriangularVjpFaces = operation(solveTriangularVjpSteps);
/**
 * The pull-back of solveTriangular.
 * @throws ShapeError, DTypeError, NonFiniteError; OutOfRangeError for a zero on the diagonal, or a gradient that overflows.
 */
export const solveTriangularVjp = solveTriangularVjpFaces.async;
/** solveTriangularVjp on this thread. */
export const solveTriangularVjpSync = solveTriangularVjpFaces.sync;

export interface EighArgs {
  /** [D, D] f32 f64, symmetric: the lower triangle is read. */
  a: Tensor;
}

export interface Eigh {
  /** [D], ascending. */
  values: Tensor;
  /** [D, D]: the columns are the eigenvectors, the component of largest magnitude of each positive. */
  vectors: Tensor;
}

export interface EighOut {
  out?: Partial<Eigh>;
}

export function* eighSteps({ a }: EighArgs, { out = {} }: EighOut): Steps<Eigh> {
  const shape = matrixShape("a", a);
  const frame = new Frame("eigh");
  frame.input("a", a);
  const values = frame.result("out.values", a.dtype, [shape[0]], out.values, a);
  const vectors = frame.result("out.vectors", a.dtype, shape, out.vectors, a);
  yield frame;
  return { values, vectors };
}

const eighFaces = operation(eighSteps);
/**
 * Eigenvalues and eigenvectors of a symmetric matrix: a = V·diag(values)·Vᵀ. Arithmetic in f64.
 * @throws ShapeError, DTypeError, NonFiniteError; OutOfRangeError for eigenvalues that overflow.
 */
export const eigh = eighFaces.async;
/** eigh on this thread. */
export const eighSync = eighFaces.sync;

export interface EighVjpArgs extends Eigh {
  /** Gradient of the loss in values, vectors, or both. */
  upstream: Partial<Eigh>;
}

function* eighVjpSteps({ values, vectors, upstream }: EighVjpArgs, { out = {} }: MatrixGradientOut): Steps<MatrixGradient> {
  if (typeof upstream !== "object" || upstream === null) throw new ShapeError("upstream: is missing");
  const shape = matrixShape("vectors", vectors);
  const frame = new Frame("eighVjp");
  frame.input("values", values).input("vectors", vectors);
  frame.optionalInput("upstream.values", upstream.values).optionalInput("upstream.vectors", upstream.vectors);
  const a = frame.result("out.a", vectors.dtype, shape, out.a, vectors);
  yield frame;
  return { a };
}

const eighVjpFaces = operation(eighVjpSteps);
/**
 * The pull-back of eigh, symmetric: V·(diag(values̄) + F∘(VᵀV̄))·Vᵀ, F_ij = 1/(λ_j − λ_i).
 * @throws ShapeError, DTypeError, NonFiniteError; OutOfRangeError when the upstream sees the vectors of eigenvalues that are equal to rounding turn, which
 * have no gradient, or when the gradient overflows. Values always have one.
 */
export const eighVjp = eighVjpFaces.async;
/** eighVjp on this thread. */
export const eighVjpSync = eighVjpFaces.sync;
