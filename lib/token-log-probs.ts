import { Frame } from "./native/frame.js";
import { compound, operation, type Steps } from "./native/operation.js";
import {
  type LogitOptions,
  matrixShape,
  rowResults,
  type TokenLogProbs,
  type TokenLogProbsOut,
  writeLogitOptions,
} from "./native/shared-arguments.js";
import { resultDType, type Tensor, type VectorInput } from "./tensor.js";

/** Rows with this target are ignored: log-probability 0, gradient 0. */
export const IGNORED_TARGET = -100;

export interface TokenLogProbsArgs extends LogitOptions {
  /** [N, V], f32 f64 f16 bf16. −inf is allowed, NaN and +inf are not. */
  logits: Tensor;
  /** [N] i32: the target of each row, or −100 (IGNORED_TARGET). */
  targets: VectorInput;
  /** Also return the entropy of each row's distribution. */
  entropy?: boolean;
  /** Also return the mean of each row's raw logits. */
  meanLogit?: boolean;
}

export function* tokenLogProbsSteps(args: TokenLogProbsArgs, { out }: TokenLogProbsOut): Steps<TokenLogProbs> {
  const [rows] = matrixShape("logits", args.logits);
  const frame = new Frame("tokenLogProbs").input("logits", args.logits).input("targets", args.targets);
  writeLogitOptions(frame, args);
  const result = rowResults(frame, rows, resultDType(args.logits.dtype), args, out);
  yield frame;
  return result;
}

const forward = operation(tokenLogProbsSteps);

/**
 * Log-probability of each row's target: `z'_target − logsumexp(z')` with `z' = softcap·tanh(z/softcap)/temperature`.
 * Shapes: logits [N, V], targets [N] → [N]. Within abs 1e-5 + rel 1e-6 of the exact value for f32 and 16-bit logits.
 * @throws ShapeError, DTypeError; OutOfRangeError for a target outside 0..V−1; NonFiniteError for NaN, +inf, or a row of −inf only.
 */
export const tokenLogProbs = forward.async;
/** tokenLogProbs on this thread. */
export const tokenLogProbsSync = forward.sync;

export interface TokenLogProbsVjpArgs extends LogitOptions {
  logits: Tensor;
  targets: VectorInput;
  /** [N] f64 or f32, as tokenLogProbs returned it for these logits and options; computed when missing. */
  logSumExp?: VectorInput;
  /** [N] f32 f64: gradient of the loss in each log-probability. */
  upstream: VectorInput;
}

export function* tokenLogProbsVjpSteps(args: TokenLogProbsVjpArgs, { out }: { out?: { logits?: Tensor } }): Steps<{ logits: Tensor }> {
  const shape = matrixShape("logits", args.logits);
  const logSumExp = args.logSumExp ?? (yield* tokenLogProbsSteps(args, {})).logSumExp;
  const frame = new Frame("tokenLogProbsVjp").input("logits", args.logits).input("targets", args.targets);
  frame.input("logSumExp", logSumExp).input("upstream", args.upstream);
  writeLogitOptions(frame, args);
  const logits = frame.result("out.logits", args.logits.dtype, shape, out?.logits, args.logits);
  yield frame;
  return { logits };
}

const pullBack = compound(tokenLogProbsVjpSteps);

/**
 * Pull-back of tokenLogProbs: `dz = g·(1[target] − softmax z')·dz'/dz`, in the dtype of the logits.
 * @throws as tokenLogProbs; NonFiniteError for an upstream or logSumExp that is not finite.
 */
export const tokenLogProbsVjp = pullBack.async;
/** tokenLogProbsVjp on this thread. */
export const tokenLogProbsVjpSync = pullBack.sync;
