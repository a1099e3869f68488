/** The peers of the benchmarks do the same work: a comparison of times says nothing else. */

import * as tf from "@tensorflow/tfjs-core";
import { divergenceSync, divergences, type Tensor, tokenLogProbsSync, tokenLogProbsVjpSync } from "dpo-kernels";
import { beforeAll, describe, expect, it } from "vitest";
import { noisy, randomTargets, randomTensor } from "../bench/inputs.js";
import * as plain from "../bench/peers/plain.js";
import * as tfjs from "../bench/peers/tfjs.js";
import { startBackend } from "../examples/quickstart/backend.js";

const [ROWS, VOCABULARY] = [5, 37];
const policy = randomTensor([ROWS, VOCABULARY], 2);
const reference = noisy(policy, 0.7);
const targets = randomTargets(ROWS, VOCABULARY);
const [values, gradient] = [new Float32Array(ROWS), new Float32Array(policy.size)];

const numbers = (of: Tensor | undefined) => Array.from(of?.data ?? [], Number);
const sum = (of: Tensor) => numbers(of).reduce((a, b) => a + b, 0);
const matrix = ({ data }: typeof policy) => tf.tensor2d(data, [ROWS, VOCABULARY]);

function expectNear(actual: ArrayLike<number>, ours: Tensor | undefined): void {
  const expected = numbers(ours);
  const furthest = Math.max(...expected.map((value, i) => Math.abs(value - (actual[i] as number))));
  expect(actual.length).toBe(expected.length);
  expect(furthest).toBeLessThan(2e-5);
}

function ofTfjs(step: () => { value: tf.Scalar; grad: tf.Tensor2D }) {
  const { value, grad } = step();
  return { value: value.dataSync()[0] as number, gradient: grad.dataSync() };
}

beforeAll(async () => {
  expect(await startBackend()).toBe("wasm");
});

describe("log-probabilities of tokens", () => {
  const { logProbs, logSumExp } = tokenLogProbsSync({ logits: policy, targets });
  const { logits: pullBack } = tokenLogProbsVjpSync({ logits: policy, targets, logSumExp, upstream: new Float32Array(ROWS).fill(1) });

  it("are the same in a plain loop", () => {
    plain.tokenLogProbs(policy.data, targets, values, gradient);
    expectNear(values, logProbs);
    expectNear(gradient, pullBack);
  });

  it("are the same in TensorFlow.js", () => {
    const peer = ofTfjs(tfjs.tokenLogProbs(matrix(policy), tf.tensor1d(targets, "int32")));
    expect(peer.value).toBeCloseTo(sum(logProbs), 3);
    expectNear(peer.gradient, pullBack);
  });
});

describe.each([
  ["js", divergences.js(), plain.js, tfjs.js],
  ["renyi(2)", divergences.renyi({ alpha: 2 }), plain.renyi2, tfjs.renyi2],
])("%s", (_, kind, loops, graph) => {
  const ours = divergenceSync({ policy, reference, kind, upstream: 1 });

  it("is the same in a plain loop", () => {
    plain.divergence(loops, policy.data, reference.data, values, gradient);
    expectNear(values, ours.values);
    expectNear(gradient, ours.gradPolicy);
  });

  it("is the same in TensorFlow.js", () => {
    const peer = ofTfjs(tfjs.divergence(graph, matrix(policy), matrix(reference)));
    expect(peer.value).toBeCloseTo(sum(ours.values), 4);
    expectNear(peer.gradient, ours.gradPolicy);
  });
});
