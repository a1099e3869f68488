import * as tf from "@tensorflow/tfjs-core";
import {
  type DpoKernels,
  IGNORED_TARGET,
  linearTokenLogProbsSync,
  linearTokenLogProbsVjpSync,
  type ReferenceInput,
  type Step,
  type Tensor,
  tensor,
} from "dpo-kernels";
import type { Batch } from "./batch.js";

/** Mean hidden states [pairs, width] of prompts and answers. */
export interface Embeddings {
  readonly prompt: tf.Tensor2D;
  readonly chosen: tf.Tensor2D;
  readonly rejected: tf.Tensor2D;
}

export interface PreferenceInputs {
  readonly hidden: tf.Tensor2D;
  readonly head: tf.Tensor2D;
  readonly embeddings: Embeddings | undefined;
  readonly batch: Batch;
  /** What the frozen model says of the same batch. */
  readonly reference: ReferenceInput;
}

export type Metrics = Readonly<Record<string, number>>;
export type KernelGradients = Step["grads"]["kernel"];

/** A TensorFlow.js tensor as dpo-kernels reads it. */
export function toNative(x: tf.Tensor): Tensor {
  return tensor(x.dataSync<"float32">(), x.shape);
}

function values(x: Tensor): Float32Array {
  if (x.data instanceof Float32Array) return x.data;
  throw new TypeError("dpo-kernels gave something other than 32-bit floats");
}

/** A scalar whose gradients are known already: `gradients[i]` belongs to `inputs[i]`. */
function scalarWithGradients(inputs: readonly tf.Tensor[], compute: () => { loss: number; gradients: readonly Tensor[] }) {
  const scalar = tf.customGrad<tf.Scalar>(() => {
    const { loss, gradients } = compute();
    const pullBack = (dy: tf.Scalar) => inputs.map((input, index) => tf.mul(tf.tensor(values(gradients[index] as Tensor), input.shape), dy));
    return { value: tf.scalar(loss), gradFunc: pullBack };
  });
  return scalar(...inputs);
}

/** The preference loss, from one call of dpo-kernels; the N x V logits never exist. */
export function preferenceLoss(
  objective: DpoKernels,
  { hidden, head, embeddings, batch, reference }: PreferenceInputs,
  onStep: (step: Step) => void,
): tf.Scalar {
  const pooled = embeddings === undefined ? [] : [embeddings.prompt, embeddings.chosen, embeddings.rejected];
  return scalarWithGradients([hidden, head, ...pooled], () => {
    const step = objective.lossAndGradSync({
      policy: { hidden: toNative(hidden), weight: toNative(head), targets: batch.targets, offsets: batch.offsets },
      reference,
      ...(embeddings && {
        embeddings: {
          prompt: toNative(embeddings.prompt),
          chosen: toNative(embeddings.chosen),
          rejected: toNative(embeddings.rejected),
        },
      }),
    });
    onStep(step);
    const { policy, embeddings: pulled } = step.grads;
    if (!("hidden" in policy)) throw new Error("gradients came for something other than hidden states");
    const pulledBack = pulled ? [pulled.prompt, pulled.chosen, pulled.rejected] : [];
    return { loss: step.loss, gradients: [policy.hidden, policy.weight, ...pulledBack] };
  });
}

/** The mean negative log-probability of the answers' tokens. */
export function supervisedLoss(hidden: tf.Tensor2D, head: tf.Tensor2D, { targets }: Batch): tf.Scalar {
  return scalarWithGradients([hidden, head], () => {
    const inputs = { hidden: toNative(hidden), weight: toNative(head), targets };
    const { logProbs, logSumExp } = linearTokenLogProbsSync(inputs);
    const counted = targets.reduce((count, target) => count + (target === IGNORED_TARGET ? 0 : 1), 0);
    const upstream = new Float32Array(targets.length).fill(-1 / counted);
    const gradients = linearTokenLogProbsVjpSync({ ...inputs, logSumExp, upstream });
    const loss = -values(logProbs).reduce((sum, value) => sum + value, 0) / counted;
    return { loss, gradients: [gradients.hidden, gradients.weight] };
  });
}
