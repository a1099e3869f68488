/**
 * Reference for the objective: the references of its parts put together, for the arguments that DpoKernels takes itself. Token
 * log-probabilities, reduced by sequence, and log k go into the preference loss; its gradients are pulled back the same way. To it
 * α·D is added, D a mean over tokens of the divergence of policy and reference.
 */

import {
  type Divergence,
  type Embeddings,
  type ObjectiveInputs,
  type ObjectiveOptions,
  type PolicyInput,
  type ReferenceInput,
  Tensor,
  type VectorInput,
} from "dpo-kernels";
import { valuesOf } from "../cases.js";
import { type DivergenceSpec, divergenceTruth } from "./divergences.js";
import { type LinearTokenLogProbsInputs, linearLogits, linearLogitTerms, linearPullBack } from "./linear-token-log-probs.js";
import { at, IGNORED_TARGET, type Numbers, row, sum } from "./numbers.js";
import { rbfLogKernel, rbfLogKernelVjp } from "./pair-kernel.js";
import { type PreferenceOptions, preferenceLoss } from "./preference.js";
import { reduceSequences, reduceSequencesVjp } from "./sequences.js";
import { tokenLogProbs, tokenLogProbsVjp } from "./token-log-probs.js";

export interface Gradient {
  readonly values: Float64Array;
  /** Σ|terms|, for the bound of SPEC 9. */
  readonly termSums: Float64Array;
}

export interface BcoState {
  readonly delta: number;
  readonly count: number;
}

export interface ObjectiveTruth {
  readonly loss: number;
  /** [B]; of aot and aot_unpaired by rank. */
  readonly losses: Float64Array;
  /** [2B] */
  readonly rewards: Float64Array;
  readonly metrics: Readonly<Record<string, number>>;
  /** logProbs | logits | hidden, weight, bias. */
  readonly policy: Readonly<Record<string, Gradient>>;
  /** prompt, chosen, rejected. */
  readonly embeddings: Readonly<Record<string, Gradient>>;
  /** sigma. */
  readonly kernel: Readonly<Record<string, Gradient>>;
  readonly bco: BcoState;
}

/** Sequence log-probabilities of one model, and the way back. */
interface Sequences {
  readonly logProbs: Float64Array;
  readonly tokenCounts: Numbers | undefined;
  readonly metrics: Readonly<Record<string, number>>;
  /** Undefined of log-probabilities that were given. */
  readonly tokens?: Tokens;
  pullBack(upstream: Float64Array): Record<string, Gradient>;
}

/** The tokens that sequence log-probabilities were made of. */
interface Tokens {
  /** [N, V] */
  readonly logits: Float64Array;
  /** Their Σ|terms|, where they were computed. */
  readonly logitTerms: Float64Array | undefined;
  readonly targets: Numbers;
  readonly offsets: Numbers;
  /** The gradient in each token's log-probability from that in each sequence's. */
  upstream(ofSequences: Float64Array): Numbers;
  /** The gradients of what was given from those of the logits. */
  pullBackLogits(gradient: Gradient): Record<string, Gradient>;
}

