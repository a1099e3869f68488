import * as tf from "@tensorflow/tfjs-core";
import { AdamW, type Divergence, DpoKernels, fitKernelSync, type Kernel, kernels, type ReferenceInput } from "dpo-kernels";
import { type Batch, pad, padPairs, type TokenPair } from "./batch.js";
import { type KernelGradients, type Metrics, preferenceLoss, supervisedLoss } from "./dpo.js";
import { embed, meanDivergence, medianDistance, type PairScore, pool, Reference, type Reward, type Summary, score, summarize } from "./evaluate.js";
import { Model, type Weights } from "./model.js";
import type { KernelChoice } from "./options.js";
import { batches, seeded } from "./random.js";

const SUPERVISED = { batch: 16, rate: 3e-3 } as const;
const PREFERENCE = { batch: 8, rate: 2e-4 } as const;
const KERNEL_RATE = 1e-2;
const ADAM = { beta1: 0.9, beta2: 0.98 } as const;
/** Held-out pairs on which the curves are drawn; the tables use all of them. */
const CURVE_PAIRS = 48;
const CURVE_POINTS = 10;
const BANDWIDTH_PAIRS = 256;
/** Whose embeddings the mixture of kernels is fitted to. */
const FIT_PAIRS = 64;

/** One way of training on preferences; gamma 0 is plain DPO. */
export interface Arm extends Reward {
  readonly name: string;
  /** Of policy and reference, added to the loss with weight alpha. */
  readonly divergence?: Divergence;
  readonly alpha?: number;
}

export interface CurvePoint extends Summary {
  readonly step: number;
}

export interface ArmResult {
  readonly arm: Arm;
  readonly losses: readonly number[];
  readonly metrics: readonly Metrics[];
  readonly curve: readonly CurvePoint[];
  readonly before: Summary;
  readonly after: Summary;
  /** The run's divergence from the reference, over the tokens of the held-out answers, after training. */
  readonly divergence: number | undefined;
  /** Mean time of one training step, without the reference and the measuring in between. */
  readonly stepSeconds: number;
}

/** Everything that the arms share. */
export interface Ground {
  readonly training: readonly TokenPair[];
  readonly heldOut: readonly TokenPair[];
  /** Weights after the supervised phase: the reference, and where every arm starts. */
  readonly weights: Weights;
  readonly reference: Reference;
  readonly heldOutReference: readonly PairScore[];
  /** Makes the kernel that a hybrid arm starts with; all arms are measured by their own. */
  readonly makeKernel: () => Kernel;
  readonly trainsKernel: boolean;
  /** Bandwidth of the rbf kernel. */
  readonly sigma: number;
  /** By which all arms are measured. */
  readonly divergence: Divergence | undefined;
}

interface Schedule {
  readonly steps: number;
  readonly seed: number;
}

interface Step {
  readonly loss: number;
  readonly metrics: Metrics;
}

export type OnStep = (loss: number) => void;

function optimizerWithRate(rate: number): tf.Optimizer {
  return tf.train.adam(rate, ADAM.beta1, ADAM.beta2);
}

function minimize(optimizer: tf.Optimizer, model: Model, loss: () => tf.Scalar): number {
  const cost = optimizer.minimize(loss, true, model.variables);
  if (cost === null) throw new Error("the optimizer returned no loss");
  const value = cost.dataSync<"float32">()[0] ?? Number.NaN;
  cost.dispose();
  if (!Number.isFinite(value)) throw new Error("the loss is not finite");
  return value;
}

/** Teaches the model to write the chosen answers. */
export function trainSupervised(model: Model, pairs: readonly TokenPair[], { steps, seed }: Schedule, onStep: OnStep): number[] {
  const optimizer = optimizerWithRate(SUPERVISED.rate);
  const next = batches(pairs, SUPERVISED.batch, seeded(seed));
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const batch = pad(next.next().value.map((pair) => pair.chosen));
    losses.push(minimize(optimizer, model, () => supervisedLoss(model.hidden(batch), model.head, batch)));
    onStep(losses.at(-1) ?? Number.NaN);
  }
  optimizer.dispose();
  return losses;
}

/** What the arms are to be made of. */
interface Plan {
  readonly kernel: KernelChoice;
  readonly divergence: Divergence | undefined;
}

