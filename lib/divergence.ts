import { copyToOut } from "./device.js";
import { checkDivergence, type Divergence, divergences, type OwnGeneratorDivergence } from "./divergences/index.js";
import { CentredGenerator } from "./divergences/own-generator.js";
import { writeDivergence } from "./divergences/write-divergence.js";
import { DTypeError, NonFiniteError, OutOfRangeError } from "./errors.js";
import { describe, Frame } from "./native/frame.js";
import { type AsyncOptions, compound, operation, type Steps } from "./native/operation.js";
import { type LogitOptions, matrixShape, writeLogitOptions } from "./native/shared-arguments.js";
import { asTensor, checkOut, checkShape, checkUsable, emptyOn, resultDType, Tensor, type VectorInput, zeros } from "./tensor.js";
import { IGNORED_TARGET } from "./token-log-probs.js";

const REDUCTIONS = ["none", "sum", "mean", "batchmean"] as const;
export type DivergenceReduction = (typeof REDUCTIONS)[number];

/** What the two forms of a divergence, from logits and from heads, have in common. */
export interface DivergenceOptions extends LogitOptions {
  kind: Divergence;
  /** [N] i32: rows with target −100 (IGNORED_TARGET) have value 0 and gradient 0; what their logits hold is of no matter. */
  targets?: VectorInput;
  /** How the rows' values become `value`: their sum, the mean over the rows that are not ignored, or the sum over N ("batchmean"). Default "none". */
  reduction?: DivergenceReduction;
  /** Gradient of the loss in each value, [N] f32 f64, or in `value`, a number; with "none" a number holds for every row. When given, gradients are returned. */
  upstream?: VectorInput | number;
  /** [N] f32 f64: gradient of the loss in log p[target] of each row, whose pull-back is added to the gradient. Goes with targets and upstream. */
  targetUpstream?: VectorInput;
}

export interface DivergenceArgs extends DivergenceOptions {
  /** [N, V] f32 f64 f16 bf16. −inf is allowed, NaN and +inf are not. */
  policy: Tensor;
  /** [N, V], dtype of policy. */
  reference: Tensor;
}

export interface DivergenceResult {
  /** [N], f64 for f64 logits, else f32. */
  values: Tensor;
  /** Present when a reduction was asked for. */
  value?: number;
  /** [N, V], dtype of policy. Present when an upstream was given. */
  gradPolicy?: Tensor;
}

export interface DivergenceOut {
  out?: { values?: Tensor; gradPolicy?: Tensor };
}

/** How a call's rows are weighted: what each counts in `value`, and the upstream of each. */
export interface RowReduction {
  /** Undefined with "none". */
  reduce?: (values: Tensor) => number;
  upstream?: Tensor;
}

/** @throws OutOfRangeError for an unknown reduction; DTypeError for an upstream by row of a reduced value. */
export function rowReduction({ reduction = "none", targets, upstream }: DivergenceOptions, rows: number): RowReduction {
  if (!REDUCTIONS.includes(reduction)) {
    throw new OutOfRangeError(`reduction: unknown name ${describe(reduction)}; known are ${REDUCTIONS.join(", ")}`);
  }
  const divisor = divisorOf(reduction, targets, rows);
  return {
    ...(reduction !== "none" && { reduce: (values: Tensor) => sumOf(values) / divisor }),
    ...(upstream !== undefined && { upstream: rowUpstream(upstream, reduction, rows, divisor) }),
  };
}

function divisorOf(reduction: DivergenceReduction, targets: VectorInput | undefined, rows: number): number {
  if (reduction === "mean") return Math.max(1, countedRows(targets, rows));
  return reduction === "batchmean" ? rows : 1;
}

function sumOf(values: Tensor): number {
  let sum = 0;
  for (const value of values.data) sum += value;
  return sum;
}

function countedRows(targets: VectorInput | undefined, rows: number): number {
  if (targets === undefined) return rows;
  const tensor = asTensor("targets", targets);
  checkShape("targets", tensor, [rows]);
  let count = 0;
  checkUsable("targets", tensor);
  for (const target of tensor.readSync()) count += target === IGNORED_TARGET ? 0 : 1;
  return count;
}