/** `bco` is the running mean before this step; it is used when the loss is bco_pair. */
export function objectiveTruth(inputs: ObjectiveInputs, options: ObjectiveOptions = {}, bco: BcoState = { delta: 0, count: 0 }): ObjectiveTruth {
  const policy = sequencesOf(inputs.policy, options, {});
  const reference = inputs.reference && sequencesOf(inputs.reference, options, "targets" in inputs.policy ? inputs.policy : {});
  const kernel = kernelOf(inputs.embeddings, options);
  const preferenceInputs = {
    policy: policy.logProbs,
    reference: reference?.logProbs,
    logKernel: kernel?.logKernel,
    tokenCounts: policy.tokenCounts,
    weights: inputs.weights && numbersOf(inputs.weights),
  };
  const settled: PreferenceOptions = { ...preferenceOptions(options), bcoDelta: bco.delta };
  const { rewards } = preferenceLoss(preferenceInputs, { ...settled, loss: firstLoss(settled), lossWeights: undefined });
  const seen = bco.count + rewards.length;
  const running = settled.loss === "bco_pair" ? { delta: (bco.delta * bco.count + sum(rewards)) / seen, count: seen } : bco;
  const result = preferenceLoss(preferenceInputs, { ...settled, bcoDelta: running.delta });
  const divergence = options.divergence && divergenceOf(options.divergence, policy.tokens, reference?.tokens, options);
  const loss = divergence === undefined ? result.loss : result.loss + divergence.alpha * divergence.value;
  return {
    loss,
    losses: result.perPair,
    rewards: result.rewards,
    metrics: {
      loss,
      ...rewardMetrics(result.rewards),
      ...sideMeans("logps", policy.logProbs),
      ...policy.metrics,
      ...kernel?.metrics,
      ...divergence?.metrics,
    },
    policy: divergence === undefined ? policy.pullBack(result.gradPolicy) : divergence.pullBack(result.gradPolicy),
    ...(kernel?.pullBack(result.gradLogKernel) ?? { embeddings: {}, kernel: {} }),
    bco: running,
  };
}

function preferenceOptions(options: ObjectiveOptions): PreferenceOptions {
  const { kernel, temperature: _, softcap: __, ldAlpha: ___, memoryLimit: ____, divergence: _____, ...given } = options;
  const { alpha: _a, over: _o, contrast: _c, ...preference } = given;
  const defaults = { loss: "sigmoid", beta: 0.1, gamma: kernel ? 0.25 : 0, simpoGamma: 0.5, transformAlpha: 0.5 } as const;
  return { ...defaults, ...preference };
}

function firstLoss({ loss }: PreferenceOptions): Extract<PreferenceOptions["loss"], string> {
  if (typeof loss === "string") return loss;
  const [first] = loss;
  if (first === undefined) throw new RangeError("a mix of no losses");
  return first;
}

function sequencesOf(
  input: PolicyInput | ReferenceInput,
  options: ObjectiveOptions,
  layout: { targets?: VectorInput; offsets?: VectorInput },
): Sequences {
  if ("logProbs" in input) {
    return {
      logProbs: numbersOf(input.logProbs),
      tokenCounts: input.tokenCounts && numbersOf(input.tokenCounts),
      metrics: {},
      pullBack: (upstream) => ({ logProbs: { values: upstream, termSums: upstream.map(Math.abs) } }),
    };
  }
  const main = "logits" in input ? input.logits : input.hidden;
  const targets = numbersOf(given(input.targets ?? layout.targets));
  const offsets = main.shape.length === 3 ? paddedOffsets(main) : numbersOf(given(input.offsets ?? layout.offsets));
  const { temperature, softcap, ldAlpha } = options;
  const width = main.shape.at(-1) ?? 0;
  const head = "logits" in input ? undefined : headOf(input, targets, width);
  const logits = head === undefined ? valuesOf(main) : linearLogits(head);
  const logitTerms = head && linearLogitTerms(head);
  const { logProbs: ofTokens } = tokenLogProbs({ logits, targets, temperature, softcap });
  const reduction = { targets, offsets, ldAlpha };
  const { logProbs, counts } = reduceSequences({ logProbs: ofTokens, ...reduction });
  const tokens: Tokens = {
    logits,
    logitTerms,
    targets,
    offsets,
    upstream: (ofSequences) => reduceSequencesVjp({ logProbs: ofTokens, ...reduction, upstream: ofSequences }),
    pullBackLogits: (gradient) => (head === undefined ? { logits: gradient } : headGradients(head, gradient)),
  };
  return {
    logProbs,
    tokenCounts: counts,
    metrics: meanLogits(logits, targets, offsets),
    tokens,
    pullBack: (upstream) => {
      const gradient = tokenLogProbsVjp({ logits, targets, upstream: tokens.upstream(upstream), logitTerms, temperature, softcap });
      return tokens.pullBackLogits({ values: gradient.logits, termSums: gradient.termSums.logits });
    },
  };
}

