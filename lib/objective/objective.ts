import { type Divergence, type DivergenceState, divergenceFromState, divergenceState } from "../divergences/index.js";
import { DataError, DTypeError, NonFiniteError, OutOfRangeError } from "../errors.js";
import { checkKernel, type Kernel } from "../kernels/kernel.js";
import { type KernelState, kernelFromState, kernelState } from "../kernels/state.js";
import { linearTokenLogProbsSync } from "../linear-token-log-probs.js";
import { describe } from "../native/frame.js";
import { type AsyncOptions, compound, type Steps } from "../native/operation.js";
import { logKernelSteps, logKernelVjpSteps } from "../pair-kernel.js";
import { lossesOf, type Metrics, type PreferenceOptions, type PreferenceResult, preferenceLossSteps, preferenceLossSync } from "../preference.js";
import { sequenceLogProbsSync } from "../sequence-log-probs.js";
import { checkOut, Tensor } from "../tensor.js";
import { checkDivergenceTerm, type DivergenceTermOptions, divergenceTerm } from "./divergence-term.js";
import { fusedStep } from "./fused.js";
import { checkEmbeddings, type Embeddings, type ObjectiveInputs, type PolicyGradients, type PolicyInput } from "./inputs.js";
import type { BatchDivergence, KernelTerm, PolicyOut, PolicyStep, PulledBack } from "./parts.js";
import { isHidden, type Sequences, type SourceOptions, sequencesOf } from "./sequence-source.js";

export interface ObjectiveOptions extends PreferenceOptions, SourceOptions, DivergenceTermOptions {
  /** Kernel of the hybrid term γ·(log k(e_x, e_+) − log k(e_x, e_−)). Default: none, which is plain DPO. */
  kernel?: Kernel;
  /** Weight of the kernel term. Default 0.25 with a kernel. */
  gamma?: number;
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
  /** mean_i ℓ(r⁺, r⁻) + α·D. */
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
}

/** The memory that a step reads: the batch, and the tensors that the divergence may hold. */
interface StepInputs {
  inputs: ObjectiveInputs;
  divergence: Divergence | undefined;
}

/**
 * The DPO-Kernels objective: `mean_i ℓ(r⁺, r⁻) + α·D`, r = β·φ(log π − log π_ref) + γ·log k(e_x, e_y), D the mean over the counted tokens of a divergence
 * between policy and reference, with its gradients to the policy, the embeddings and the kernel's parameters from one call.
 */
