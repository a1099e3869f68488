export { AdamW, type AdamWOptions, type AdamWState } from "./adamw.js";
export { type Backend, backends, threads, useBackend, useThreads } from "./backend.js";
export {
  type CovarianceArgs,
  type CovarianceMethod,
  type CovarianceResult,
  covariance,
  covarianceSync,
  type GaussianNoiseScaleArgs,
  gaussianNoiseScale,
  gaussianNoiseScaleSync,
  type Neighbours,
  type PrivacyOptions,
  type PrivacySpent,
} from "./covariance.js";
export { fromDLPack, toDLPack } from "./device.js";
export {
  type DivergenceArgs,
  type DivergenceOptions,
  type DivergenceOut,
  type DivergenceReduction,
  type DivergenceResult,
  divergence,
  divergenceSync,
} from "./divergence.js";
export {
  type CostWassersteinOptions,
  type Divergence,
  type DivergenceName,
  type DivergenceState,
  divergences,
  type EmbeddingWassersteinOptions,
  type GeneratorName,
  type GeneratorOptions,
  type OrderedWassersteinOptions,
  type TransportMetric,
  type TransportOptions,
} from "./divergences/index.js";
export * from "./errors.js";
export { type FeatureError, type FeatureErrorArgs, featureError, featureErrorSync } from "./feature-error.js";
export {
  type GramAccuracy,
  type GramGradients,
  type GramOut,
  type GramReduceArgs,
  type GramReduceGradients,
  type GramReduceOut,
  type GramReduceVjpArgs,
  type GramReduceVjpOut,
  type GramRows,
  type GramVjpArgs,
  type GramVjpOut,
  gram,
  gramReduce,
  gramReduceSync,
  gramReduceVjp,
  gramReduceVjpSync,
  gramSync,
  gramVjp,
  gramVjpSync,
} from "./gram.js";
export { type FitKernelArgs, fitKernel, fitKernelSync } from "./kernels/fit-kernel.js";
export {
  type Bandwidth,
  type DiagonalOptions,
  type FloorOptions,
  FormulaKernel,
  type FormulaName,
  type HmkOptions,
  type Kernel,
  type KernelFeatures,
  type KernelFit,
  type KernelName,
  type KernelOptions,
  type KernelParameters,
  kernels,
  type LandmarkMethod,
  type LaplacianOptions,
  type MahalanobisOptions,
  type MaternOptions,
  MixtureKernel,
  type MixtureOptions,
  type PolynomialOptions,
  type RationalQuadraticOptions,
  type RbfMixtureOptions,
  type RbfOptions,
  type SpectralOptions,
  type WaveletOptions,
} from "./kernels/index.js";
export type { KernelState } from "./kernels/state.js";
export {
  type CholeskyArgs,
  type CholeskyOut,
  type CholeskyResult,
  type CholeskyVjpArgs,
  cholesky,
  choleskySync,
  choleskyVjp,
  choleskyVjpSync,
  type Eigh,
  type EighArgs,
  type EighOut,
  type EighVjpArgs,
  eigh,
  eighSync,
  eighVjp,
  eighVjpSync,
  type MatrixGradient,
  type MatrixGradientOut,
  type SolveTriangularArgs,
  type SolveTriangularOut,
  type SolveTriangularVjpArgs,
  type SolveTriangularVjpOut,
  solveTriangular,
  solveTriangularSync,
  solveTriangularVjp,
  solveTriangularVjpSync,
  type TriangularGradients,
  type TriangularOptions,
} from "./linear-algebra.js";
export {
  type LinearDivergenceArgs,
  type LinearDivergenceOut,
  type LinearDivergenceResult,
  linearDivergence,
  linearDivergenceSync,
} from "./linear-divergence.js";
export {
  type LinearTokenLogProbsArgs,
  type LinearTokenLogProbsVjpArgs,
  linearTokenLogProbs,
  linearTokenLogProbsSync,
  linearTokenLogProbsVjp,
  linearTokenLogProbsVjpSync,
} from "./linear-token-log-probs.js";
export { type MmdArgs, type MmdEstimator, type MmdResult, mmd, mmdSync } from "./mmd.js";
export type { AsyncOptions } from "./native/operation.js";
export type { HeadGradients, LinearHead, LogitOptions, SequenceOptions, TokenLogProbs, TokenLogProbsOut } from "./native/shared-arguments.js";
export {
  type FeaturesOut,
  type FeaturesVjpArgs,
  type FeaturesVjpOut,
  type NystromArgs,
  type NystromFeatures,
  nystrom,
  nystromSync,
} from "./nystrom.js";
export type { DivergenceTermOptions } from "./objective/divergence-term.js";
export type * from "./objective/inputs.js";
export { DpoKernels, type Evaluation, type ObjectiveOptions, type ObjectiveState, type Step, type StepOut } from "./objective/objective.js";
export {
  type MixtureDiagnostics,
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
  RandomFeatures,
  type RandomFeaturesArgs,
  type RandomFeaturesGradients,
  randomFeatures,
  randomFeaturesSync,
} from "./random-features.js";
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
