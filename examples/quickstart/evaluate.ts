import * as tf from "@tensorflow/tfjs-core";
import {
  type Divergence,
  IGNORED_TARGET,
  type Kernel,
  type LinearHead,
  linearDivergenceSync,
  linearTokenLogProbsSync,
  type Embeddings as NativeEmbeddings,
  pairKernelSync,
  sequenceLogProbsSync,
  type Tensor,
} from "dpo-kernels";
import { type Batch, padPairs, poolingMatrix, type TokenPair } from "./batch.js";
import { type Embeddings, toNative } from "./dpo.js";
import { Model, type Weights } from "./model.js";

const BATCH = 8;

/** What a model says of one pair. */
export interface PairScore {
  readonly chosen: number;
  readonly rejected: number;
  readonly chosenTokens: number;
  readonly rejectedTokens: number;
  /** log k of the prompt with each answer, on pooled hidden states. */
  readonly chosenKernel: number;
  readonly rejectedKernel: number;
}

/** How an arm turns scores into rewards. */
export interface Reward {
  readonly beta: number;
  readonly gamma: number;
}

/** Figures over a set of pairs; accuracies count a tie as one half. */
export interface Summary {
  readonly pairs: number;
  readonly accuracy: number;
  readonly margin: number;
  readonly loss: number;
  readonly policyAccuracy: number;
  readonly policyMargin: number;
  readonly policyLoss: number;
  readonly kernelAccuracy: number;
  readonly kernelRatio: number;
  readonly tokenAccuracy: number;
  readonly chosenChange: number;
}

export function pool(hidden: tf.Tensor2D, pairs: readonly TokenPair[], length: number): Embeddings {
  const matrix = tf.tensor2d(poolingMatrix(pairs, length), [3 * pairs.length, 2 * pairs.length * length]);
  const [prompt, chosen, rejected] = tf.split(averages(matrix, hidden), 3) as [tf.Tensor2D, tf.Tensor2D, tf.Tensor2D];
  return { prompt, chosen, rejected };
}

/** matMul whose pull-back reaches the hidden states only: the averaging weights are constants. */
function averages(matrix: tf.Tensor2D, hidden: tf.Tensor2D): tf.Tensor2D {
  const product = tf.customGrad<tf.Tensor2D>((input, save) => {
    (save as tf.GradSaveFunc)([matrix]);
    return {
      value: tf.matMul(matrix, input as tf.Tensor2D),
      gradFunc: (dy, saved) => tf.matMul(tf.transpose(saved[0] as tf.Tensor2D), dy),
    };
  });
  return product(hidden);
}

/** The embeddings of pairs, out of TensorFlow.js. */
export function embed(model: Model, pairs: readonly TokenPair[]): NativeEmbeddings {
  const batch = padPairs(pairs);
  const { prompt, chosen, rejected } = tf.tidy(() => ({ ...pool(model.hidden(batch), pairs, batch.length) }));
  const embeddings = { prompt: toNative(prompt), chosen: toNative(chosen), rejected: toNative(rejected) };
  tf.dispose([prompt, chosen, rejected]);
  return embeddings;
}

function scoreBatch(model: Model, pairs: readonly TokenPair[], kernel: Kernel): PairScore[] {
  return tf.tidy(() => {
    const batch = padPairs(pairs);
    const { targets, offsets, length } = batch;
    const hidden = model.hidden(batch);
    const tokens = linearTokenLogProbsSync({ hidden: toNative(hidden), weight: toNative(model.head), targets });
    const { logProbs, tokenCounts } = sequenceLogProbsSync({ logProbs: tokens.logProbs, targets, offsets });
    const { prompt, chosen, rejected } = pool(hidden, pairs, length);
    const u = toNative(prompt);
    const chosenKernels = pairKernelSync({ u, v: toNative(chosen), kernel }).logK;
    const rejectedKernels = pairKernelSync({ u, v: toNative(rejected), kernel }).logK;
    const count = pairs.length;
    return pairs.map((_, index) => ({
      chosen: at(logProbs, index),
      rejected: at(logProbs, count + index),
      chosenTokens: at(tokenCounts, index),
      rejectedTokens: at(tokenCounts, count + index),
      chosenKernel: at(chosenKernels, index),
      rejectedKernel: at(rejectedKernels, index),
    }));
  });
}

function at(values: Tensor, index: number): number {
  return values.data[index] ?? Number.NaN;
}

