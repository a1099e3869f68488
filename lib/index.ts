export { type Backend, backends, threads, useBackend, useThreads } from "./backend.js";
export * from "./errors.js";
export { type Kernel, type KernelName, type KernelState, kernels, type RbfOptions } from "./kernels/index.js";
export {
  type LinearTokenLogProbsArgs,
  type LinearTokenLogProbsVjpArgs,
  linearTokenLogProbs,
  linearTokenLogProbsSync,
  linearTokenLogProbsVjp,
  linearTokenLogProbsVjpSync,
} from "./linear-token-log-probs.js";
export type { AsyncOptions } from "./native/operation.js";
export type { HeadGradients, LinearHead, LogitOptions, SequenceOptions, TokenLogProbs, TokenLogProbsOut } from "./native/shared-arguments.js";
export type * from "./objective/inputs.js";
export { DpoKernels, type Evaluation, type ObjectiveOptions, type ObjectiveState, type Step, type StepOut } from "./objective/objective.js";
export {
  type PairKernelArgs,
  type PairKernelGradients,
  type PairKernelOut,
  type PairKernelResult,
  pairKernel,
  pairKernelSync,
} from "./pair-kernel.js";
export {
  type Metrics,
  PREFERENCE_LOSSES,
  type PreferenceArgs,
  type PreferenceLossName,
  type PreferenceOptions,
  type PreferenceOut,
  type PreferenceResult,
  preferenceLoss,
  preferenceLossSync,
  REWARD_TRANSFORMS,
  type RewardTransformName,
} from "./preference.js";
export {
  type SequenceLogProbs,
  type SequenceLogProbsArgs,
  type SequenceLogProbsVjpArgs,
  sequenceLogProbs,
  sequenceLogProbsSync,
  sequenceLogProbsVjp,
  sequenceLogProbsVjpSync,
} from "./sequence-log-probs.js";
export { type DType, Tensor, type TensorData, tensor, type VectorInput, zeros } from "./tensor.js";
export {
  IGNORED_TARGET,
  type TokenLogProbsArgs,
  type TokenLogProbsVjpArgs,
  tokenLogProbs,
  tokenLogProbsSync,
  tokenLogProbsVjp,
  tokenLogProbsVjpSync,
} from "./token-log-probs.js";