/** Freezes the supervised model as the reference, and takes the kernel's bandwidth, or all that it takes from data, from what it makes of some pairs. */
export function layGround(model: Model, training: readonly TokenPair[], heldOut: readonly TokenPair[], { kernel, divergence }: Plan): Ground {
  const weights = model.weights();
  const reference = new Reference(weights, training, kernels.rbf({ sigma: 1 }));
  const sample = [...training.keys()].slice(0, BANDWIDTH_PAIRS);
  const sigma = medianDistance(reference.scores(sample));
  const embeddings = kernel === "hmk" ? embed(model, training.slice(0, FIT_PAIRS)) : undefined;
  const makeKernel = () => (embeddings ? fitKernelSync({ kernel: kernels.hmk(), embeddings }) : kernels.rbf({ sigma }));
  const heldOutReference = score(model, heldOut, makeKernel());
  return { training, heldOut, makeKernel, trainsKernel: kernel === "hmk", sigma, divergence, weights, reference, heldOutReference };
}

function objectiveOf({ beta, gamma, divergence, alpha = 0 }: Arm, kernel: Kernel): DpoKernels {
  return new DpoKernels({ loss: "sigmoid", beta, ...(gamma > 0 && { kernel, gamma }), ...(divergence && { divergence, alpha }) });
}

/** What the frozen model says of a batch: hidden states where the arm has a divergence, which is one of all words, else log-probabilities. */
function frozenFor({ divergence }: Arm, { reference }: Ground, indices: readonly number[], batch: Batch): ReferenceInput {
  if (divergence !== undefined) return reference.head(batch);
  const scores = reference.scores(indices);
  return { logProbs: Float32Array.from([...scores.map((of) => of.chosen), ...scores.map((of) => of.rejected)]) };
}

/** What it takes to train one arm: a function that learns from some pairs, given what the frozen model says of them. */
function learner(model: Model, { trainsKernel }: Ground, arm: Arm, kernel: Kernel) {
  const objective = objectiveOf(arm, kernel);
  const optimizer = optimizerWithRate(PREFERENCE.rate);
  const kernelOptimizer = new AdamW({ learningRate: KERNEL_RATE });
  const learn = (pairs: readonly TokenPair[], batch: Batch, reference: ReferenceInput): Step => {
    let metrics: Metrics = {};
    let kernelGradients: KernelGradients;
    const loss = minimize(optimizer, model, () => {
      const hidden = model.hidden(batch);
      const embeddings = arm.gamma > 0 ? pool(hidden, pairs, batch.length) : undefined;
      return preferenceLoss(objective, { hidden, head: model.head, embeddings, batch, reference }, (step) => {
        metrics = step.metrics;
        kernelGradients = step.grads.kernel;
      });
    });
    if (trainsKernel && arm.gamma > 0) kernelOptimizer.step(objective.parameters(), kernelGradients);
    return { loss, metrics };
  };
  return { learn, dispose: () => optimizer.dispose() };
}

/** Trains one arm from the common ground; the same seed gives the same batches to every arm. */
export function trainArm(ground: Ground, arm: Arm, { steps, seed }: Schedule, onStep: OnStep): ArmResult {
  const model = Model.from(ground.weights);
  const kernel = ground.makeKernel();
  const measure = (count: number) => summarize(score(model, ground.heldOut.slice(0, count), kernel), ground.heldOutReference, arm);
  const before = summarize(ground.heldOutReference, ground.heldOutReference, arm);
  const curve: CurvePoint[] = [{ step: 0, ...measure(CURVE_PAIRS) }];
  const taken: Step[] = [];
  const { learn, dispose } = learner(model, ground, arm, kernel);
  const next = batches([...ground.training.keys()], PREFERENCE.batch, seeded(seed));
  const every = Math.ceil(steps / CURVE_POINTS);
  let milliseconds = 0;
  for (let step = 1; step <= steps; step++) {
    const indices = next.next().value;
    const pairs = indices.map((index) => ground.training[index] as TokenPair);
    const batch = padPairs(pairs);
    const frozen = frozenFor(arm, ground, indices, batch);
    const started = performance.now();
    const one = learn(pairs, batch, frozen);
    milliseconds += performance.now() - started;
    taken.push(one);
    if (step % every === 0 || step === steps) curve.push({ step, ...measure(CURVE_PAIRS) });
    onStep(one.loss);
  }
  const after = measure(ground.heldOut.length);
  const divergence = ground.divergence && meanDivergence(model, ground.reference, ground.heldOut, ground.divergence);
  dispose();
  model.dispose();
  const stepSeconds = milliseconds / 1000 / steps;
  return {
    arm,
    curve,
    before,
    after,
    divergence,
    stepSeconds,
    losses: taken.map((one) => one.loss),
    metrics: taken.map((one) => one.metrics),
  };
}
