// A worker thread that does what it is told and answers with plain numbers.
import { parentPort } from "node:worker_threads";
import {
  backends,
  DpoKernels,
  kernels,
  linearTokenLogProbsVjp,
  linearTokenLogProbsVjpSync,
  tensor,
  tokenLogProbs,
  tokenLogProbsSync,
  useBackend,
} from "dpo-kernels";

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

function pullBackArgs(shape) {
  return { ...head(shape), upstream: new Float32Array(shape.rows).fill(0.5) };
}

function atOnce(count, call) {
  return () => Promise.allSettled(Array.from({ length: count }, call));
}

const short = () => ({ logits: tensor(waves(8, 0.7), [2, 4]), targets: Int32Array.of(1, 3) });

/** What to do over and over. The long calls take milliseconds; the short ones go into taking arguments and giving results. */
const ENDLESS = {
  sync({ shape }) {
    const args = pullBackArgs(shape);
    return () => linearTokenLogProbsVjpSync(args);
  },
  async({ shape }) {
    const args = pullBackArgs(shape);
    return atOnce(3, () => linearTokenLogProbsVjp(args));
  },
  failing({ shape }) {
    const args = pullBackArgs(shape);
    args.upstream[shape.rows - 1] = Number.NaN;
    return atOnce(3, () => linearTokenLogProbsVjp(args));
  },
  shortSync() {
    const args = short();
    return () => tokenLogProbsSync(args);
  },
  shortAsync() {
    const args = short();
    return atOnce(100, () => tokenLogProbs(args));
  },
  /** Refused before they begin: the result would lie in its own argument. */
  shortRefused() {
    const args = short();
    const out = { logProbs: tensor(args.logits.data.subarray(0, 2), [2]) };
    return atOnce(100, () => tokenLogProbs(args, { out }));
  },
  shortOnDevice({ device }) {
    return () => short().logits.toSync(device).dispose();
  },
};

const commands = {
  async pullBack({ shape, sync }) {
    const args = pullBackArgs(shape);
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
  async forever({ way, ...given }) {
    const call = ENDLESS[way](given);
    parentPort.postMessage("begun");
    for (;;) await call();
  },
};

parentPort.on("message", async ({ command, ...given }) => {
  parentPort.postMessage(await commands[command](given));
});
