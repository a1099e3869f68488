/** The work in TensorFlow.js, whose backend has been started: values and gradients by its own differentiation. */

import * as tf from "@tensorflow/tfjs-core";

type Step = () => { value: tf.Scalar; grad: tf.Tensor2D };

function step(loss: (x: tf.Tensor2D) => tf.Scalar, at: tf.Tensor2D): Step {
  const valueAndGradient = tf.valueAndGrad((x) => loss(x as tf.Tensor2D));
  return () => tf.tidy(() => valueAndGradient(at)) as ReturnType<Step>;
}

/** The sum of the targets' log-probabilities. */
export function tokenLogProbs(logits: tf.Tensor2D, targets: tf.Tensor1D): Step {
  // The gradient of a gather needs an operation that the WebAssembly backend lacks.
  const picked = tf.cast(tf.oneHot(tf.cast(targets, "int32"), logits.shape[1]), "float32");
  return step((x) => tf.sum(tf.mul(tf.logSoftmax(x), picked)), logits);
}

type Formula = (logP: tf.Tensor2D, logQ: tf.Tensor2D) => tf.Scalar;

/** ½ KL(p ‖ m) + ½ KL(q ‖ m), m = ½ (p + q), over the rows. */
export const js: Formula = (logP, logQ) => {
  const [p, q] = [tf.exp(logP), tf.exp(logQ)];
  const logM = tf.log(tf.mul(tf.add(p, q), 0.5));
  return tf.mul(tf.sum(tf.add(tf.mul(p, tf.sub(logP, logM)), tf.mul(q, tf.sub(logQ, logM)))), 0.5);
};

/** ln Σ p² / q, over the rows. */
export const renyi2: Formula = (logP, logQ) => tf.sum(tf.logSumExp(tf.sub(tf.mul(logP, 2), logQ), 1));

/** The sum of the rows' divergences. */
export function divergence(of: Formula, policy: tf.Tensor2D, reference: tf.Tensor2D): Step {
  return step((x) => of(tf.logSoftmax(x), tf.logSoftmax(reference)), policy);
}
