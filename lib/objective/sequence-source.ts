import { copyToOut } from "../device.js";
import { DTypeError, ShapeError } from "../errors.js";
import { linearTokenLogProbsSteps, linearTokenLogProbsVjpSteps } from "../linear-token-log-probs.js";
import { describe } from "../native/frame.js";
import type { Steps } from "../native/operation.js";
import type { HeadGradients, LinearHead, LogitOptions, TokenLogProbs } from "../native/shared-arguments.js";
import { sequenceLogProbsSteps, sequenceLogProbsVjpSteps } from "../sequence-log-probs.js";
import { asTensor, checkOut, inShape, type Tensor, type VectorInput } from "../tensor.js";
import { IGNORED_TARGET, tokenLogProbsSteps, tokenLogProbsVjpSteps } from "../token-log-probs.js";
import {
  type HiddenInput,
  type LogitsInput,
  type PolicyGradients,
  type PolicyInput,
  type ReferenceInput,
  type Rows,
  rowsOf,
  type SequenceInput,
  type TokenLayout,
} from "./inputs.js";

/** Options that turn what was given into sequence log-probabilities. */
export interface SourceOptions extends LogitOptions {
  ldAlpha?: number;
  memoryLimit?: number;
}

/** The tokens that a side's log-probabilities were made of. */
export interface TokenSource {
  /** The matrix: logits, or hidden states where there is a head. */
  rows: Rows;
  /** Its `hidden` is the matrix. */
  head?: LinearHead;
}

/** Sequence log-probabilities with all that a step wants to know of their making. */
export interface Sequences {
  /** [2B]. */
  logProbs: VectorInput;
  /** [2B]; undefined when the trainer gave none. */
  tokenCounts?: VectorInput | undefined;
  /** Mean logit over the counted tokens of each side, where logits were seen. */
  meanLogits?: { chosen: number; rejected: number };
  /** Undefined when the trainer computed the log-probabilities itself. */
  tokens?: TokenSource;
  /** The gradient of the inputs from that of logProbs. */
  pullBack(upstream: Tensor, out: Partial<HeadGradients> & { logits?: Tensor; logProbs?: Tensor }): Steps<PolicyGradients>;
}

function isSequence(input: PolicyInput | ReferenceInput): input is SequenceInput {
  return "logProbs" in input;
}

export function isHidden(input: PolicyInput | ReferenceInput): input is HiddenInput {
  return "hidden" in input;
}

/** Reads a policy or reference input; `layout` stands in for targets and offsets that a reference leaves out. */
export function* sequencesOf(
  side: "policy" | "reference",
  input: PolicyInput | ReferenceInput,
  options: SourceOptions,
  layout: Partial<TokenLayout> = {},
): Steps<Sequences> {
  if (typeof input !== "object" || input === null) throw new DTypeError(`${side}: expected an object, got ${describe(input)}`);
  if (isSequence(input)) return given(side, input);
  if (isHidden(input)) return yield* ofHidden(input, options, layout);
  if ("logits" in input) return yield* ofLogits(input as LogitsInput, options, layout);
  throw new ShapeError(`${side}: expected { logProbs }, { logits, targets } or { hidden, weight, targets }`);
}

function given(side: string, { logProbs, tokenCounts }: SequenceInput): Sequences {
  return {
    logProbs: asTensor(`${side}.logProbs`, logProbs),
    tokenCounts,
    *pullBack(upstream, out) {
      checkOut("out.policy.logProbs", out.logProbs, upstream.dtype, upstream.shape);
      return { logProbs: yield* copyToOut(out.logProbs, upstream) };
    },
  };
}

function* ofLogits(input: LogitsInput, options: SourceOptions, layout: Partial<TokenLayout>): Steps<Sequences> {
  const rows = rowsOf("logits", input.logits, input, layout);
  const args = { logits: rows.matrix, targets: rows.targets, ...logitOptions(options) };
  const tokens = yield* tokenLogProbsSteps({ ...args, meanLogit: true }, {});
  const sequences = yield* reduceTokens(tokens, rows, options);
  return {
    ...sequences,
    tokens: { rows },
    *pullBack(upstream, out) {
      const tokenUpstream = yield* pullBackTokens(upstream, rows, options);
      const flat = flatLogitsOut(out, input, rows);
      const grads = yield* tokenLogProbsVjpSteps({ ...args, logSumExp: tokens.logSumExp, upstream: tokenUpstream }, { out: flat });
      return { logits: out.logits ?? inShape(grads.logits, input.logits.shape) };
    },
  };
}

