import { checkFitted, type Kernel } from "./kernels/kernel.js";
import { kernelGradientResults, treeOf, writeKernel } from "./kernels/write-kernel.js";
import { Frame } from "./native/frame.js";
import { compound, type Steps } from "./native/operation.js";
import { matrixShape } from "./native/shared-arguments.js";
import { asTensor, checkOut, checkShape, copyToOut, dataOf, resultDType, type Tensor, type VectorInput } from "./tensor.js";

export interface PairKernelArgs {
  /** [N, D] f32 f64 f16 bf16. */
  u: Tensor;
  /** [N, D], dtype of u. */
  v: Tensor;
  kernel: Kernel;
  /** [N] f32 f64: gradient of the loss in each log k. When given, gradients are returned. */
  upstream?: VectorInput;
}

export interface PairKernelGradients {
  /** [N, D], dtype of u. */
  u: Tensor;
  v: Tensor;
  /** By parameter name, f64. */
  params: Record<string, Tensor<"f64">>;
}

export interface PairKernelResult {
  /** [N], f64 for f64 inputs, else f32. */
  logK: Tensor;
  /** Present when an upstream was given. */
  grads?: PairKernelGradients;
  /** Present when the kernel is a mixture. */
  diagnostics?: MixtureDiagnostics;
}

export interface PairKernelOut {
  out?: { logK?: Tensor; u?: Tensor; v?: Tensor };
}

/** What a mixture made of the pairs. */
export interface MixtureDiagnostics {
  /** Each member's share of its group, by path ("local", "local/rbf", …). */
  weights: Record<string, number>;
  /** Entropy of each group's shares by path, nats; the root's is "". Its exponential is the effective number of members. */
  entropies: Record<string, number>;
  /** [N, members]: posterior share w_m·k_m/K of each kernel, in the order of `kernels`. */
  responsibilities: Tensor;
  /** Paths of the kernels. */
  kernels: string[];
}

function writeInputs(frame: Frame, u: Tensor, sides: readonly Tensor[], kernel: Kernel): void {
  frame.input("u", u).code(sides.length);
  for (const v of sides) frame.input("v", v);
  writeKernel(frame, kernel);
}

/** log k of u with each side: [sides, N]; of mixtures also what they were made of, responsibilities [sides, N, members]. */
export function* logKernelSteps(u: Tensor, sides: readonly Tensor[], kernel: Kernel): Steps<{ logK: Tensor; diagnostics?: MixtureDiagnostics }> {
  const [rows] = matrixShape("u", u);
  const frame = new Frame("pairKernel");
  writeInputs(frame, u, sides, kernel);
  const dtype = resultDType(u.dtype);
  const logK = frame.result("out.logK", dtype, [sides.length, rows]);
  const { groups, members } = treeOf(kernel);
  if (groups.length === 0) {
    frame.absent().absent().absent();
    yield frame;
    return { logK };
  }
  const shares = frame.result("out.shares", "f64", [groups.length + members.length]).data;
  const entropies = frame.result("out.entropies", "f64", [groups.length]).data;
  const responsibilities = frame.result("out.responsibilities", dtype, [sides.length, rows, members.length]);
  yield frame;
  const byPath = (nodes: readonly { path: string }[], values: Float64Array) =>
    Object.fromEntries(nodes.map(({ path }, node) => [path, values[node] ?? 0]));
  const { "": _, ...weights } = byPath([...groups, ...members], shares);
  const diagnostics = { weights, entropies: byPath(groups, entropies), responsibilities, kernels: members.map(({ path }) => path) };
  return { logK, diagnostics };
}

/** Gradients to come back from. */
interface KernelUpstream {
  /** [sides, N]. */
  logK: Tensor;
  /** Gradient in the entropy of every group. */
  entropy?: number;
}

/** Its pull-back. */
export function* logKernelVjpSteps(
  u: Tensor,
  sides: readonly Tensor[],
  kernel: Kernel,
  upstream: KernelUpstream,
  out: { u?: Tensor | undefined; sides?: readonly (Tensor | undefined)[] } = {},
): Steps<{ u: Tensor; sides: Tensor[]; params: Record<string, Tensor<"f64">> }> {
  const shape = matrixShape("u", u);
  const frame = new Frame("pairKernelVjp");
  writeInputs(frame, u, sides, kernel);
  frame.input("upstream", upstream.logK).number("entropyUpstream", upstream.entropy ?? 0);
  const gradU = frame.result("out.u", u.dtype, shape, out.u);
  const gradSides = sides.map((_, side) => frame.result("out.v", u.dtype, shape, out.sides?.[side]));
  const params = kernelGradientResults(frame, kernel);
  yield frame;
  return { u: gradU, sides: gradSides, params: params() };
}

export function* pairKernelSteps(args: PairKernelArgs, { out = {} }: PairKernelOut): Steps<PairKernelResult> {
  checkFitted(args.kernel);
  const sides = [args.v];
  const [rows] = matrixShape("u", args.u);
  matrixShape("v", args.v);
  checkOut("out.logK", out.logK, resultDType(args.u.dtype), [rows]);
  const { logK: sided, diagnostics } = yield* logKernelSteps(args.u, sides, args.kernel);
  const logK = sided.reshape([rows]);
  // out.logK is written last: should the pull-back fail, it stays as it was.
  const grads = args.upstream === undefined ? {} : { grads: yield* gradientSteps(args, args.upstream, rows, out) };
  return { logK: copyToOut(out.logK, logK), ...grads, ...(diagnostics && { diagnostics: ofOneSide(diagnostics) }) };
}

function ofOneSide({ responsibilities, ...diagnostics }: MixtureDiagnostics): MixtureDiagnostics {
  return { ...diagnostics, responsibilities: responsibilities.reshape(responsibilities.shape.slice(1)) };
}

function* gradientSteps(
  { u, v, kernel }: PairKernelArgs,
  upstream: VectorInput,
  rows: number,
  out: PairKernelOut["out"],
): Steps<PairKernelGradients> {
  const row = asTensor("upstream", upstream);
  checkShape("upstream", row, [rows]);
  dataOf("upstream", row);
  const grads = yield* logKernelVjpSteps(u, [v], kernel, { logK: row.reshape([1, rows]) }, { u: out?.u, sides: [out?.v] });
  const [gradV] = grads.sides;
  return { u: grads.u, v: gradV as Tensor, params: grads.params };
}

const both = compound(pairKernelSteps);

/**
 * log k(u_i, v_i) for each pair of rows, and with `upstream` the gradients in u, v and the kernel's parameters.
 * Always log k, never the log of k: distances of any size keep their gradient. Arithmetic in f64.
 * @throws ShapeError, DTypeError; NonFiniteError; OutOfRangeError for a zero row when the kernel normalises.
 */
export const pairKernel = both.async;
/** pairKernel on this thread. */
export const pairKernelSync = both.sync;