export class DpoKernels {
  readonly #options: PlainOptions;
  readonly #faces = {
    lossAndGrad: compound(({ inputs }: StepInputs, options: StepOut) => this.#lossAndGrad(inputs, options)),
    loss: compound(({ inputs }: StepInputs, _: { out?: never }) => this.#loss(inputs)),
  };
  readonly #kernel: Kernel | undefined;
  readonly #divergence: Divergence | undefined;
  #bco: { delta: number; count: number };
  #steps = 0;

  /** @throws OutOfRangeError for options outside their range, or that do not go together. */
  constructor({ kernel, divergence, ...options }: ObjectiveOptions = {}) {
    const gamma = options.gamma ?? (kernel ? 0.25 : 0);
    const alpha = options.alpha ?? (divergence ? 0.05 : 0);
    if (!kernel && gamma !== 0) throw new OutOfRangeError("gamma: needs a kernel");
    if (kernel) checkKernel(kernel);
    checkDivergenceTerm(divergence, { ...options, alpha });
    this.#options = structuredClone({ ...options, gamma, alpha });
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

  /** The trainable parameters by name. Writing to their data changes the objective. */
  parameters(): Readonly<Record<string, Tensor<"f64">>> {
    return this.#kernel?.parameters ?? {};
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
    this.#remember(result);
    return { ...this.#evaluationOf(result, meanLogits, divergence), grads: { policy: grads, ...kernelGrads } };
  }

  *#loss(inputs: ObjectiveInputs): Steps<Evaluation> {
    checkPolicy(inputs.policy);
    const kernel = yield* this.#kernelTerm(inputs.embeddings);
    const reference = yield* this.#reference(inputs);
    const { result, meanLogits, evaluate } = yield* this.#separateStep(inputs, reference, kernel, {});
    return this.#evaluationOf(result, meanLogits, evaluate && (yield* evaluate));
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

  *#kernelTerm(embeddings: Embeddings | undefined): Steps<KernelTerm | undefined> {
    const kernel = this.#kernel;
    if (kernel === undefined) return undefined;
    checkEmbeddings(embeddings);
    // Views of our own: the caller may dispose of the tensors while the step is under way.
    const [prompt, chosen, rejected] = [embeddings.prompt, embeddings.chosen, embeddings.rejected].map((side) => side.reshape(side.shape)) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    const { logK } = yield* namingEmbeddings(logKernelSteps(prompt, [chosen, rejected], kernel));
    return {
      logKernel: logK.reshape([logK.size]),
      *pullBack(upstream, out) {
        const grads = yield* logKernelVjpSteps(
          prompt,
          [chosen, rejected],
          kernel,
          { logK: upstream.reshape(logK.shape) },
          {
            u: out.prompt,
            sides: [out.chosen, out.rejected],
          },
        );
        const [gradChosen, gradRejected] = grads.sides as [Tensor, Tensor];
        return { embeddings: { prompt: grads.u, chosen: gradChosen, rejected: gradRejected }, kernel: grads.params };
      },
    };
  }

  #evaluationOf(
    { loss, losses, rewards, metrics }: PreferenceResult,
    meanLogits: PolicyStep["meanLogits"],
    divergence: BatchDivergence | undefined,
  ): Evaluation {
    const logits = meanLogits && { "logits/chosen": meanLogits.chosen, "logits/rejected": meanLogits.rejected };
    const { alpha } = this.#options;
    const total = divergence && alpha ? loss + alpha * divergence.value : loss; // α = 0 leaves out a D that is infinite
    return { loss: total, losses, rewards, metrics: { ...metrics, loss: total, ...logits, ...divergence?.metrics } };
  }

  #remember(result: PreferenceResult): void {
    this.#steps += 1;
    if (result.bco.count >= 0) this.#bco = result.bco;
  }
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
  if (version !== 1 || !plain || !whole || !Number.isFinite(bco.delta)) throw new DataError("unknown version, or parts that are missing");
  for (const [name, value] of Object.entries(options)) {
    if (value === null) throw new DataError(`options.${name}: is null`);
  }
}

/** What pairKernel calls its arguments, as the objective does. */
const EMBEDDING_NAMES: Record<string, string> = { u: "embeddings.prompt", v: "embeddings.chosen", "v[1]": "embeddings.rejected" };

/** Runs the steps and gives their errors the names of the embeddings. */
function* namingEmbeddings<Result>(steps: Steps<Result>): Steps<Result> {
  try {
    return yield* steps;
  } catch (error) {
    if (!(error instanceof NonFiniteError || error instanceof OutOfRangeError)) throw error;
    const message = error.message.replace(/^(u|v\[1\]|v):/, (_, name: string) => `${EMBEDDING_NAMES[name]}:`);
    const ErrorClass = error instanceof NonFiniteError ? NonFiniteError : OutOfRangeError;
    throw new ErrorClass(message, { index: error.index, cause: error });
  }
}

/** Before anything is computed: the policy's gradients are written before those of the embeddings, and both or neither must be. */
function checkEmbeddingsOut(embeddings: Embeddings | undefined, out: Partial<Embeddings> | undefined): void {
  checkEmbeddings(embeddings);
  if (out === undefined) return;
  for (const side of ["prompt", "chosen", "rejected"] as const) {
    checkOut(`out.embeddings.${side}`, out[side], embeddings[side].dtype, embeddings[side].shape);
  }
}