function* ofHidden(input: HiddenInput, options: SourceOptions, layout: Partial<TokenLayout>): Steps<Sequences> {
  const rows = rowsOf("hidden", input.hidden, input, layout);
  const head = { hidden: rows.matrix, weight: input.weight, ...(input.bias && { bias: input.bias }) };
  const args = { ...head, ...memoryOptions(options), targets: rows.targets, ...logitOptions(options) };
  const tokens = yield* linearTokenLogProbsSteps({ ...args, meanLogit: true }, {});
  const sequences = yield* reduceTokens(tokens, rows, options);
  return {
    ...sequences,
    tokens: { rows, head },
    *pullBack(upstream, out) {
      const tokenUpstream = yield* pullBackTokens(upstream, rows, options);
      const grads = yield* linearTokenLogProbsVjpSteps(
        { ...args, logSumExp: tokens.logSumExp, upstream: tokenUpstream },
        { out: flatHeadOut(out, input, rows.matrix.shape) },
      );
      return shapedHeadGradients(grads, input, out);
    },
  };
}

/** The caller's result for logits, as a matrix. */
export function flatLogitsOut({ logits }: { logits?: Tensor }, input: LogitsInput, { matrix }: Rows): { logits?: Tensor } {
  checkOut("out.policy.logits", logits, input.logits.dtype, input.logits.shape);
  return logits ? { logits: logits.reshape(matrix.shape) } : {};
}

/** The caller's results for a head, with `hidden` as a matrix. */
export function flatHeadOut(out: Partial<HeadGradients>, { hidden }: HiddenInput, shape: readonly number[]): Partial<HeadGradients> {
  checkOut("out.policy.hidden", out.hidden, hidden.dtype, hidden.shape);
  return { ...out, ...(out.hidden && { hidden: out.hidden.reshape(shape) }) };
}

/** Gradients of a head with `hidden` in the shape it was given in. */
export function shapedHeadGradients(grads: HeadGradients, input: HiddenInput, out: Partial<HeadGradients>): HeadGradients {
  return { ...grads, hidden: out.hidden ?? inShape(grads.hidden, input.hidden.shape) };
}

export function logitOptions({ temperature, softcap }: SourceOptions): LogitOptions {
  return { ...(temperature !== undefined && { temperature }), ...(softcap !== undefined && { softcap }) };
}

export function memoryOptions({ memoryLimit }: SourceOptions): { memoryLimit?: number } {
  return memoryLimit === undefined ? {} : { memoryLimit };
}

function sequenceOptions({ ldAlpha }: SourceOptions): { ldAlpha?: number } {
  return ldAlpha === undefined ? {} : { ldAlpha };
}

function* reduceTokens(tokens: TokenLogProbs, rows: Rows, options: SourceOptions): Steps<Omit<Sequences, "pullBack">> {
  const layout = { targets: rows.targets, offsets: rows.offsets };
  const sequences = yield* sequenceLogProbsSteps({ logProbs: tokens.logProbs, ...layout, ...sequenceOptions(options) }, {});
  return { ...sequences, meanLogits: meanLogitsOf(tokens.meanLogit as Tensor, rows) };
}

/** [N]: the gradient in each token's log-probability from that in each sequence's. */
export function* pullBackTokens(upstream: Tensor, rows: Rows, options: SourceOptions): Steps<Tensor> {
  const { logProbs } = yield* sequenceLogProbsVjpSteps({ targets: rows.targets, offsets: rows.offsets, upstream, ...sequenceOptions(options) }, {});
  return logProbs;
}

/** TRL's logits/chosen and logits/rejected: the mean logit over the counted tokens of each side. */
export function meanLogitsOf(meanLogit: Tensor, { targets, offsets }: Rows): { chosen: number; rejected: number } {
  const middle = offsets.data[(offsets.size - 1) / 2] ?? 0;
  const mean = (begin: number, end: number) => {
    let [sum, count] = [0, 0];
    for (let token = begin; token < end; token++) {
      if (targets.data[token] === IGNORED_TARGET) continue;
      sum += meanLogit.data[token] ?? 0;
      count += 1;
    }
    return sum / Math.max(1, count);
  };
  return { chosen: mean(0, middle), rejected: mean(middle, targets.size) };
}
