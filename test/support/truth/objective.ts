/**
 * Reference for the objective: the references of its parts put together, for the arguments that DpoKernels takes itself. Token
 * log-probabilities, reduced by sequence, and log k go into the preference loss; its gradients are pulled back the same way.
 */

import {
  type Embeddings,
  type ObjectiveInputs,
  type ObjectiveOptions,
  type PolicyInput,
  type ReferenceInput,
  Tensor,
  type VectorInput,
} from "dpo-kernels";
import { valuesOf } from "../cases.js";
import { linearLogits, linearTokenLogProbsVjp } from "./linear-token-log-probs.js";
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
  pullBack(upstream: Float64Array): Record<string, Gradient>;
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
  return {
    loss: result.loss,
    losses: result.perPair,
    rewards: result.rewards,
    metrics: {
      loss: result.loss,
      ...rewardMetrics(result.rewards),
      ...sideMeans("logps", policy.logProbs),
      ...policy.metrics,
      ...kernel?.metrics,
    },
    policy: policy.pullBack(result.gradPolicy),
    ...(kernel?.pullBack(result.gradLogKernel) ?? { embeddings: {}, kernel: {} }),
    bco: running,
  };
}

function preferenceOptions({ kernel, temperature: _, softcap: __, ldAlpha: ___, memoryLimit: ____, ...given }: ObjectiveOptions): PreferenceOptions {
  const defaults = { loss: "sigmoid", beta: 0.1, gamma: kernel ? 0.25 : 0, simpoGamma: 0.5, transformAlpha: 0.5 } as const;
  return { ...defaults, ...given };
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
  const tokens = tokenLogProbs({ logits, targets, temperature, softcap });
  const reduction = { targets, offsets, ldAlpha };
  const { logProbs, counts } = reduceSequences({ logProbs: tokens.logProbs, ...reduction });
  return {
    logProbs,
    tokenCounts: counts,
    metrics: meanLogits(logits, targets, offsets),
    pullBack: (sequenceUpstream) => {
      const upstream = reduceSequencesVjp({ logProbs: tokens.logProbs, ...reduction, upstream: sequenceUpstream });
      if (head === undefined) {
        const { logits: values, termSums } = tokenLogProbsVjp({ logits, targets, upstream, temperature, softcap });
        return { logits: { values, termSums: termSums.logits } };
      }
      const { termSums, ...gradients } = linearTokenLogProbsVjp({ ...head, upstream, temperature, softcap });
      const keys = (["hidden", "weight", "bias"] as const).filter((key) => key !== "bias" || head.bias !== undefined);
      return Object.fromEntries(keys.map((key) => [key, { values: gradients[key], termSums: termSums[key] }]));
    },
  };
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
