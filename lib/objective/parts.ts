import type { Steps } from "../native/operation.js";
import type { PreferenceResult } from "../preference.js";
import type { Tensor } from "../tensor.js";
import type { Embeddings, PolicyGradients } from "./inputs.js";

/** The kernel term of a step: log k of both sides, and how to pull it back. */
export interface KernelTerm {
  /** [2B]: chosen, then rejected. */
  logKernel: Tensor;
  pullBack(upstream: Tensor, out: Partial<Embeddings>): Steps<{ embeddings: Embeddings; kernel: Record<string, Tensor<"f64">> }>;
}

/** A preference loss with what is left to do for the policy's gradient. */
export interface PolicyStep {
  result: PreferenceResult;
  meanLogits: { chosen: number; rejected: number } | undefined;
  pullBack: Steps<PolicyGradients>;
}
