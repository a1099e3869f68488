// Drops every reference to a call's tensors while it runs: they must stay until it ends, and go after it. Needs --expose-gc.
import { setTimeout as sleep } from "node:timers/promises";
import { linearTokenLogProbsVjp, tensor, zeros } from "dpo-kernels";

const [ROWS, WIDTH, WORDS] = [256, 128, 16_000];

/** Starts a call of which only the buffers' weak references and the sum of its gradients are kept. */
function start() {
  const args = {
    hidden: tensor(new Float32Array(ROWS * WIDTH).fill(0.01), [ROWS, WIDTH]),
    weight: tensor(new Float32Array(WORDS * WIDTH).fill(0.02), [WORDS, WIDTH]),
    targets: new Int32Array(ROWS),
    logSumExp: new Float64Array(ROWS).fill(Math.log(WORDS) + 0.01 * 0.02 * WIDTH),
    upstream: new Float32Array(ROWS).fill(1),
  };
  const out = { hidden: zeros([ROWS, WIDTH], "f32"), weight: zeros([WORDS, WIDTH], "f32") };
  const held = [args.hidden, args.weight, out.hidden, out.weight].map(({ data }) => new WeakRef(data.buffer));
  const done = linearTokenLogProbsVjp(args, { out }).then(({ weight }) => weight.data.slice(0, WIDTH));
  return { held, done };
}

function churn() {
  for (let i = 0; i < 4; i++) new Float32Array(2 ** 20).fill(i);
  globalThis.gc();
}

const rows = [];
let alive = true;
let leaked = 0;
for (let round = 0; round < 6; round++) {
  const { held, done } = start();
  let running = true;
  done.finally(() => {
    running = false;
  });
  while (running) {
    await sleep(1);
    churn();
    if (running) alive &&= held.every((reference) => reference.deref() !== undefined);
  }
  rows.push([...(await done)]);
  await sleep(5);
  churn();
  await sleep(5);
  churn();
  leaked += held.filter((reference) => reference.deref() !== undefined).length;
}
process.send({ alive, leaked, same: rows.every((row) => row.every((value, i) => value === rows[0][i])), first: rows[0][0] });
