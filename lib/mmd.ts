import { OutOfRangeError } from "./errors.js";
import { type GramGradients, type GramRows, type GramVjpOut, gramGradientResults, writeGramRows } from "./gram.js";
import { describe, Frame } from "./native/frame.js";
import { operation, type Steps } from "./native/operation.js";
import type { Tensor } from "./tensor.js";

export type MmdEstimator = "biased" | "unbiased";

export interface MmdArgs extends GramRows {
  /** [M, D], dtype of x. */
  y: Tensor;
  /** "biased" (default): means over all pairs; at least 0 for a positive definite kernel. "unbiased": without the pairs of a row with itself; may be negative. */
  estimator?: MmdEstimator;
  /** Also return the gradients. Default false. */
  gradients?: boolean;
}

export interface MmdResult {
  mmd2: number;
  /** Present when asked for. */
  grads?: GramGradients;
}

const ESTIMATORS = ["biased", "unbiased"] as const;

export function* mmdSteps(args: MmdArgs, { out }: GramVjpOut): Steps<MmdResult> {
  const { estimator = "biased", gradients = false } = args;
  if (!ESTIMATORS.includes(estimator)) throw new OutOfRangeError(`estimator: expected "biased" or "unbiased", got ${describe(estimator)}`);
  if (typeof gradients !== "boolean") throw new OutOfRangeError(`gradients: expected true or false, got ${describe(gradients)}`);
  const frame = new Frame("mmd");
  writeGramRows(frame, args);
  frame.code(estimator === "unbiased").code(gradients);
  const mmd2 = frame.result("mmd2", "f64", [1]);
  const grads = gradients ? gramGradientResults(frame, args, out) : undefined;
  yield frame;
  return { mmd2: mmd2.data[0] ?? Number.NaN, ...(grads && { grads: grads() }) };
}

const both = operation(mmdSteps);

/**
 * Squared maximum mean discrepancy of two samples, mean k(x, x') + mean k(y, y') − 2·mean k(x, y) (Gretton et al. 2012, "A Kernel Two-Sample Test"), and
 * with `gradients` its gradients in x, y and the kernel's parameters. None of the three Gram matrices is held.
 * @throws as gram; ShapeError for an unbiased estimate of fewer than 2 rows.
 */
export const mmd = both.async;
/** mmd on this thread. */
export const mmdSync = both.sync;
