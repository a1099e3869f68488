/**
 * Reference for the preference losses (SPEC 2), every gradient written out by hand. Tensors of 2B numbers hold the B
 * chosen rows first, then the B rejected.
 *
 * Each loss sees per-side rewards r = β·score + γ·logKernel. Its batch loss is Σ wᵢ·ℓᵢ / B, with wᵢ = 1 unless per-pair
 * weights are given; `perPair` is ℓ, unweighted. A mix adds up its losses; its rewards are those of its first loss.
 */

import { at, logSigmoid, type Numbers, requireLength, sigmoid, sum } from "./numbers.js";

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
export type PreferenceLoss = (typeof PREFERENCE_LOSSES)[number];

export const REWARD_TRANSFORMS = ["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] as const;
export type RewardTransform = (typeof REWARD_TRANSFORMS)[number];

/** The losses that a transform other than reverse_kl may go with (it does nothing to the loss of sft). */
export const TRANSFORMABLE_LOSSES: ReadonlySet<PreferenceLoss> = new Set([
  "sigmoid",
  "sigmoid_norm",
  "hinge",
  "ipo",
  "exo_pair",
  "robust",
  "discopop",
  "sft",
]);

export interface PreferenceOptions {
  /** One loss, or the losses of a mix. */
  readonly loss: PreferenceLoss | readonly PreferenceLoss[];
  /** The weights of a mix; 1 each if left out. */
  readonly lossWeights?: readonly number[] | undefined;
  readonly beta: number;
  readonly gamma?: number | undefined;
  readonly transform?: RewardTransform | undefined;
  readonly transformAlpha?: number | undefined;
  readonly labelSmoothing?: number | undefined;
  readonly discopopTau?: number | undefined;
  readonly simpoGamma?: number | undefined;
  readonly cpoAlpha?: number | undefined;
  readonly bcoDelta?: number | undefined;
  readonly ktoKl?: number | undefined;
  readonly ktoDesirableWeight?: number | undefined;
  readonly ktoUndesirableWeight?: number | undefined;
}

export interface PreferenceInputs {
  /** [2B] sequence log-probabilities. */
  readonly policy: Numbers;
  /** [2B]; not needed by simpo, cpo, orpo, sft. */
  readonly reference?: Numbers | undefined;
  /** [2B] log k(prompt, answer); 0 if left out. */
  readonly logKernel?: Numbers | undefined;
  /** [2B]; needed by what works per token. */
  readonly tokenCounts?: Numbers | undefined;
  /** [B] per-pair weights; not with aot and aot_unpaired, whose losses belong to ranks, not pairs. */
  readonly weights?: Numbers | undefined;
}

export interface PreferenceResult {
  readonly loss: number;
  /** [B]; of aot and aot_unpaired by rank, the smallest first. */
  readonly perPair: Float64Array;
  /** [2B] */
  readonly gradPolicy: Float64Array;
  /** [2B] */
  readonly gradLogKernel: Float64Array;
  /** [2B] */
  readonly rewards: Float64Array;
}

export function preferenceLoss(inputs: PreferenceInputs, options: PreferenceOptions): PreferenceResult {
  const pairs = inputs.policy.length / 2;
  if (!Number.isInteger(pairs) || pairs === 0) throw new RangeError(`${inputs.policy.length} log-probs are no pairs`);
  const losses: readonly PreferenceLoss[] = typeof options.loss === "string" ? [options.loss] : options.loss;
  const mix = options.lossWeights ?? losses.map(() => 1);
  requireLength(mix, losses.length, "lossWeights");
  if (inputs.weights !== undefined) requireLength(inputs.weights, pairs, "weights");

  const perPair = new Float64Array(pairs);
  const gradPolicy = new Float64Array(2 * pairs);
  const gradLogKernel = new Float64Array(2 * pairs);
  losses.forEach((loss, k) => {
    const rule = new Rule(loss, inputs, options);
    const parts = rule.evaluate();
    for (let i = 0; i < pairs; i++) perPair[i] = at(perPair, i) + at(mix, k) * at(parts.perPair, i);
    for (let j = 0; j < 2 * pairs; j++) {
      const share = at(mix, k) * (inputs.weights === undefined ? 1 : at(inputs.weights, j % pairs));
      gradPolicy[j] = at(gradPolicy, j) + (share * at(parts.dPolicy, j)) / pairs;
      gradLogKernel[j] = at(gradLogKernel, j) + (share * at(parts.dLogKernel, j)) / pairs;
    }
  });
  const [first] = losses;
  if (first === undefined) throw new RangeError("a mix of no losses");
  const weighted = perPair.map((value, i) => value * (inputs.weights === undefined ? 1 : at(inputs.weights, i)));
  const { rewards } = new Rule(first, inputs, options);
  return { loss: sum(weighted) / pairs, perPair, gradPolicy, gradLogKernel, rewards };
}

/** A pair's loss as a function of its two rewards, with its two derivatives. */
interface PairLoss {
  readonly value: number;
  readonly dChosen: number;
  readonly dRejected: number;
}

/** Σ over pairs of the loss, differentiated; neither weighted nor divided by B. */
interface Parts {
  readonly perPair: Float64Array;
  readonly dPolicy: Float64Array;
  readonly dLogKernel: Float64Array;
}

/** One loss on one batch. */
class Rule {
  readonly rewards: Float64Array;
  /** d rewards[j] / d policy[j] */
  private readonly slopes: Float64Array;
  private readonly loss: PreferenceLoss;
  private readonly inputs: PreferenceInputs;
  private readonly options: PreferenceOptions;
  private readonly pairs: number;
  private readonly gamma: number;

  constructor(loss: PreferenceLoss, inputs: PreferenceInputs, options: PreferenceOptions) {
    this.loss = loss;
    this.inputs = inputs;
    this.options = options;
    this.pairs = inputs.policy.length / 2;
    this.gamma = options.gamma ?? 0;
    const { transform = "reverse_kl", beta } = options;
    if (transform !== "reverse_kl" && !TRANSFORMABLE_LOSSES.has(loss)) {
      throw new RangeError(`${loss} does not go with the transform ${transform}`);
    }
    const scores = Array.from(inputs.policy, (_, j) => this.score(j));
    this.rewards = Float64Array.from(scores, ({ value }, j) => beta * value + this.gamma * this.logKernel(j));
    this.slopes = Float64Array.from(scores, ({ slope }) => beta * slope);
  }

  evaluate(): Parts {
    const { loss, pairs } = this;
    if (loss === "aot" || loss === "aot_unpaired") return this.evaluateSorted(loss);

    const parts = this.noParts();
    const nll = this.nllWeight();
    const chosenTokens = nll === 0 ? 1 : sum(this.range(pairs, (i) => this.tokens(i)));
    for (let i = 0; i < pairs; i++) {
      const pair = this.pairLoss(i);
      const j = i + pairs;
      parts.perPair[i] = pair.value;
      parts.dPolicy[i] = pair.dChosen * this.policySlope(i);
      parts.dPolicy[j] = pair.dRejected * this.policySlope(j);
      parts.dLogKernel[i] = pair.dChosen * this.gamma;
      parts.dLogKernel[j] = pair.dRejected * this.gamma;
      if (nll !== 0) {
        // The token mean over the chosen of the batch, shared out over its pairs.
        const share = (nll * pairs) / chosenTokens;
        parts.perPair[i] = at(parts.perPair, i) - share * at(this.inputs.policy, i);
        parts.dPolicy[i] = at(parts.dPolicy, i) - share;
      }
    }
    return parts;
  }

  /** The loss of pair i, and its derivatives to the rewards (orpo: to the log-odds in their place). */
  private pairLoss(i: number): PairLoss {
    const { beta, labelSmoothing: epsilon = 0 } = this.options;
    const plus = at(this.rewards, i);
    const minus = at(this.rewards, i + this.pairs);
    const h = plus - minus;
    switch (this.loss) {
      case "sigmoid":
      case "sigmoid_norm":
      case "cpo":
        return ofMargin(smoothed(h, epsilon));
      case "simpo":
        return ofMargin(smoothed(h - this.required("simpoGamma"), epsilon));
      case "hinge":
        return ofMargin({ value: Math.max(0, 1 - h), slope: h < 1 ? -1 : 0 });
      case "ipo": {
        const off = h / beta - 1 / (2 * beta);
        return ofMargin({ value: off ** 2, slope: (2 * off) / beta });
      }
      case "exo_pair": {
        // KL of (σ(h), σ(−h)) from (1−ε, ε); its slope is σ(h)σ(−h)(h − ln((1−ε)/ε)).
        const [logClean, logFlipped] = [Math.log1p(-epsilon), Math.log(epsilon)];
        const value = sigmoid(h) * (logSigmoid(h) - logClean) + sigmoid(-h) * (logSigmoid(-h) - logFlipped);
        return ofMargin({ value, slope: sigmoid(h) * sigmoid(-h) * (h - logClean + logFlipped) });
      }
      case "nca_pair":
        return {
          value: -logSigmoid(plus) - logSigmoid(-plus) / 2 - logSigmoid(-minus) / 2,
          dChosen: -sigmoid(-plus) + sigmoid(plus) / 2,
          dRejected: sigmoid(minus) / 2,
        };
      case "robust": {
        const scale = 1 - 2 * epsilon;
        return ofMargin({
          value: (-(1 - epsilon) * logSigmoid(h) + epsilon * logSigmoid(-h)) / scale,
          slope: (-(1 - epsilon) * sigmoid(-h) - epsilon * sigmoid(h)) / scale,
        });
      }
      case "bco_pair": {
        const { bcoDelta: delta = 0 } = this.options;
        return {
          value: -logSigmoid(plus - delta) - logSigmoid(delta - minus),
          dChosen: -sigmoid(delta - plus),
          dRejected: sigmoid(minus - delta),
        };
      }
      case "sppo_hard": {
        const half = 1 / (2 * beta);
        const [offPlus, offMinus] = [plus / beta - half, minus / beta + half];
        return {
          value: offPlus ** 2 + offMinus ** 2,
          dChosen: (2 * offPlus) / beta,
          dRejected: (2 * offMinus) / beta,
        };
      }
      case "apo_zero":
        return {
          value: sigmoid(-plus) + sigmoid(minus),
          dChosen: -sigmoidSlope(plus),
          dRejected: sigmoidSlope(minus),
        };
      case "apo_down":
        return {
          value: sigmoid(plus) + sigmoid(-h),
          dChosen: sigmoidSlope(plus) - sigmoidSlope(h),
          dRejected: sigmoidSlope(h),
        };
      case "discopop":
        return ofMargin(discopop(h, this.options.discopopTau ?? 0.05));
      case "sft":
        return { value: 0, dChosen: 0, dRejected: 0 };
      case "linear":
        return { value: -h, dChosen: -1, dRejected: 1 };
      case "orpo": {
        const margin = this.logOdds(i) - this.logOdds(i + this.pairs) + this.gamma * (this.logKernel(i) - this.logKernel(i + this.pairs));
        return ofMargin({ value: -beta * logSigmoid(margin), slope: -beta * sigmoid(-margin) });
      }
      case "kto": {
        const { ktoKl = 0, ktoDesirableWeight = 1, ktoUndesirableWeight = 1 } = this.options;
        const level = beta * Math.max(0, ktoKl);
        return {
          value: (ktoDesirableWeight * sigmoid(level - plus) + ktoUndesirableWeight * sigmoid(minus - level)) / 2,
          dChosen: (-ktoDesirableWeight * sigmoidSlope(level - plus)) / 2,
          dRejected: (ktoUndesirableWeight * sigmoidSlope(minus - level)) / 2,
        };
      }
      default:
        throw new RangeError(`${this.loss} is no loss of a single pair`);
    }
  }

  /** aot sorts the margins of policy and reference, aot_unpaired the rewards of chosen and rejected. */
  private evaluateSorted(loss: "aot" | "aot_unpaired"): Parts {
    if (this.inputs.weights !== undefined) throw new RangeError(`${loss} takes no per-pair weights`);
    const { pairs } = this;
    const { beta, labelSmoothing: epsilon = 0 } = this.options;
    const parts = this.noParts();
    const pull = (side: number, slope: number): void => {
      parts.dPolicy[side] = at(parts.dPolicy, side) + slope * beta;
      parts.dLogKernel[side] = at(parts.dLogKernel, side) + slope * this.gamma;
    };
    if (loss === "aot_unpaired") {
      const chosen = this.range(pairs, (i) => at(this.rewards, i));
      const rejected = this.range(pairs, (i) => at(this.rewards, i + pairs));
      const [chosenOrder, rejectedOrder] = [ascending(chosen), ascending(rejected)];
      for (let rank = 0; rank < pairs; rank++) {
        const [i, j] = [at(chosenOrder, rank), at(rejectedOrder, rank)];
        const { value, slope } = smoothed(at(chosen, i) - at(rejected, j), epsilon);
        parts.perPair[rank] = value;
        pull(i, slope);
        pull(j + pairs, -slope);
      }
    } else {
      const ofPolicy = this.range(pairs, (i) => {
        const kernelMargin = this.logKernel(i) - this.logKernel(i + pairs);
        return beta * (at(this.inputs.policy, i) - at(this.inputs.policy, i + pairs)) + this.gamma * kernelMargin;
      });
      const ofReference = this.range(pairs, (i) => beta * (this.reference(i) - this.reference(i + pairs)));
      const [policyOrder, referenceOrder] = [ascending(ofPolicy), ascending(ofReference)];
      for (let rank = 0; rank < pairs; rank++) {
        const i = at(policyOrder, rank);
        const { value, slope } = smoothed(at(ofPolicy, i) - at(ofReference, at(referenceOrder, rank)), epsilon);
        parts.perPair[rank] = value;
        pull(i, slope);
        pull(i + pairs, -slope);
      }
    }
    return parts;
  }

  /** What β multiplies in the reward of side j, and its derivative to the policy's log-probability. */
  private score(j: number): { value: number; slope: number } {
    const logProb = at(this.inputs.policy, j);
    switch (this.loss) {
      case "cpo":
        return { value: logProb, slope: 1 };
      case "simpo":
      case "orpo":
        return { value: logProb / this.tokens(j), slope: 1 / this.tokens(j) };
      case "sft":
        // Its loss needs no reference; its rewards then are 0.
        return this.inputs.reference === undefined ? { value: 0, slope: 0 } : this.transformed(j);
      case "ipo":
      case "sigmoid_norm": {
        const { value, slope } = this.transformed(j);
        return { value: value / this.tokens(j), slope: slope / this.tokens(j) };
      }
      default:
        return this.transformed(j);
    }
  }

  /** φ(ρ) and φ′(ρ) of side j. */
  private transformed(j: number): { value: number; slope: number } {
    const rho = at(this.inputs.policy, j) - this.reference(j);
    switch (this.options.transform ?? "reverse_kl") {
      case "reverse_kl":
        return { value: rho, slope: 1 };
      case "forward_kl":
        return { value: -Math.exp(-rho), slope: Math.exp(-rho) };
      case "js_divergence":
        return { value: logSigmoid(rho), slope: sigmoid(-rho) };
      case "alpha_divergence": {
        const shift = this.required("transformAlpha") - 1;
        if (Math.abs(shift) < 1e-6) return { value: rho, slope: 1 };
        const power = Math.exp(Math.min(shift * rho, 80));
        return { value: power / shift, slope: shift * rho > 80 ? 0 : power };
      }
    }
  }

  /** How a derivative to what pairLoss works on becomes one to the policy's log-probability. */
  private policySlope(j: number): number {
    if (this.loss !== "orpo") return at(this.slopes, j);
    const mean = at(this.inputs.policy, j) / this.tokens(j);
    return -1 / Math.expm1(mean) / this.tokens(j); // d/da [a − ln(1 − eᵃ)] = 1/(1 − eᵃ)
  }

  /** ln(p/(1 − p)) of the answer's mean token probability. */
  private logOdds(j: number): number {
    const mean = at(this.inputs.policy, j) / this.tokens(j);
    return mean - Math.log(-Math.expm1(mean));
  }

  private nllWeight(): number {
    if (this.loss === "cpo") return this.options.cpoAlpha ?? 1;
    return this.loss === "orpo" || this.loss === "sft" ? 1 : 0;
  }

  private reference(j: number): number {
    if (this.inputs.reference === undefined) throw new RangeError(`${this.loss} needs reference log-probabilities`);
    return at(this.inputs.reference, j);
  }

  private logKernel(j: number): number {
    return this.inputs.logKernel === undefined ? 0 : at(this.inputs.logKernel, j);
  }

  private tokens(j: number): number {
    if (this.inputs.tokenCounts === undefined) throw new RangeError(`${this.loss} needs token counts`);
    return at(this.inputs.tokenCounts, j);
  }

  private required(name: "simpoGamma" | "transformAlpha"): number {
    const value = this.options[name];
    if (value === undefined) throw new RangeError(`${this.loss} needs ${name}`);
    return value;
  }

  private range(length: number, value: (index: number) => number): Float64Array {
    return Float64Array.from({ length }, (_, index) => value(index));
  }

  private noParts(): Parts {
    return {
      perPair: new Float64Array(this.pairs),
      dPolicy: new Float64Array(2 * this.pairs),
      dLogKernel: new Float64Array(2 * this.pairs),
    };
  }
}

interface OfMargin {
  readonly value: number;
  readonly slope: number;
}

function ofMargin({ value, slope }: OfMargin): PairLoss {
  return { value, dChosen: slope, dRejected: -slope };
}

function smoothed(h: number, epsilon: number): OfMargin {
  return {
    value: -(1 - epsilon) * logSigmoid(h) - epsilon * logSigmoid(-h),
    slope: -(1 - epsilon) * sigmoid(-h) + epsilon * sigmoid(h),
  };
}

function sigmoidSlope(x: number): number {
  return sigmoid(x) * sigmoid(-x);
}

/** −lnσ(h)(1−m) + e^{−h}m with m = σ(h/τ); e^{−h}m in one exponent, since neither factor alone need be finite. */
function discopop(h: number, tau: number): OfMargin {
  const m = sigmoid(h / tau);
  const rest = sigmoid(-h / tau);
  const exponential = Math.exp(logSigmoid(h / tau) - h);
  return {
    value: -logSigmoid(h) * rest + exponential,
    slope: -sigmoid(-h) * rest + (logSigmoid(h) * m * rest) / tau + exponential * (rest / tau - 1),
  };
}

/** The indices that sort values, the smallest first. */
function ascending(values: Float64Array): number[] {
  return Array.from(values.keys()).sort((i, j) => at(values, i) - at(values, j));
}
