import { DataError, OutOfRangeError, ShapeError } from "../errors.js";
import { type Kernel, type KernelState, kernelFromState, kernelState } from "../kernels/index.js";
import { type AsyncOptions, runSteps, type Steps, startSteps } from "../native/operation.js";
import type { HeadGradients } from "../native/shared-arguments.js";
import { logKernelSteps, logKernelVjpSteps } from "../pair-kernel.js";
import { lossesOf, type Metrics, type PreferenceOptions, type PreferenceResult, preferenceLossSteps } from "../preference.js";
import { checkOut, type Tensor } from "../tensor.js";
import { fusedStep } from "./fused.js";
import type { Embeddings, ObjectiveInputs, PolicyGradients } from "./inputs.js";
import type { KernelTerm, PolicyStep } from "./parts.js";
import { isHidden, type Sequences, type SourceOptions, sequencesOf } from "./sequence-source.js";

export interface ObjectiveOptions extends PreferenceOptions, SourceOptions {
  /** Kernel of the hybrid term γ·(log k(e_x, e_+) − log k(e_x, e_−)). Default: none, which is plain DPO. */
  kernel?: Kernel;
  /** Weight of the kernel term. Default 0.25 with a kernel. */
  gamma?: number;
}

/** Tensors to write gradients to; others are made. */
export interface StepOut {
  out?: { policy?: Partial<HeadGradients> & { logits?: Tensor; logProbs?: Tensor }; embeddings?: Partial<Embeddings> };
}

export interface Step {
  /** mean_i ℓ(r⁺, r⁻). */
  loss: number;
  /** [B]. */
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
  options: Omit<ObjectiveOptions, "kernel">;
  kernel?: KernelState;
  bco: { delta: number; count: number };
  steps: number;
}

/**
 * The DPO-Kernels objective: `mean_i ℓ(r⁺, r⁻)`, r = β·φ(log π − log π_ref) + γ·log k(e_x, e_y), with its gradients to the policy, the embeddings and the
 * kernel's parameters from one call.
 */
export class DpoKernels {
  readonly #options: Omit<ObjectiveOptions, "kernel">;
  readonly #kernel: Kernel | undefined;
  #bco: { delta: number; count: number };
  #steps = 0;

  /** @throws OutOfRangeError for options outside their range, or that do not go together. */
  constructor({ kernel, ...options }: ObjectiveOptions = {}) {
    const gamma = options.gamma ?? (kernel ? 0.25 : 0);
    if (!kernel && gamma !== 0) throw new OutOfRangeError("gamma: needs a kernel");
    this.#options = { ...options, gamma };
    this.#kernel = kernel;
    this.#bco = { delta: options.bcoDelta ?? 0, count: 0 };
    this.#checkOptions();
  }

