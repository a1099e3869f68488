// Tells what the package makes of its environment variables: importing must work whatever they are.
import { backends, tensor, threads, tokenLogProbs, tokenLogProbsSync, useBackend } from "dpo-kernels";

const args = { logits: tensor(Float32Array.of(0, 0), [1, 2]), targets: Int32Array.of(0) };

async function outcomeOf(call) {
  try {
    return { value: (await call()).logProbs.data[0] };
  } catch ({ name, code, message }) {
    return { error: { name, code, message } };
  }
}

const report = {
  backends: backends(),
  threads: threads(),
  sync: await outcomeOf(() => tokenLogProbsSync(args)),
  async: await outcomeOf(() => tokenLogProbs(args)),
};
useBackend("cpu");
process.send({ ...report, afterUseBackend: await outcomeOf(() => tokenLogProbsSync(args)) });