function rowUpstream(upstream: VectorInput | number, reduction: DivergenceReduction, rows: number, divisor: number): Tensor {
  if (typeof upstream === "number") return new Tensor(new Float64Array(rows).fill(upstream / divisor), [rows], "f64");
  if (reduction !== "none") throw new DTypeError(`upstream: expected a number, the gradient in the one value of reduction "${reduction}"`);
  return asTensor("upstream", upstream);
}

/** The arguments of one native call. */
interface Call extends Omit<DivergenceArgs, "reduction" | "upstream"> {
  upstream?: Tensor;
  generator?: { values: Tensor; slopes?: Tensor };
}

function* callSteps(call: Call, out: NonNullable<DivergenceOut["out"]>): Steps<DivergenceResult> {
  const shape = matrixShape("policy", call.policy);
  const frame = new Frame("divergence").input("policy", call.policy).input("reference", call.reference).optionalInput("targets", call.targets);
  writeDivergence(frame, call.kind, shape[1]);
  writeLogitOptions(frame, call);
  frame.optionalInput("f: values", call.generator?.values).optionalInput("f: slopes", call.generator?.slopes);
  frame.optionalInput("upstream", call.upstream).optionalInput("targetUpstream", call.targetUpstream);
  const result: DivergenceResult = { values: frame.result("out.values", resultDType(call.policy.dtype), shape.slice(0, 1), out.values) };
  if (call.upstream === undefined) frame.absent();
  else result.gradPolicy = frame.result("out.gradPolicy", call.policy.dtype, shape, out.gradPolicy, call.policy);
  yield frame;
  return result;
}

export function* divergenceSteps(args: DivergenceArgs, { out = {} }: DivergenceOut): Steps<DivergenceResult> {
  checkDivergence(args.kind);
  const [rows] = matrixShape("policy", args.policy);
  const { reduce, upstream } = rowReduction(args, rows);
  const { reduction, upstream: _, ...others } = args;
  const call: Call = { ...others, ...(upstream && { upstream }) };
  const result = yield* isOwnGenerator(args.kind) ? ownGeneratorSteps(call, args.kind, out) : callSteps(call, out);
  return { ...result, ...(reduce && { value: reduce(result.values) }) };
}

/** Ratios, values and slopes of a generator held at a time. */
const BLOCK_ELEMENTS = 2 ** 20;

/** D_f of a generator that only JavaScript can evaluate, in blocks of rows. Nothing of the caller's is written before all of them have succeeded. */
function* ownGeneratorSteps(call: Call, kind: OwnGeneratorDivergence, out: NonNullable<DivergenceOut["out"]>): Steps<DivergenceResult> {
  const generator = new CentredGenerator(kind);
  const [rows, vocabulary] = matrixShape("policy", call.policy);
  yield* checkRows(call, rows);
  checkOut("out.values", out.values, resultDType(call.policy.dtype), [rows]);
  if (call.upstream) checkOut("out.gradPolicy", out.gradPolicy, call.policy.dtype, [rows, vocabulary]);

  const values = zeros([rows], resultDType(call.policy.dtype));
  const gradPolicy = call.upstream && zeros([rows, vocabulary], call.policy.dtype);
  const height = Math.max(1, Math.floor(BLOCK_ELEMENTS / vocabulary));
  for (let begin = 0; begin < rows; begin += height) {
    const block = yield* blockSteps(call, generator, begin, Math.min(rows, begin + height));
    values.data.set(block.values.data, begin);
    if (block.gradPolicy) gradPolicy?.data.set(block.gradPolicy.readSync(), begin * vocabulary);
  }
  return {
    values: yield* copyToOut(out.values, values),
    ...(gradPolicy && { gradPolicy: yield* copyToOut(out.gradPolicy ?? likeOnDevice(call.policy), gradPolicy) }),
  };
}

function likeOnDevice({ device, shape, dtype }: Tensor): Tensor | undefined {
  return device === "cpu" ? undefined : emptyOn(device, shape, dtype);
}

/** All checks of the rows by a divergence that is always finite, so that errors name elements of the whole and not of a block. */
function* checkRows({ upstream, targetUpstream, ...inputs }: Call, rows: number): Steps<void> {
  yield* callSteps({ ...inputs, kind: divergences.tv() }, {});
  checkFinite("upstream", upstream, rows);
  if (targetUpstream !== undefined) checkFinite("targetUpstream", asTensor("targetUpstream", targetUpstream), rows);
}

