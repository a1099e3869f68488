import { type Divergence, type DivergenceState, divergenceFromState, divergenceState } from "../divergences/index.js";
import { DataError, DTypeError, OutOfRangeError } from "../errors.js";
import { fitKernelSteps } from "../kernels/fit-kernel.js";
import { checkKernel, type Kernel, type KernelParameters } from "../kernels/kernel.js";
import { type KernelState, kernelFromState, kernelState } from "../kernels/state.js";
import { treeOf } from "../kernels/write-kernel.js";
import { linearTokenLogProbsSync } from "../linear-token-log-probs.js";
import { describe } from "../native/frame.js";
import { type AsyncOptions, compound, type Steps } from "../native/operation.js";
import { pairKernelSync } from "../pair-kernel.js";
import { lossesOf, type Metrics, type PreferenceOptions, type PreferenceResult, preferenceLossSteps, preferenceLossSync } from "../preference.js";
import { sequenceLogProbsSync } from "../sequence-log-probs.js";
import { Tensor } from "../tensor.js";
import { CollapseWatch } from "./collapse.js";
import { checkDivergenceTerm, type DivergenceTermOptions, divergenceTerm } from "./divergence-term.js";
import { fusedStep } from "./fused.js";
import { checkEmbeddings, type Embeddings, type ObjectiveInputs, type PolicyGradients, type PolicyInput } from "./inputs.js";
import { checkEmbeddingsOut, kernelTerm } from "./kernel-term.js";
import type { BatchDivergence, KernelTerm, PolicyOut, PolicyStep, PulledBack } from "./parts.js";
import { isHidden, type Sequences, type SourceOptions, sequencesOf } from "./sequence-source.js";

export interface ObjectiveOptions extends PreferenceOptions, SourceOptions, DivergenceTermOptions {
  /** Kernel of the hybrid term γ·(log k(e_x, e_+) − log k(e_x, e_−)). Default: none, which is plain DPO. */
  kernel?: Kernel;
  /** Weight of the kernel term. Default 0.25 with a kernel. */
  gamma?: number;
  /** η of −η·Σ H, H the entropy of each group of a mixture of kernels: keeps its weights from collapsing. Default 0.01 with a mixture. */
  entropyWeight?: number;
  /** Divergence of the policy from the reference in the term α·D. Policy and reference are then { logits } both, or { hidden } both. Default: none. */
  divergence?: Divergence;
}

/** The options that are plain numbers and names. */
type PlainOptions = Omit<ObjectiveOptions, "kernel" | "divergence">;

/** Tensors to write gradients to; others are made. */
export interface StepOut {
  out?: { policy?: PolicyOut; embeddings?: Partial<Embeddings> };
}

export interface Step {
  /** mean_i ℓ(r⁺, r⁻) + α·D − η·Σ H. */
  loss: number;
  /** [B]: ℓ(r⁺, r⁻) of each pair. */
  losses: Tensor;
  /** [2B]. */
  rewards: Tensor;
  metrics: Metrics;
  grads: {
    policy: PolicyGradients;
    /** Present when the objective has a kernel. */
    embeddings?: Embeddings;
    /** By parameter name, as parameters(). */
    kernel?: Record<string, Tensor<"f64">>;
  };
}

/** Loss and metrics without gradients. */
export type Evaluation = Omit<Step, "grads">;

/** What state() returns: plain JSON. */
export interface ObjectiveState {
  version: 1;
  options: PlainOptions;
  kernel?: KernelState;
  divergence?: DivergenceState;
  bco: { delta: number; count: number };
  steps: number;
  /** For how many steps in a row each group of a mixture has been close to collapse. */
  lowSteps?: Record<string, number>;
}

/** The memory that a step reads: the batch, and the tensors that the divergence may hold. */
interface StepInputs {
  inputs: ObjectiveInputs;
  divergence: Divergence | undefined;
}

/**
 * The DPO-Kernels objective: `mean_i ℓ(r⁺, r⁻) + α·D − η·Σ H`, r = β·φ(log π − log π_ref) + γ·log k(e_x, e_y), D the mean over the counted tokens of a divergence
 * between policy and reference, H the entropy of a group of a mixture of kernels, with its gradients to the policy, the embeddings and the kernel's parameters from one call.
 */
