import { checkKernel, KERNEL_NAMES, type Kernel } from "./kernels/index.js";
import { Frame } from "./native/frame.js";
import { compound, type Steps } from "./native/operation.js";
import { matrixShape } from "./native/shared-arguments.js";
import { asTensor, checkOut, checkShape, copyToOut, dataOf, resultDType, Tensor, type VectorInput } from "./tensor.js";

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
}

export interface PairKernelOut {
  out?: { logK?: Tensor; u?: Tensor; v?: Tensor };
}

/** All parameters in one array, in the kernel's order, which is that of native/math/log_kernels.h. */
function packParameters({ parameters }: Kernel): Tensor<"f64"> {
  const values = Object.entries(parameters).flatMap(([name, parameter]) => [...dataOf(name, parameter)]);
  return new Tensor(Float64Array.from(values), [values.length], "f64");
}

/** The inverse of packParameters, for their gradient. */
function unpackParameters({ parameters }: Kernel, packed: Float64Array): Record<string, Tensor<"f64">> {
  let begin = 0;
  const unpacked: Record<string, Tensor<"f64">> = {};
  for (const [name, parameter] of Object.entries(parameters)) {
    unpacked[name] = new Tensor(packed.slice(begin, begin + parameter.size), parameter.shape, "f64");
    begin += parameter.size;
  }
  return unpacked;
}

function writeInputs(frame: Frame, u: Tensor, sides: readonly Tensor[], kernel: Kernel): void {
  frame.input("u", u).code(sides.length);
  for (const v of sides) frame.input("v", v);
  frame.code(KERNEL_NAMES.indexOf(kernel.name)).code(kernel.normalize).input("parameters", packParameters(kernel));
}

/** log k of u with each side: [sides, N]. */
export function* logKernelSteps(u: Tensor, sides: readonly Tensor[], kernel: Kernel): Steps<Tensor> {
  const [rows] = matrixShape("u", u);
  const frame = new Frame("pairKernel");
  writeInputs(frame, u, sides, kernel);
  const logK = frame.result("out.logK", resultDType(u.dtype), [sides.length, rows]);
  yield frame;
  return logK;
}

/** Its pull-back; upstream [sides, N]. */
export function* logKernelVjpSteps(
  u: Tensor,
  sides: readonly Tensor[],
  kernel: Kernel,
  upstream: Tensor,
  out: { u?: Tensor | undefined; sides?: readonly (Tensor | undefined)[] } = {},
): Steps<{ u: Tensor; sides: Tensor[]; params: Record<string, Tensor<"f64">> }> {
  const shape = matrixShape("u", u);
  const frame = new Frame("pairKernelVjp");
  writeInputs(frame, u, sides, kernel);
  frame.input("upstream", upstream);
  const gradU = frame.result("out.u", u.dtype, shape, out.u);
  const gradSides = sides.map((_, side) => frame.result("out.v", u.dtype, shape, out.sides?.[side]));
  const packed = frame.result("parameters", "f64", packParameters(kernel).shape).data;
  yield frame;
  return { u: gradU, sides: gradSides, params: unpackParameters(kernel, packed) };
}

export function* pairKernelSteps(args: PairKernelArgs, { out = {} }: PairKernelOut): Steps<PairKernelResult> {
  checkKernel(args.kernel);
  const sides = [args.v];
  const [rows] = matrixShape("u", args.u);
  matrixShape("v", args.v);
  checkOut("out.logK", out.logK, resultDType(args.u.dtype), [rows]);
  const logK = (yield* logKernelSteps(args.u, sides, args.kernel)).reshape([rows]);
  // out.logK is written last: should the pull-back fail, it stays as it was.
  const grads = args.upstream === undefined ? {} : { grads: yield* gradientSteps(args, args.upstream, rows, out) };
  return { logK: copyToOut(out.logK, logK), ...grads };
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
  const grads = yield* logKernelVjpSteps(u, [v], kernel, row.reshape([1, rows]), { u: out?.u, sides: [out?.v] });
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
