import { Frame } from "./native/frame.js";
import { compound, operation, type Steps } from "./native/operation.js";
import {
  DEFAULT_MEMORY_LIMIT,
  type HeadGradients,
  headGradientResults,
  type LinearHead,
  type LogitOptions,
  matrixShape,
  rowResults,
  type TokenLogProbs,
  type TokenLogProbsOut,
  writeHead,
  writeLogitOptions,
} from "./native/shared-arguments.js";
import { resultDType, type VectorInput } from "./tensor.js";

export interface LinearTokenLogProbsArgs extends LinearHead, LogitOptions {
  /** [N] i32: the target of each row, or −100 (IGNORED_TARGET). Ignored rows cost nothing. */
  targets: VectorInput;
  /** Bytes of working memory, beside about 3 MB per thread. Default 56 MiB. */
  memoryLimit?: number;
  entropy?: boolean;
  meanLogit?: boolean;
}

export function* linearTokenLogProbsSteps(args: LinearTokenLogProbsArgs, { out }: TokenLogProbsOut): Steps<TokenLogProbs> {
  const [rows] = matrixShape("hidden", args.hidden);
  const frame = new Frame("linearTokenLogProbs");
  writeHead(frame, args);
  frame.input("targets", args.targets);
  writeLogitOptions(frame, args);
  frame.integer("memoryLimit", args.memoryLimit ?? DEFAULT_MEMORY_LIMIT);
  const result = rowResults(frame, rows, resultDType(args.hidden.dtype), args, out);
  yield frame;
  return result;
}

const forward = operation(linearTokenLogProbsSteps);

/**
 * tokenLogProbs of `logits = hidden·weightᵀ + bias` without ever holding the [N, V] logits.
 * Shapes: hidden [N, D], weight [V, D], bias [V] of one dtype (f32 f64 f16 bf16), targets [N] → [N].
 * @throws ShapeError, DTypeError; OutOfRangeError for a target outside 0..V−1; NonFiniteError for an input that is not finite.
 */
export const linearTokenLogProbs = forward.async;
/** linearTokenLogProbs on this thread. */
export const linearTokenLogProbsSync = forward.sync;

export interface LinearTokenLogProbsVjpArgs extends LinearHead, LogitOptions {
  targets: VectorInput;
  /** [N] f64 or f32, as linearTokenLogProbs returned it; computed when missing. */
  logSumExp?: VectorInput;
  /** [N] f32 f64: gradient of the loss in each log-probability. */
  upstream: VectorInput;
  memoryLimit?: number;
}

export function* linearTokenLogProbsVjpSteps(args: LinearTokenLogProbsVjpArgs, { out }: { out?: Partial<HeadGradients> }): Steps<HeadGradients> {
  matrixShape("hidden", args.hidden);
  const logSumExp = args.logSumExp ?? (yield* linearTokenLogProbsSteps(args, {})).logSumExp;
  const frame = new Frame("linearTokenLogProbsVjp");
  writeHead(frame, args);
  frame.input("targets", args.targets).input("logSumExp", logSumExp).input("upstream", args.upstream);
  writeLogitOptions(frame, args);
  frame.integer("memoryLimit", args.memoryLimit ?? DEFAULT_MEMORY_LIMIT);
  const grads = headGradientResults(frame, args, out);
  yield frame;
  return grads;
}

const pullBack = compound(linearTokenLogProbsVjpSteps);

/**
 * Pull-back of linearTokenLogProbs; the logits are computed again, block by block. Gradients: hidden [N, D] in its dtype, weight [V, D] and
 * bias [V] in f32 (f64 for f64 inputs), since they are sums over all rows.
 */
export const linearTokenLogProbsVjp = pullBack.async;
/** linearTokenLogProbsVjp on this thread. */
export const linearTokenLogProbsVjpSync = pullBack.sync;