export class DpoKernels {
  readonly #options: PlainOptions;
  readonly #faces = {
    lossAndGrad: compound(({ inputs }: StepInputs, options: StepOut) => this.#lossAndGrad(inputs, options)),
    loss: compound(({ inputs }: StepInputs, _: { out?: never }) => this.#loss(inputs)),
    fit: compound((embeddings: Embeddings, _: { out?: never }) => this.#fit(embeddings)),
  };
  #kernel: Kernel | undefined;
  readonly #divergence: Divergence | undefined;
  #bco: { delta: number; count: number };
  #steps = 0;
  #watch = new CollapseWatch();

  /** @throws OutOfRangeError for options outside their range, or that do not go together. */
  constructor({ kernel, divergence, ...options }: ObjectiveOptions = {}) {
    const gamma = options.gamma ?? (kernel ? 0.25 : 0);
    const alpha = options.alpha ?? (divergence ? 0.05 : 0);
    if (!kernel && gamma !== 0) throw new OutOfRangeError("gamma: needs a kernel");
    if (kernel) checkKernel(kernel);
    const entropyWeight = options.entropyWeight ?? (kernel?.name === "mixture" ? 0.01 : 0);
    checkEntropyWeight(entropyWeight, kernel);
    checkDivergenceTerm(divergence, { ...options, alpha });
    this.#options = structuredClone({ ...options, gamma, alpha, entropyWeight });
    this.#kernel = kernel;
    this.#divergence = divergence && Object.freeze({ ...divergence });
    this.#bco = { delta: options.bcoDelta ?? 0, count: 0 };
    this.#checkOptions();
  }

  /** Loss, gradients and metrics of a batch. Also takes the batch's rewards into bco_pair's running mean. */
  lossAndGrad(inputs: ObjectiveInputs, options: StepOut & AsyncOptions = {}): Promise<Step> {
    return this.#faces.lossAndGrad.async(this.#stepInputs(inputs), options);
  }

  /** lossAndGrad on this thread. */
  lossAndGradSync(inputs: ObjectiveInputs, options: StepOut = {}): Step {
    return this.#faces.lossAndGrad.sync(this.#stepInputs(inputs), options);
  }

  /** Loss and metrics of a batch, as for evaluation: no gradients, and the objective's state stays. */
  loss(inputs: ObjectiveInputs, options: AsyncOptions = {}): Promise<Evaluation> {
    return this.#faces.loss.async(this.#stepInputs(inputs), options);
  }

  /** loss on this thread. */
  lossSync(inputs: ObjectiveInputs): Evaluation {
    return this.#faces.loss.sync(this.#stepInputs(inputs));
  }

  /**
   * The trainable parameters by name. Writing to their data changes the objective. A kernel that takes parts of itself from data, as hmk() does, has all of
   * its parameters after fit() or the first batch.
   */
  parameters(): KernelParameters {
    return this.#kernel?.parameters ?? {};
  }

  /** The kernel, with what it has taken from data. */
  get kernel(): Kernel | undefined {
    return this.#kernel;
  }

  /** Takes the data-dependent parts of the kernel (median bandwidth, landmarks, …) from these embeddings instead of the first batch's. */
  async fit(embeddings: Embeddings, options: AsyncOptions = {}): Promise<void> {
    await this.#faces.fit.async(embeddings, options);
  }

  /** fit on this thread. */
  fitSync(embeddings: Embeddings): void {
    this.#faces.fit.sync(embeddings);
  }

  /**
   * All that fromState needs to go on from here, as plain JSON.
   * @throws DataError when the divergence holds functions or tensors, which JSON cannot.
   */
  state(): ObjectiveState {
    return {
      version: 1,
      options: structuredClone(this.#options),
      ...(this.#kernel && { kernel: kernelState(this.#kernel) }),
      ...(this.#divergence && { divergence: divergenceState(this.#divergence) }),
      bco: { ...this.#bco },
      steps: this.#steps,
      ...(this.#kernel?.name === "mixture" && { lowSteps: this.#watch.state() }),
    };
  }

  /** @throws DataError when this is not what state() returned. */
  static fromState(state: ObjectiveState): DpoKernels {
    try {
      checkState(state);
      const objective = new DpoKernels({
        ...state.options,
        ...(state.kernel && { kernel: kernelFromState(state.kernel) }),
        ...(state.divergence && { divergence: divergenceFromState(state.divergence) }),
      });
      objective.#bco = { delta: state.bco.delta, count: state.bco.count };
      objective.#steps = state.steps;
      objective.#watch = new CollapseWatch(state.lowSteps);
      return objective;
    } catch (cause) {
      throw new DataError("not a state of DpoKernels that this package reads", { cause });
    }
  }

  #stepInputs(inputs: ObjectiveInputs): StepInputs {
    return { inputs, divergence: this.#divergence };
  }

  /** Runs the options through the native checks on one made-up pair, so that bad ones show here and not in the first step. */
  #checkOptions(): void {
    const { temperature, softcap, memoryLimit, ldAlpha } = this.#options;
    const one = new Tensor(Float64Array.of(1), [1, 1], "f64");
    linearTokenLogProbsSync({ ...defined({ temperature, softcap, memoryLimit }), hidden: one, weight: one, targets: Int32Array.of(0) });
    const [targets, offsets] = [Int32Array.of(0, 0), Int32Array.of(0, 1, 2)];
    sequenceLogProbsSync({ ...defined({ ldAlpha }), logProbs: Float64Array.of(-1, -1), targets, offsets });
    const ones = Float64Array.of(-1, -1);
    if (this.#kernel) checkMembers(this.#kernel);
    const kernel = this.#kernel ? { logKernel: ones } : {};
    preferenceLossSync({ ...this.#preferenceOptions(), policy: ones, reference: ones, tokenCounts: Float64Array.of(1, 1), ...kernel });
  }

  #preferenceOptions(): PreferenceOptions & { bcoCount?: number } {
    const running = lossesOf(this.#options).names.includes("bco_pair");
    return running ? { ...this.#options, bcoDelta: this.#bco.delta, bcoCount: this.#bco.count } : this.#options;
  }

  *#lossAndGrad(inputs: ObjectiveInputs, { out = {} }: StepOut): Steps<Step> {
    const { policy, embeddings } = inputs;
    checkPolicy(policy);
    if (this.#kernel) checkEmbeddingsOut(embeddings, out.embeddings);
    const kernel = yield* this.#kernelTerm(embeddings);
    const reference = yield* this.#reference(inputs);
    const fused =
      isHidden(policy) && !this.#divergence
        ? yield* fusedStep(policy, { reference, kernel, weights: inputs.weights }, this.#preferenceOptions(), this.#options, out.policy ?? {})
        : undefined;
    const { result, meanLogits, pullBack } = fused ?? (yield* this.#separateStep(inputs, reference, kernel, out.policy ?? {}));
    const { grads, divergence } = yield* pullBack;
    const upstream = result.grads.logKernel;
    const kernelGrads = kernel && upstream ? yield* kernel.pullBack(upstream, out.embeddings ?? {}) : {};
    this.#remember(result, kernel);
    return { ...this.#evaluationOf(result, meanLogits, divergence, kernel), grads: { policy: grads, ...kernelGrads } };
  }

  *#loss(inputs: ObjectiveInputs): Steps<Evaluation> {
    checkPolicy(inputs.policy);
    const kernel = yield* this.#kernelTerm(inputs.embeddings);
    const reference = yield* this.#reference(inputs);
    const { result, meanLogits, evaluate } = yield* this.#separateStep(inputs, reference, kernel, {});
    return this.#evaluationOf(result, meanLogits, evaluate && (yield* evaluate), kernel);
  }

  /** Log-probabilities, then the preference loss, then the pull-back: each a pass of its own. */
  *#separateStep(inputs: ObjectiveInputs, reference: Sequences | undefined, kernel: KernelTerm | undefined, out: PolicyOut): Steps<PolicyStep> {
    const sequences = yield* sequencesOf("policy", inputs.policy, this.#options);
    const tokenCounts = sequences.tokenCounts;
    const result = yield* preferenceLossSteps(
      {
        ...this.#preferenceOptions(),
        policy: sequences.logProbs,
        ...(reference && { reference: reference.logProbs }),
        ...(kernel && { logKernel: kernel.logKernel }),
        ...(tokenCounts && { tokenCounts }),
        ...(inputs.weights && { weights: inputs.weights }),
      },
      {},
    );
    const upstream = result.grads.policy;
    const divergence = this.#divergence;
    const term = divergence && divergenceTerm({ policy: inputs.policy, sequences, reference, divergence, options: this.#options });
    return {
      result,
      meanLogits: sequences.meanLogits,
      evaluate: term?.evaluate(),
      pullBack: term ? term.pullBack(upstream, out) : gradientsOf(sequences.pullBack(upstream, out)),
    };
  }

  *#reference({ policy, reference }: ObjectiveInputs): Steps<Sequences | undefined> {
    if (reference === undefined) return undefined;
    return yield* sequencesOf("reference", reference, this.#options, "targets" in policy ? policy : {});
  }

  /** The kernel term of a batch. A kernel with parts to be taken from data takes them from the first batch there is. */
  *#kernelTerm(embeddings: Embeddings | undefined): Steps<KernelTerm | undefined> {
    if (this.#kernel === undefined) return undefined;
    checkEmbeddings(embeddings);
    yield* this.#fit(embeddings);
    return yield* kernelTerm(this.#kernel, embeddings, this.#options.entropyWeight ?? 0);
  }

  *#fit(embeddings: Embeddings): Steps<void> {
    if (this.#kernel === undefined || this.#kernel.fitted) return;
    const fitted = yield* fitKernelSteps({ kernel: this.#kernel, embeddings }, {});
    if (!this.#kernel.fitted) this.#kernel = fitted; // another step may have been faster
  }

  #evaluationOf(
    { loss, losses, rewards, metrics }: PreferenceResult,
    meanLogits: PolicyStep["meanLogits"],
    divergence: BatchDivergence | undefined,
    kernel: KernelTerm | undefined,
  ): Evaluation {
    const logits = meanLogits && { "logits/chosen": meanLogits.chosen, "logits/rejected": meanLogits.rejected };
    const { alpha } = this.#options;
    const penalty = divergence && alpha ? alpha * divergence.value : 0; // α = 0 leaves out a D that is infinite
    const total = loss + penalty + (kernel?.regularizer ?? 0);
    const collapsed = this.#kernel?.name === "mixture" && { "hmk/collapsed": this.#watch.collapsed };
    return {
      loss: total,
      losses,
      rewards,
      metrics: { ...metrics, loss: total, ...logits, ...divergence?.metrics, ...kernel?.metrics, ...collapsed },
    };
  }

  #remember(result: PreferenceResult, kernel: KernelTerm | undefined): void {
    this.#steps += 1;
    if (this.#kernel && kernel) this.#watch.observe(this.#kernel, kernel.effectiveNumbers);
    if (result.bco.count >= 0) this.#bco = result.bco;
  }
}

/** Runs every kernel that can be evaluated on one made-up pair. */
function checkMembers(kernel: Kernel): void {
  for (const { kernel: member } of treeOf(kernel).members) {
    if (!member.fitted) continue;
    const width = member.width ?? 1;
    const ones = new Tensor(new Float64Array(width).fill(1), [1, width], "f64");
    pairKernelSync({ u: ones, v: ones, kernel: member });
  }
}

function checkEntropyWeight(weight: number, kernel: Kernel | undefined): void {
  if (!Number.isFinite(weight) || weight < 0)
    throw new OutOfRangeError(`entropyWeight: expected a finite number of at least 0, got ${describe(weight)}`);
  if (weight !== 0 && kernel?.name !== "mixture") throw new OutOfRangeError("entropyWeight: needs a mixture of kernels");
}

function* gradientsOf(pullBack: Steps<PolicyGradients>): Steps<PulledBack> {
  return { grads: yield* pullBack };
}

/** The options that are given. */
function defined<Options extends object>(options: Options): { [Name in keyof Options]?: Exclude<Options[Name], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as { [Name in keyof Options]?: never };
}

function checkPolicy(policy: PolicyInput): void {
  if (typeof policy !== "object" || policy === null) throw new DTypeError(`policy: expected an object, got ${describe(policy)}`);
}

function checkState(state: ObjectiveState): void {
  const { version, options, bco, steps } = state;
  const whole = Number.isSafeInteger(bco.count) && bco.count >= 0 && Number.isSafeInteger(steps) && steps >= 0;
  const plain = typeof options === "object" && options !== null && !Array.isArray(options);
  const counts = Object.values(state.lowSteps ?? {});
  if (!counts.every((count) => Number.isSafeInteger(count) && count >= 0)) throw new DataError("lowSteps: expected counts");
  if (version !== 1 || !plain || !whole || !Number.isFinite(bco.delta)) throw new DataError("unknown version, or parts that are missing");
  for (const [name, value] of Object.entries(options)) {
    if (value === null) throw new DataError(`options.${name}: is null`);
  }
}
