import { checkFitted, type Kernel } from "./kernels/kernel.js";
import { kernelGradientResults, treeOf, writeKernel } from "./kernels/write-kernel.js";
import { Frame } from "./native/frame.js";
import { operation, type Steps } from "./native/operation.js";
import { matrixShape } from "./native/shared-arguments.js";
import { asTensor, checkOut, checkShape, checkUsable, inShape, resultDType, type Tensor, type VectorInput } from "./tensor.js";

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

/** What the kernel gave for u with each side. */
interface Values {
  /** [sides, N]. */
  logK: Tensor;
  /** Present when the kernel is a mixture; responsibilities [sides, N, members]. */
  diagnostics?: MixtureDiagnostics;
}

/** Declares log k and, of mixtures, the diagnostics as results. What it returns reads them. */
function valueResults(frame: Frame, u: Tensor, sides: number, kernel: Kernel, out?: Tensor): () => Values {
  const [rows] = matrixShape("u", u);
  const dtype = resultDType(u.dtype);
  const logK = frame.result("out.logK", dtype, [sides, rows], out);
  const { groups, members } = treeOf(kernel);
  if (groups.length === 0) {
    frame.absent().absent().absent();
    return () => ({ logK });
  }
  const shares = frame.result("out.shares", "f64", [groups.length + members.length]).data;
  const entropies = frame.result("out.entropies", "f64", [groups.length]).data;
  const responsibilities = frame.result("out.responsibilities", dtype, [sides, rows, members.length]);
  return () => {
    const byPath = (nodes: readonly { path: string }[], values: Float64Array) =>
      Object.fromEntries(nodes.map(({ path }, node) => [path, values[node] ?? 0]));
    const { "": _, ...weights } = byPath([...groups, ...members], shares);
    const diagnostics = { weights, entropies: byPath(groups, entropies), responsibilities, kernels: members.map(({ path }) => path) };
    return { logK, diagnostics };
  };
}

/** log k of u with each side. */
export function* logKernelSteps(u: Tensor, sides: readonly Tensor[], kernel: Kernel, out?: Tensor): Steps<Values> {
  const frame = new Frame("pairKernel");
  writeInputs(frame, u, sides, kernel);
  const values = valueResults(frame, u, sides.length, kernel, out);
  yield frame;
  return values();
}

/** Gradients to come back from. */
interface KernelUpstream {
  /** [sides, N]. */
  logK: Tensor;
  /** Gradient in the entropy of every group. */
  entropy?: number;
}

interface KernelVjpOut {
  u?: Tensor | undefined;
  sides?: readonly (Tensor | undefined)[];
}

interface KernelOut extends KernelVjpOut {
  /** [sides, N]. */
  logK?: Tensor | undefined;
}

interface KernelVjp {
  u: Tensor;
  sides: Tensor[];
  params: Record<string, Tensor<"f64">>;
}

/** Its pull-back. */
export function* logKernelVjpSteps(
  u: Tensor,
  sides: readonly Tensor[],
  kernel: Kernel,
  upstream: KernelUpstream,
  out?: KernelVjpOut,
): Steps<KernelVjp> {
  const frame = vjpFrame(u, sides, kernel, upstream);
  frame.absent().absent().absent().absent();
  const grads = gradientResults(frame, u, sides, kernel, out);
  yield frame;
  return grads();
}

/** Both in one pass over the rows. */
export function* logKernelAndVjpSteps(
  u: Tensor,
  sides: readonly Tensor[],
  kernel: Kernel,
  upstream: KernelUpstream,
  out?: KernelOut,
): Steps<Values & { grads: KernelVjp }> {
  const frame = vjpFrame(u, sides, kernel, upstream);
  const values = valueResults(frame, u, sides.length, kernel, out?.logK);
  const grads = gradientResults(frame, u, sides, kernel, out);
  yield frame;
  return { ...values(), grads: grads() };
}

function vjpFrame(u: Tensor, sides: readonly Tensor[], kernel: Kernel, upstream: KernelUpstream): Frame {
  const frame = new Frame("pairKernelVjp");
  writeInputs(frame, u, sides, kernel);
  return frame.input("upstream", upstream.logK).number("entropyUpstream", upstream.entropy ?? 0);
}

function gradientResults(frame: Frame, u: Tensor, sides: readonly Tensor[], kernel: Kernel, out: KernelVjpOut = {}): () => KernelVjp {
  const shape = matrixShape("u", u);
  const gradU = frame.result("out.u", u.dtype, shape, out.u, u);
  const gradSides = sides.map((v, side) => frame.result("out.v", u.dtype, shape, out.sides?.[side], v));
  const params = kernelGradientResults(frame, kernel);
  return () => ({ u: gradU, sides: gradSides, params: params() });
}

export function* pairKernelSteps(args: PairKernelArgs, { out = {} }: PairKernelOut): Steps<PairKernelResult> {
  const { u, v, kernel } = args;
  checkFitted(kernel);
  const [rows] = matrixShape("u", u);
  matrixShape("v", v);
  checkOut("out.logK", out.logK, resultDType(u.dtype), [rows]);
  const target = out.logK?.reshape([1, rows]);
  if (args.upstream === undefined) return ofOneSide(yield* logKernelSteps(u, [v], kernel, target), out.logK);
  const upstream = asTensor("upstream", args.upstream);
  checkShape("upstream", upstream, [rows]);
  checkUsable("upstream", upstream);
  const outs = { logK: target, u: out.u, sides: [out.v] };
  const result = yield* logKernelAndVjpSteps(u, [v], kernel, { logK: upstream.reshape([1, rows]) }, outs);
  const [gradV] = result.grads.sides;
  return { ...ofOneSide(result, out.logK), grads: { u: result.grads.u, v: gradV as Tensor, params: result.grads.params } };
}

function ofOneSide({ logK, diagnostics }: Values, out: Tensor | undefined): Pick<PairKernelResult, "logK" | "diagnostics"> {
  const row = out ?? inShape(logK, [logK.size]);
  if (diagnostics === undefined) return { logK: row };
  const { responsibilities, ...others } = diagnostics;
  return { logK: row, diagnostics: { ...others, responsibilities: inShape(responsibilities, responsibilities.shape.slice(1)) } };
}

const both = operation(pairKernelSteps);

/**
 * log k(u_i, v_i) for each pair of rows, and with `upstream` the gradients in u, v and the kernel's parameters.
 * Always log k, never the log of k: distances of any size keep their gradient. Arithmetic in f64.
 * @throws ShapeError, DTypeError; NonFiniteError; OutOfRangeError for a zero row when the kernel normalises.
 */
export const pairKernel = both.async;
/** pairKernel on this thread. */
export const pairKernelSync = both.sync;