function checkFinite(name: string, tensor: Tensor | undefined, rows: number): void {
  if (tensor === undefined) return;
  checkShape(name, tensor, [rows]);
  checkUsable(name, tensor);
  const index = tensor.readSync().findIndex((value: number) => !Number.isFinite(value));
  if (index >= 0) throw new NonFiniteError(`${name}: element ${index} is not finite`, { index });
}

function* blockSteps(call: Call, generator: CentredGenerator, begin: number, end: number): Steps<DivergenceResult> {
  const block = rowsOf(call, begin, end);
  const ratios = yield* densityRatioSteps(block);
  const values = zeros(ratios.shape, "f64");
  generator.values(ratios.data, values.data);
  const slopes = call.upstream && zeros(ratios.shape, "f64");
  if (slopes) generator.slopes(ratios.data, slopes.data);
  try {
    return yield* callSteps({ ...block, generator: { values, ...(slopes && { slopes }) } }, {});
  } catch (error) {
    if (!(error instanceof NonFiniteError) || error.index === undefined) throw error;
    const row = begin + error.index;
    throw new NonFiniteError(`f: the divergence of row ${row} is infinite and has no gradient`, { index: row, cause: error });
  }
}

function rowsOf(call: Call, begin: number, end: number): Call {
  const part = (name: string, value: VectorInput | undefined) => value && asTensor(name, value).rows(begin, end);
  const [targets, upstream] = [part("targets", call.targets), part("upstream", call.upstream)];
  const targetUpstream = part("targetUpstream", call.targetUpstream);
  return {
    ...call,
    policy: call.policy.rows(begin, end),
    reference: call.reference.rows(begin, end),
    ...(targets && { targets }),
    ...(upstream && { upstream }),
    ...(targetUpstream && { targetUpstream }),
  };
}

/** p/q of every element, [N, V] f64; 1 where both are 0. */
function* densityRatioSteps(call: Call): Steps<Tensor<"f64">> {
  const frame = new Frame("densityRatios").input("policy", call.policy).input("reference", call.reference);
  frame.optionalInput("targets", call.targets);
  writeLogitOptions(frame, call);
  const ratios = frame.result("ratios", "f64", call.policy.shape);
  yield frame;
  return ratios;
}

const ofOneCall = operation(divergenceSteps);
const ofSeveral = compound(divergenceSteps);

/** Of any value: its checks come later. */
function isOwnGenerator(kind: Divergence): kind is OwnGeneratorDivergence {
  return typeof kind === "object" && kind !== null && "derivative" in kind;
}

/** One native call, unless only JavaScript can evaluate the generator. */
function facesOf({ kind }: DivergenceArgs): typeof ofOneCall {
  return isOwnGenerator(kind) ? ofSeveral : ofOneCall;
}

/**
 * D(p‖q) of every row, p = softmax(z'(policy)), q = softmax(z'(reference)), z' = softcap·tanh(z/softcap)/temperature, and with `upstream` its gradient in
 * the policy's logits. Shapes: policy and reference [N, V] of one dtype (f32 f64 f16 bf16) → values [N], gradPolicy [N, V]. Rows that are all but equal
 * lose no digits; no epsilon is added anywhere.
 *
 * Where p > 0 = q, kl, jeffreys, chi2, and renyi, tsallis and alpha with α ≥ 1 are Infinity; where q > 0 = p, forward_kl, jeffreys, neyman_chi2, and alpha
 * with α ≤ 0; where p and q share no token, bhattacharyya, and renyi with α < 1. Sources: Csiszár (1967) f-divergences; van Erven & Harremoës (2014) Rényi;
 * Cichocki & Amari (2010) alpha; Lin (1991) Jensen–Shannon; Cuturi (2013) and Feydy et al. (2019) Sinkhorn.
 * @throws ShapeError, DTypeError; OutOfRangeError for a parameter outside its range, a target outside 0..V−1, or a generator that is not convex;
 * NonFiniteError for NaN, +inf or a row of −inf only, and for the gradient of a row whose value is infinite (`index`: the row).
 */
export async function divergence(args: DivergenceArgs, options?: DivergenceOut & AsyncOptions): Promise<DivergenceResult> {
  return facesOf(args).async(args, options);
}
/** divergence on this thread. */
export function divergenceSync(args: DivergenceArgs, options?: DivergenceOut): DivergenceResult {
  return facesOf(args).sync(args, options);
}
