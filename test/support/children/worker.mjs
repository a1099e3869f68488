// A worker thread that does what it is told and answers with plain numbers.
import { parentPort } from "node:worker_threads";
import { backends, DpoKernels, kernels, linearTokenLogProbsVjp, linearTokenLogProbsVjpSync, tensor, useBackend } from "dpo-kernels";

/** The same as in workers.test.ts: rounded sines. */
function waves(length, step) {
  return Float32Array.from({ length }, (_, i) => Math.round(1000 * Math.sin(i * step)) / 1000);
}

function head({ rows, width, words }) {
  return {
    hidden: tensor(waves(rows * width, 0.7), [rows, width]),
    weight: tensor(waves(words * width, 0.3), [words, width]),
    targets: Int32Array.from({ length: rows }, (_, i) => (7 * i) % words),
  };
}

function objectiveInputs(shape) {
  const { rows } = shape;
  const embedding = (step) => tensor(waves(16, step), [2, 8]);
  return {
    policy: { ...head(shape), offsets: Int32Array.of(0, rows / 4, rows / 2, (3 * rows) / 4, rows) },
    reference: { logProbs: Float32Array.of(-9, -8, -7, -6) },
    embeddings: { prompt: embedding(0.5), chosen: embedding(0.6), rejected: embedding(0.9) },
  };
}

const commands = {
  async pullBack({ shape, sync }) {
    const args = { ...head(shape), upstream: new Float32Array(shape.rows).fill(0.5) };
    const { hidden, weight } = sync ? linearTokenLogProbsVjpSync(args) : await linearTokenLogProbsVjp(args);
    return [hidden.data, weight.data];
  },
  async step({ shape, sync }) {
    const objective = new DpoKernels({ kernel: kernels.rbf({ sigma: 0.8 }) });
    const { loss, grads } = await (sync ? objective.lossAndGradSync(objectiveInputs(shape)) : objective.lossAndGrad(objectiveInputs(shape)));
    return [Float64Array.of(loss), grads.policy.hidden.data, grads.embeddings.prompt.data, grads.kernel.sigma.data];
  },
  async use({ backend }) {
    try {
      useBackend(backend);
    } catch ({ code }) {
      return code;
    }
    return backends();
  },
  /** Calls without end: the worker is there to be terminated in the middle of one. */
  async forever({ shape, way }) {
    const args = { ...head(shape), upstream: new Float32Array(shape.rows).fill(0.5) };
    if (way === "failing") args.upstream[shape.rows - 1] = Number.NaN;
    parentPort.postMessage("begun");
    for (;;) {
      if (way === "sync") linearTokenLogProbsVjpSync(args);
      else await Promise.allSettled([1, 2, 3].map(() => linearTokenLogProbsVjp(args)));
    }
  },
};

parentPort.on("message", async ({ command, ...given }) => {
  parentPort.postMessage(await commands[command](given));
});
