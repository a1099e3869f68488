import { type DivergenceOptions, type DivergenceResult, rowReduction } from "./divergence.js";
import { checkDivergence } from "./divergences/index.js";
import { writeDivergence } from "./divergences/write-divergence.js";
import { DTypeError, OutOfRangeError } from "./errors.js";
import { describe, Frame } from "./native/frame.js";
import { operation, type Steps } from "./native/operation.js";
import {
  DEFAULT_MEMORY_LIMIT,
  type HeadGradients,
  headGradientResults,
  type LinearHead,
  matrixShape,
  writeHead,
  writeLogitOptions,
} from "./native/shared-arguments.js";
import { resultDType, type Tensor } from "./tensor.js";

export interface LinearDivergenceArgs extends DivergenceOptions {
  /** hidden [N, D], weight [V, D], bias [V] of one dtype (f32 f64 f16 bf16). */
  policy: LinearHead;
  /** As many rows and words as the policy, any width; dtype of the policy. */
  reference: LinearHead;
  /** Bytes of working memory, beside a few MB per thread. Default 56 MiB. */
  memoryLimit?: number;
}

export interface LinearDivergenceResult extends Omit<DivergenceResult, "gradPolicy"> {
  /** Of the policy's head: hidden [N, D] in its dtype, weight [V, D] and bias [V] in f32 (f64 for f64 inputs). Present when an upstream was given. */
  grads?: HeadGradients;
}

export interface LinearDivergenceOut {
  out?: { values?: Tensor } & Partial<HeadGradients>;
}

function checkHead(name: string, head: LinearHead): void {
  if (typeof head !== "object" || head === null) throw new DTypeError(`${name}: expected { hidden, weight, bias }, got ${describe(head)}`);
}

export function* linearDivergenceSteps(args: LinearDivergenceArgs, { out = {} }: LinearDivergenceOut): Steps<LinearDivergenceResult> {
  const { policy, reference, kind } = args;
  checkDivergence(kind);
  if ("derivative" in kind) {
    throw new OutOfRangeError(
      "kind: a generator of the caller's own is evaluated on the ratios of all logits, which are never held here; use divergence",
    );
  }
  checkHead("policy", policy);
  checkHead("reference", reference);
  const [rows] = matrixShape("policy.hidden", policy.hidden);
  const [vocabulary] = matrixShape("policy.weight", policy.weight);
  const { reduce, upstream } = rowReduction(args, rows);
  const frame = new Frame("linearDivergence");
  writeHead(frame, policy, "policy");
  writeHead(frame, reference, "reference");
  frame.optionalInput("targets", args.targets);
  writeDivergence(frame, kind, vocabulary);
  writeLogitOptions(frame, args);
  frame.integer("memoryLimit", args.memoryLimit ?? DEFAULT_MEMORY_LIMIT);
  frame.optionalInput("upstream", upstream).optionalInput("targetUpstream", args.targetUpstream);
  const result: LinearDivergenceResult = { values: frame.result("out.values", resultDType(policy.hidden.dtype), [rows], out.values) };
  if (upstream === undefined) frame.absent().absent().absent();
  else result.grads = headGradientResults(frame, policy, out);
  yield frame;
  return { ...result, ...(reduce && { value: reduce(result.values) }) };
}

const both = operation(linearDivergenceSteps);

/**
 * divergence of the logits `hidden·weightᵀ + bias` of two heads without ever holding [N, V]; gradients for the policy's head. Working memory is bounded by
 * `memoryLimit`, whatever N and V. Every kind but a generator of the caller's own.
 * @throws as divergence; NonFiniteError also for an input that is not finite.
 */
export const linearDivergence = both.async;
/** linearDivergence on this thread. */
export const linearDivergenceSync = both.sync;
