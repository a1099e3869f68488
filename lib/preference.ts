import { OutOfRangeError, ShapeError } from "./errors.js";
import { describe, Frame } from "./native/frame.js";
import { operation, type Steps } from "./native/operation.js";
import { asTensor, resultDType, type Tensor, type VectorInput } from "./tensor.js";

/** In the order of PreferenceLoss in native/math/preference_losses.h. */
export const PREFERENCE_LOSSES = [
  "sigmoid",
  "sigmoid_norm",
  "hinge",
  "ipo",
  "exo_pair",
  "nca_pair",
  "robust",
  "bco_pair",
  "sppo_hard",
  "aot",
  "aot_unpaired",
  "apo_zero",
  "apo_down",
  "discopop",
  "sft",
  "linear",
  "simpo",
  "cpo",
  "orpo",
  "kto",
] as const;
export type PreferenceLossName = (typeof PREFERENCE_LOSSES)[number];

/** In the order of RewardTransform in native/math/reward_transforms.h. */
export const REWARD_TRANSFORMS = ["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] as const;
export type RewardTransformName = (typeof REWARD_TRANSFORMS)[number];

/** Options of the preference losses; names and defaults are TRL's where it has them. */
export interface PreferenceOptions {
  /** One loss, or several that are added with `lossWeights`. Default "sigmoid". */
  loss?: PreferenceLossName | readonly PreferenceLossName[];
  /** One weight per loss of a mix. Default: 1 each. */
  lossWeights?: readonly number[];
  /** f-DPO transform φ of the log-ratio ρ. Default "reverse_kl" (φ = ρ). */
  transform?: RewardTransformName;
  /** α of "alpha_divergence". Default 0.5. */
  transformAlpha?: number;
  /** Default 0.1. */
  beta?: number;
  /** Weight of log k(e_x, e_y) in the rewards. Default 0; needs logKernel when not 0. */
  gamma?: number;
  /** ε. Default 0. */
  labelSmoothing?: number;
  /** Default 0.05. */
  discopopTau?: number;
  /** Default 0.5. */
  simpoGamma?: number;
  /** Weight of the cross-entropy in "cpo". Default 1. */
  cpoAlpha?: number;
  /** δ of "bco_pair". Default 0. */
  bcoDelta?: number;
  /** KL estimate of "kto", from mismatched pairs; below 0 counts as 0. Default 0. */
  ktoKl?: number;
  /** Default 1. */
  ktoDesirableWeight?: number;
  /** Default 1. */
  ktoUndesirableWeight?: number;
}

export interface PreferenceArgs extends PreferenceOptions {
  /** [2B] f32 f64: log π(y|x) of the chosen sequences, then of the rejected. */
  policy: VectorInput;
  /** [2B]: log-probabilities under the reference model; not needed by sft, simpo, cpo, orpo. */
  reference?: VectorInput;
  /** [2B]: log k(e_x, e_y). */
  logKernel?: VectorInput;
  /** [2B] f64: tokens of each sequence; needed by sigmoid_norm, ipo, sft, simpo, cpo, orpo. */
  tokenCounts?: VectorInput;
  /** [B] f64: weight of each pair; the loss is Σ w·ℓ / B. Not with aot. */
  weights?: VectorInput;
  /** How many rewards `bcoDelta` already averages; then this batch is taken into it first, as TRL's BCOTrainer. Default: δ is a constant. */
  bcoCount?: number;
}

/** TRL's names. Rewards are r = β·φ(ρ) + γ·log k, of the first loss of a mix. */
export type Metrics = Record<string, number>;

export interface PreferenceResult {
  /** Mean over the pairs. */
  loss: number;
  /** [B]. */
  losses: Tensor;
  /** [2B]: r = β·φ(ρ) + γ·log k. */
  rewards: Tensor;
  /** Gradients of `loss`. */
  grads: { policy: Tensor; logKernel?: Tensor };
  metrics: Metrics;
  /** State of bco_pair after this batch. */
  bco: { delta: number; count: number };
}

/** The numeric options and their defaults, in the order of read_preference_options in native/addon/preference.cc. */
const NUMBERS = [
  ["transformAlpha", 0.5],
  ["beta", 0.1],
  ["gamma", 0],
  ["labelSmoothing", 0],
  ["discopopTau", 0.05],
  ["simpoGamma", 0.5],
  ["cpoAlpha", 1],
  ["bcoDelta", 0],
  ["bcoCount", -1],
  ["ktoKl", 0],
  ["ktoDesirableWeight", 1],
  ["ktoUndesirableWeight", 1],
] as const;

/** Places in the metrics array, as in native/core/preference.h. */
const METRIC_NAMES = [
  "loss",
  "rewards/chosen",
  "rewards/rejected",
  "rewards/margins",
  "rewards/accuracies",
  "logps/chosen",
  "logps/rejected",
  "kernel/logRatio",
  "kernel/accuracy",
] as const;
const BCO_DELTA = 9;
const BCO_COUNT = 10;
const METRIC_COUNT = 11;

function indexIn<Name extends string>(what: string, names: readonly Name[], name: Name): number {
  const index = names.indexOf(name);
  if (index < 0) throw new OutOfRangeError(`${what}: unknown name ${JSON.stringify(name)}; known are ${names.join(", ")}`);
  return index;
}

/** As DPO_MAX_LOSSES in native/core/preference.h. */
const MAX_LOSSES = 8;

/** The losses of a mix, and their weights. */
export function lossesOf({ loss = "sigmoid", lossWeights }: PreferenceOptions): { names: readonly PreferenceLossName[]; weights: readonly number[] } {
  const names = typeof loss === "string" ? [loss] : loss;
  if (!Array.isArray(names)) throw new OutOfRangeError(`loss: expected a name or a list of names, got ${describe(loss)}`);
  if (names.length < 1 || names.length > MAX_LOSSES) throw new OutOfRangeError(`loss: expected 1 to ${MAX_LOSSES} losses, got ${names.length}`);
  const weights = lossWeights ?? names.map(() => 1);
  if (!Array.isArray(weights)) throw new ShapeError(`lossWeights: expected a list of ${names.length} weights`);
  if (weights.length !== names.length) throw new ShapeError(`lossWeights: expected ${names.length} weights, got ${weights.length}`);
  return { names, weights };
}

function writeOptions(frame: Frame, args: PreferenceOptions & { bcoCount?: number }): void {
  const { names, weights } = lossesOf(args);
  frame.code(names.length);
  for (const [i, name] of names.entries()) frame.code(indexIn("loss", PREFERENCE_LOSSES, name)).number("lossWeights", weights[i] ?? 1);
  frame.code(indexIn("transform", REWARD_TRANSFORMS, args.transform ?? "reverse_kl"));
  for (const [name, fallback] of NUMBERS) frame.number(name, args[name] ?? fallback);
}

export interface PreferenceOut {
  out?: { losses?: Tensor; rewards?: Tensor; policy?: Tensor; logKernel?: Tensor };
}

function metricsOf(values: Float64Array, hasKernel: boolean): Metrics {
  const metrics: Metrics = {};
  METRIC_NAMES.forEach((name, i) => {
    if (hasKernel || !name.startsWith("kernel/")) metrics[name] = values[i] ?? Number.NaN;
  });
  return metrics;
}

/** Options and results of a preference call; returns how to read the results once it has run. */
export function writePreferenceResults(
  frame: Frame,
  args: PreferenceOptions & { bcoCount?: number; logKernel?: VectorInput },
  policy: Tensor,
  out: NonNullable<PreferenceOut["out"]> = {},
): () => PreferenceResult {
  writeOptions(frame, args);
  const dtype = resultDType(policy.dtype);
  const sequences = policy.size;
  const losses = frame.result("out.losses", dtype, [Math.max(1, Math.floor(sequences / 2))], out.losses);
  const rewards = frame.result("out.rewards", dtype, [sequences], out.rewards);
  const grads: PreferenceResult["grads"] = { policy: frame.result("out.policy", dtype, [sequences], out.policy, policy) };
  if (args.logKernel === undefined) frame.absent();
  else grads.logKernel = frame.result("out.logKernel", dtype, [sequences], out.logKernel, policy);
  const metrics = frame.result("metrics", "f64", [METRIC_COUNT]).data;
  return () => ({
    loss: metrics[0] ?? Number.NaN,
    losses,
    rewards,
    grads,
    metrics: metricsOf(metrics, args.logKernel !== undefined),
    bco: { delta: metrics[BCO_DELTA] ?? 0, count: metrics[BCO_COUNT] ?? -1 },
  });
}

export function* preferenceLossSteps(args: PreferenceArgs, { out }: PreferenceOut): Steps<PreferenceResult> {
  const policy = asTensor("policy", args.policy);
  const frame = new Frame("preference").input("policy", policy).optionalInput("reference", args.reference);
  frame.optionalInput("logKernel", args.logKernel).optionalInput("tokenCounts", args.tokenCounts).optionalInput("weights", args.weights);
  const read = writePreferenceResults(frame, args, policy, out);
  yield frame;
  return read();
}

const forward = operation(preferenceLossSteps);

/**
 * Preference loss of B pairs from sequence log-probabilities, with its gradients and metrics: `mean_i ℓ(r⁺, r⁻)`, r = β·φ(ρ) + γ·log k,
 * ρ = log π − log π_ref. Arithmetic in f64, results in the dtype of `policy`. For aot and aot_unpaired, losses[i] belongs to the sorted
 * comparison that holds the chosen answer of pair i.
 * @throws OutOfRangeError for options outside their range or a transform that does not go with a loss; ShapeError for a missing input;
 * NonFiniteError.
 */
export const preferenceLoss = forward.async;
/** preferenceLoss on this thread. */
export const preferenceLossSync = forward.sync;