function headGradients(head: LinearTokenLogProbsInputs, { values, termSums }: Gradient): Record<string, Gradient> {
  const gradients = linearPullBack(head, values, termSums);
  const keys = (["hidden", "weight", "bias"] as const).filter((key) => key !== "bias" || head.bias !== undefined);
  return Object.fromEntries(keys.map((key) => [key, { values: gradients[key], termSums: gradients.termSums[key] }]));
}

/** D and its metrics, and the policy's gradients of α·D and of the preference loss together. */
function divergenceOf(kind: Divergence, policy: Tokens | undefined, reference: Tokens | undefined, options: ObjectiveOptions) {
  if (policy === undefined || reference === undefined) throw new RangeError("a divergence needs the tokens of both sides");
  const { alpha = 0.05, over = "both", contrast = false, temperature, softcap } = options;
  const rows = policy.targets.length;
  const inputs = {
    spec: specOf(kind),
    policy: policy.logits,
    reference: reference.logits,
    policyTerms: policy.logitTerms,
    referenceTerms: reference.logitTerms,
    rows,
    targets: policy.targets,
    temperature,
    softcap,
  };
  const { values } = divergenceTruth(inputs);
  const middle = at(policy.offsets, (policy.offsets.length - 1) / 2);
  const sideOf = (row: number) => (row < middle ? "chosen" : "rejected");
  const counted = Array.from(values, (_, row) => row).filter((row) => at(policy.targets, row) !== IGNORED_TARGET);
  const within = counted.filter((row) => over === "both" || over === sideOf(row));
  const mean = (some: readonly number[]) => sum(some.map((row) => at(values, row))) / Math.max(1, some.length);
  const side = (name: string) => within.filter((row) => sideOf(row) === name);
  const means = { chosen: mean(side("chosen")), rejected: mean(side("rejected")) };
  const value = contrast ? means.chosen - means.rejected : mean(within);
  const upstream = new Float64Array(rows);
  for (const row of within) {
    const share = contrast ? (row < middle ? 1 : -1) / side(sideOf(row)).length : 1 / within.length;
    upstream[row] = alpha * share;
  }
  return {
    alpha,
    value,
    metrics: {
      divergence: value,
      ...(over !== "rejected" && { "divergence/chosen": means.chosen }),
      ...(over !== "chosen" && { "divergence/rejected": means.rejected }),
    },
    pullBack: (ofSequences: Float64Array) => {
      const { gradPolicy, termSums } = divergenceTruth({ ...inputs, upstream, targetUpstream: policy.upstream(ofSequences) });
      return policy.pullBackLogits({ values: gradPolicy, termSums });
    },
  };
}

/** The reference formula of a kind. */
function specOf(kind: Divergence): DivergenceSpec {
  if (kind.name === "f" && "generator" in kind) {
    const { generator, alpha, beta } = kind;
    if (generator === "alpha") return { name: generator, alpha: alpha ?? Number.NaN };
    return generator === "js" ? { name: generator, beta: beta ?? 0.5 } : { name: generator };
  }
  if (kind.name === "wasserstein" && "method" in kind) {
    if (!("cost" in kind)) throw new RangeError("the cost of embeddings is taken where transport is tested");
    return { name: "transport", cost: valuesOf(kind.cost), epsilon: kind.epsilon, debias: kind.debias };
  }
  return kind;
}

function headOf(input: { hidden: Tensor; weight: Tensor; bias?: Tensor }, targets: Numbers, width: number) {
  return { hidden: valuesOf(input.hidden), weight: valuesOf(input.weight), bias: input.bias && valuesOf(input.bias), targets, width };
}

