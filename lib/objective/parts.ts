import type { Steps } from "../native/operation.js";
import type { HeadGradients } from "../native/shared-arguments.js";
import type { Metrics, PreferenceResult } from "../preference.js";
import type { Tensor } from "../tensor.js";
import type { Embeddings, PolicyGradients } from "./inputs.js";

/** The kernel term of a step: log k of both sides, and how to pull it back. */
export interface KernelTerm {
  /** [2B]: chosen, then rejected. */
  logKernel: Tensor;
  /** −η·Σ H over the groups of a mixture. */
  regularizer: number;
  metrics: Metrics;
  /** e^H of each group of a mixture, by path. */
  effectiveNumbers: Readonly<Record<string, number>>;
  pullBack(upstream: Tensor, out: Partial<Embeddings>): Steps<{ embeddings: Embeddings; kernel: Record<string, Tensor<"f64">> }>;
}

/** The gradients that a pull-back writes to, where the caller gave any. */
export type PolicyOut = Partial<HeadGradients> & { logits?: Tensor; logProbs?: Tensor };

/** D of a batch, before α. */
export interface BatchDivergence {
  value: number;
  metrics: Metrics;
}

/** The divergence term of a step. */
export interface DivergenceTerm {
  /** D alone, for evaluation. */
  evaluate(): Steps<BatchDivergence>;
  /** D, and the policy's gradient of α·D and of the preference loss, whose gradient in the sequences' log-probabilities is `upstream` [2B]. */
  pullBack(upstream: Tensor, out: PolicyOut): Steps<PulledBack>;
}

/** The policy's gradients, with D when the objective has a divergence. */
export interface PulledBack {
  grads: PolicyGradients;
  divergence?: BatchDivergence;
}

/** A preference loss with what is left to do for the policy's gradient. */
export interface PolicyStep {
  result: PreferenceResult;
  meanLogits: { chosen: number; rejected: number } | undefined;
  /** D alone; undefined when the objective has no divergence. */
  evaluate?: Steps<BatchDivergence> | undefined;
  pullBack: Steps<PulledBack>;
}