  /** Loss, gradients and metrics of a batch. Also takes the batch's rewards into bco_pair's running mean. */
  lossAndGrad(inputs: ObjectiveInputs, options: StepOut & AsyncOptions = {}): Promise<Step> {
    return startSteps(this.#lossAndGrad(inputs, options), options);
  }

  /** lossAndGrad on this thread. */
  lossAndGradSync(inputs: ObjectiveInputs, options: StepOut = {}): Step {
    return runSteps(this.#lossAndGrad(inputs, options));
  }

  /** Loss and metrics of a batch, as for evaluation: no gradients, and the objective's state stays. */
  loss(inputs: ObjectiveInputs, options: AsyncOptions = {}): Promise<Evaluation> {
    return startSteps(this.#loss(inputs), options);
  }

  /** loss on this thread. */
  lossSync(inputs: ObjectiveInputs): Evaluation {
    return runSteps(this.#loss(inputs));
  }

  /** The trainable parameters by name. Writing to their data changes the objective. */
  parameters(): Readonly<Record<string, Tensor<"f64">>> {
    return this.#kernel?.parameters ?? {};
  }

  /** All that fromState needs to go on from here, as plain JSON. */
  state(): ObjectiveState {
    return {
      version: 1,
      options: this.#options,
      ...(this.#kernel && { kernel: kernelState(this.#kernel) }),
      bco: { ...this.#bco },
      steps: this.#steps,
    };
  }

  /** @throws DataError when this is not what state() returned. */
  static fromState(state: ObjectiveState): DpoKernels {
    if (state?.version !== 1 || typeof state.options !== "object" || typeof state.bco?.delta !== "number") {
      throw new DataError("not a state of DpoKernels of a version that this package reads");
    }
    const objective = new DpoKernels({ ...state.options, ...(state.kernel && { kernel: kernelFromState(state.kernel) }) });
    objective.#bco = { ...state.bco };
    objective.#steps = state.steps;
    return objective;
  }

  /** Runs the options through the native checks on one made-up pair, so that bad ones show here and not in the first step. */
  #checkOptions(): void {
    const ones = Float64Array.of(-1, -1);
    const kernel = this.#kernel ? { logKernel: ones } : {};
    runSteps(preferenceLossSteps({ ...this.#preferenceOptions(), policy: ones, reference: ones, tokenCounts: Float64Array.of(1, 1), ...kernel }, {}));
  }

  #preferenceOptions(): PreferenceOptions & { bcoCount?: number } {
    const running = lossesOf(this.#options).names.includes("bco_pair");
    return running ? { ...this.#options, bcoDelta: this.#bco.delta, bcoCount: this.#bco.count } : this.#options;
  }

  *#lossAndGrad(inputs: ObjectiveInputs, { out = {} }: StepOut): Steps<Step> {
    const { policy, embeddings } = inputs;
    checkEmbeddingsOut(embeddings, out.embeddings);
    const kernel = yield* this.#kernelTerm(embeddings);
    const reference = yield* this.#reference(inputs);
    const fused = isHidden(policy)
      ? yield* fusedStep(policy, { reference, kernel, weights: inputs.weights }, this.#preferenceOptions(), this.#options, out.policy ?? {})
      : undefined;
    const { result, meanLogits, pullBack } = fused ?? (yield* this.#separateStep(inputs, reference, kernel, out.policy ?? {}));
    const policyGrads = yield* pullBack;
    const upstream = result.grads.logKernel;
    const kernelGrads = kernel && upstream ? yield* kernel.pullBack(upstream, out.embeddings ?? {}) : {};
    this.#remember(result);
    return { ...evaluationOf(result, meanLogits), grads: { policy: policyGrads, ...kernelGrads } };
  }

  *#loss(inputs: ObjectiveInputs): Steps<Evaluation> {
    const kernel = yield* this.#kernelTerm(inputs.embeddings);
    const reference = yield* this.#reference(inputs);
    const { result, meanLogits } = yield* this.#separateStep(inputs, reference, kernel, {});
    return evaluationOf(result, meanLogits);
  }

  /** Log-probabilities, then the preference loss, then the pull-back: each a pass of its own. */
  *#separateStep(
    inputs: ObjectiveInputs,
    reference: Sequences | undefined,
    kernel: KernelTerm | undefined,
    out: NonNullable<NonNullable<StepOut["out"]>["policy"]>,
  ): Steps<PolicyStep> {
    const sequences = yield* sequencesOf(inputs.policy, this.#options);
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
    return { result, meanLogits: sequences.meanLogits, pullBack: sequences.pullBack(result.grads.policy, out) };
  }

  *#reference({ policy, reference }: ObjectiveInputs): Steps<Sequences | undefined> {
    if (reference === undefined) return undefined;
    return yield* sequencesOf(reference, this.#options, "targets" in policy ? policy : {});
  }

  *#kernelTerm(embeddings: Embeddings | undefined): Steps<KernelTerm | undefined> {
    const kernel = this.#kernel;
    if (kernel === undefined) return undefined;
    if (embeddings === undefined) throw new ShapeError("embeddings: are missing, and the objective has a kernel");
    const { prompt, chosen, rejected } = embeddings;
    const logK = yield* logKernelSteps(prompt, [chosen, rejected], kernel);
    return {
      logKernel: logK.reshape([logK.size]),
      *pullBack(upstream, out) {
        const grads = yield* logKernelVjpSteps(prompt, [chosen, rejected], kernel, upstream.reshape(logK.shape), {
          u: out.prompt,
          sides: [out.chosen, out.rejected],
        });
        const [gradChosen, gradRejected] = grads.sides as [Tensor, Tensor];
        return { embeddings: { prompt: grads.u, chosen: gradChosen, rejected: gradRejected }, kernel: grads.params };
      },
    };
  }

  #remember(result: PreferenceResult): void {
    this.#steps += 1;
    if (result.bco.count >= 0) this.#bco = result.bco;
  }
}

function evaluationOf({ loss, losses, rewards, metrics }: PreferenceResult, meanLogits: PolicyStep["meanLogits"]): Evaluation {
  const logits = meanLogits ? { "logits/chosen": meanLogits.chosen, "logits/rejected": meanLogits.rejected } : {};
  return { loss, losses, rewards, metrics: { ...metrics, ...logits } };
}

/** Before anything is computed: the policy's gradients are written before those of the embeddings, and both or neither must be. */
function checkEmbeddingsOut(embeddings: Embeddings | undefined, out: Partial<Embeddings> | undefined): void {
  if (embeddings === undefined || out === undefined) return;
  for (const side of ["prompt", "chosen", "rejected"] as const) {
    checkOut(`out.embeddings.${side}`, out[side], embeddings[side].dtype, embeddings[side].shape);
  }
}
