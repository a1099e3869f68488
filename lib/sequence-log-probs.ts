import { OutOfRangeError } from "./errors.js";
import { Frame } from "./native/frame.js";
import { operation, type Steps } from "./native/operation.js";
import { type SequenceOptions, writeSequenceOptions } from "./native/shared-arguments.js";
import { asTensor, resultDType, type Tensor, type VectorInput } from "./tensor.js";

export interface SequenceLogProbsArgs extends SequenceOptions {
  /** [N] f32 f64: token log-probabilities of all sequences, one after the other. */
  logProbs: VectorInput;
  /** [N] i32: tokens with target −100 are not counted. */
  targets: VectorInput;
  /** [2B + 1] i32: sequence s holds tokens offsets[s] to offsets[s + 1]; B chosen sequences, then B rejected. */
  offsets: VectorInput;
}

export interface SequenceLogProbs {
  /** [2B], dtype of the token log-probabilities. */
  logProbs: Tensor;
  /** [2B] f64: counted tokens. */
  tokenCounts: Tensor<"f64">;
}

function checkReduction({ reduction }: SequenceOptions): void {
  if (reduction !== undefined && reduction !== "sum" && reduction !== "mean") {
    throw new OutOfRangeError(`reduction: expected "sum" or "mean", got ${String(reduction)}`);
  }
}

export function* sequenceLogProbsSteps(
  args: SequenceLogProbsArgs,
  { out = {} }: { out?: { logProbs?: Tensor; tokenCounts?: Tensor } },
): Steps<SequenceLogProbs> {
  checkReduction(args);
  const sequences = asTensor("offsets", args.offsets).size - 1;
  const frame = new Frame("sequenceLogProbs").input("logProbs", args.logProbs).input("targets", args.targets).input("offsets", args.offsets);
  writeSequenceOptions(frame, args);
  const extent = Math.max(1, sequences);
  const logProbs = frame.result("out.logProbs", resultDType(asTensor("logProbs", args.logProbs).dtype), [extent], out.logProbs);
  const tokenCounts = frame.result("out.tokenCounts", "f64", [extent], out.tokenCounts);
  yield frame;
  return { logProbs, tokenCounts };
}

const forward = operation(sequenceLogProbsSteps);

/**
 * Sums (or means) of token log-probabilities over packed sequences, with LD-DPO's weight `ldAlpha` on tokens past the pair's shared length.
 * @throws OutOfRangeError for offsets that do not rise from 0 to N.
 */
export const sequenceLogProbs = forward.async;
/** sequenceLogProbs on this thread. */
export const sequenceLogProbsSync = forward.sync;

export interface SequenceLogProbsVjpArgs extends SequenceOptions {
  targets: VectorInput;
  offsets: VectorInput;
  /** [2B] f32 f64: gradient of the loss in each sequence's log-probability. */
  upstream: VectorInput;
}

export function* sequenceLogProbsVjpSteps(args: SequenceLogProbsVjpArgs, { out }: { out?: { logProbs?: Tensor } }): Steps<{ logProbs: Tensor }> {
  checkReduction(args);
  const frame = new Frame("sequenceLogProbsVjp").input("targets", args.targets).input("offsets", args.offsets).input("upstream", args.upstream);
  writeSequenceOptions(frame, args);
  const upstream = asTensor("upstream", args.upstream);
  const logProbs = frame.result("out.logProbs", resultDType(upstream.dtype), [asTensor("targets", args.targets).size], out?.logProbs);
  yield frame;
  return { logProbs };
}

const pullBack = operation(sequenceLogProbsVjpSteps);

/** Pull-back of sequenceLogProbs: the gradient in every token's log-probability, [N]. */
export const sequenceLogProbsVjp = pullBack.async;
/** sequenceLogProbsVjp on this thread. */
export const sequenceLogProbsVjpSync = pullBack.sync;