function paddedOffsets({ shape: [sequences = 0, length = 0] }: Tensor): Float64Array {
  return Float64Array.from({ length: sequences + 1 }, (_, s) => s * length);
}

/** Mean of all logits of each side's counted tokens. */
function meanLogits(logits: Numbers, targets: Numbers, offsets: Numbers): Record<string, number> {
  const words = logits.length / targets.length;
  const middle = at(offsets, (offsets.length - 1) / 2);
  const mean = (begin: number, end: number): number => {
    let [total, count] = [0, 0];
    for (let token = begin; token < end; token++) {
      if (at(targets, token) === IGNORED_TARGET) continue;
      total += sum(row(logits, token, words)) / words;
      count++;
    }
    return total / Math.max(1, count);
  };
  return { "logits/chosen": mean(0, middle), "logits/rejected": mean(middle, targets.length) };
}

function kernelOf(embeddings: Embeddings | undefined, { kernel }: ObjectiveOptions) {
  if (kernel === undefined || embeddings === undefined) return undefined;
  const width = embeddings.prompt.shape[1] ?? 0;
  const { prompt, chosen, rejected } = {
    prompt: valuesOf(embeddings.prompt),
    chosen: valuesOf(embeddings.chosen),
    rejected: valuesOf(embeddings.rejected),
  };
  const shared = { width, sigma: kernel.parameters.sigma?.data[0] ?? Number.NaN, normalize: kernel.normalize };
  const logKernel = Float64Array.of(...rbfLogKernel({ u: prompt, v: chosen, ...shared }), ...rbfLogKernel({ u: prompt, v: rejected, ...shared }));
  const pairs = logKernel.length / 2;
  const ratios = Float64Array.from({ length: pairs }, (_, i) => at(logKernel, i) - at(logKernel, i + pairs));
  return {
    logKernel,
    metrics: { "kernel/logRatio": sum(ratios) / pairs, "kernel/accuracy": ratios.filter((ratio) => ratio > 0).length / pairs },
    pullBack: (upstream: Float64Array): Pick<ObjectiveTruth, "embeddings" | "kernel"> => {
      const won = rbfLogKernelVjp({ u: prompt, v: chosen, ...shared, upstream: upstream.subarray(0, pairs) });
      const lost = rbfLogKernelVjp({ u: prompt, v: rejected, ...shared, upstream: upstream.subarray(pairs) });
      return {
        embeddings: {
          prompt: { values: added(won.u, lost.u), termSums: added(won.termSums.u, lost.termSums.u) },
          chosen: { values: won.v, termSums: won.termSums.v },
          rejected: { values: lost.v, termSums: lost.termSums.v },
        },
        kernel: {
          sigma: { values: Float64Array.of(won.sigma + lost.sigma), termSums: Float64Array.of(won.termSums.sigma + lost.termSums.sigma) },
        },
      };
    },
  };
}

function rewardMetrics(rewards: Float64Array): Record<string, number> {
  const pairs = rewards.length / 2;
  const margins = Float64Array.from({ length: pairs }, (_, i) => at(rewards, i) - at(rewards, i + pairs));
  return {
    ...sideMeans("rewards", rewards),
    "rewards/margins": sum(margins) / pairs,
    "rewards/accuracies": margins.filter((margin) => margin > 0).length / pairs,
  };
}

function sideMeans(name: string, values: Float64Array): Record<string, number> {
  const pairs = values.length / 2;
  return { [`${name}/chosen`]: sum(values.subarray(0, pairs)) / pairs, [`${name}/rejected`]: sum(values.subarray(pairs)) / pairs };
}

function added(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value + at(b, i));
}

function given(value: VectorInput | undefined): VectorInput {
  if (value === undefined) throw new RangeError("neither the input nor the policy has targets and offsets");
  return value;
}

function numbersOf(value: VectorInput): Float64Array {
  return value instanceof Tensor ? valuesOf(value) : Float64Array.from(value);
}