/** Scores pairs in fixed batches, so that the same weights give the same bits. */
export function score(model: Model, pairs: readonly TokenPair[], kernel: Kernel): PairScore[] {
  const scores: PairScore[] = [];
  for (let start = 0; start < pairs.length; start += BATCH) {
    scores.push(...scoreBatch(model, pairs.slice(start, start + BATCH), kernel));
  }
  return scores;
}

/**
 * The median heuristic: as bandwidth, the median distance between a prompt and an answer. The scores must come from an
 * rbf kernel with sigma 1, whose logarithm is minus half the squared distance.
 */
export function medianDistance(scores: readonly PairScore[]): number {
  const logs = scores.flatMap(({ chosenKernel, rejectedKernel }) => [chosenKernel, rejectedKernel]);
  const middle = logs.sort((a, b) => a - b)[Math.floor(logs.length / 2)] ?? 0;
  const distance = Math.sqrt(-2 * middle);
  if (!(distance > 0)) throw new Error("all embeddings coincide, so no bandwidth can be chosen");
  return distance;
}

/** A frozen model, asked about each pair at most once. */
export class Reference {
  readonly #model: Model;
  readonly #pairs: readonly TokenPair[];
  readonly #kernel: Kernel;
  readonly #scores = new Map<number, PairScore>();

  constructor(weights: Weights, pairs: readonly TokenPair[], kernel: Kernel) {
    this.#model = Model.from(weights);
    this.#pairs = pairs;
    this.#kernel = kernel;
  }

  /** The scores of the pairs at these indices. */
  scores(indices: readonly number[]): PairScore[] {
    const missing = indices.filter((index) => !this.#scores.has(index));
    const fresh = score(
      this.#model,
      missing.map((index) => this.#pairs[index] as TokenPair),
      this.#kernel,
    );
    for (const [position, index] of missing.entries()) this.#scores.set(index, fresh[position] as PairScore);
    return indices.map((index) => this.#scores.get(index) as PairScore);
  }

  /** The hidden states that the frozen model makes of a batch, and its head. */
  head(batch: Batch): LinearHead {
    return headOf(this.#model, batch);
  }

  dispose(): void {
    this.#model.dispose();
  }
}

function headOf(model: Model, batch: Batch): LinearHead {
  const hidden = tf.tidy(() => model.hidden(batch));
  const head = { hidden: toNative(hidden), weight: toNative(model.head) };
  hidden.dispose();
  return head;
}

/** Mean over the tokens of all answers of the divergence of a model from the frozen one. */
export function meanDivergence(model: Model, reference: Reference, pairs: readonly TokenPair[], kind: Divergence): number {
  let [sum, count] = [0, 0];
  for (let start = 0; start < pairs.length; start += BATCH) {
    const batch = padPairs(pairs.slice(start, start + BATCH));
    const { targets } = batch;
    const args = { policy: headOf(model, batch), reference: reference.head(batch), kind, targets };
    sum += linearDivergenceSync({ ...args, reduction: "sum" }).value ?? Number.NaN;
    count += targets.reduce((counted, target) => counted + (target === IGNORED_TARGET ? 0 : 1), 0);
  }
  return sum / count;
}

function mean(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0) / values.length;
}

/** Share of positive values, a zero counting one half. */
function positive(values: readonly number[]): number {
  return mean(values.map((value) => (Math.sign(value) + 1) / 2));
}

/** -log sigmoid, without overflow. */
function logistic(margin: number): number {
  return Math.max(0, -margin) + Math.log1p(Math.exp(-Math.abs(margin)));
}

/** Compares a model's scores with the frozen reference's, under an arm's reward. */
export function summarize(scores: readonly PairScore[], reference: readonly PairScore[], { beta, gamma }: Reward): Summary {
  const changes = scores.map(({ chosen }, index) => chosen - (reference[index]?.chosen ?? Number.NaN));
  const policy = scores.map(({ rejected }, index) => {
    return beta * ((changes[index] ?? 0) - rejected + (reference[index]?.rejected ?? Number.NaN));
  });
  const kernel = scores.map((one) => one.chosenKernel - one.rejectedKernel);
  const margins = policy.map((value, index) => value + gamma * (kernel[index] ?? 0));
  return {
    pairs: scores.length,
    accuracy: positive(margins),
    margin: mean(margins),
    loss: mean(margins.map(logistic)),
    policyAccuracy: positive(policy),
    policyMargin: mean(policy),
    policyLoss: mean(policy.map(logistic)),
    kernelAccuracy: positive(kernel),
    kernelRatio: mean(kernel),
    tokenAccuracy: positive(scores.map((one) => one.chosen / one.chosenTokens - one.rejected / one.rejectedTokens)),
    chosenChange: mean(changes),
  };
}
