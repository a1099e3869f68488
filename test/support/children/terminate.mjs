// Terminates workers in the middle of their calls, round after round, and reports the memory the process has after each.
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { linearTokenLogProbsVjpSync, tensor } from "dpo-kernels";

/** Milliseconds from a worker's first call to its end, by round. */
const delay = (round) => (7 * round) % 40;
const PLANS = {
  long: { rounds: 6, ways: ["async", "async", "failing", "sync"] },
  short: { rounds: 20, ways: ["shortSync", "shortAsync", "shortRefused", "shortOnDevice"] },
};
const [{ rounds, ways }, device] = [PLANS[process.argv[2]], process.argv[3]];
const shape = { rows: 256, width: 256, words: 8000 };

async function terminated(way, round) {
  const worker = new Worker(new URL("worker.mjs", import.meta.url));
  worker.postMessage({ command: "forever", shape, device, way });
  await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
  await sleep(delay(round));
  return worker.terminate();
}

const memory = [];
let count = 0;
for (let round = 0; round < rounds; round++) {
  count += (await Promise.all(ways.map((way) => terminated(way, round)))).length;
  globalThis.gc();
  memory.push(process.memoryUsage().rss / 2 ** 20);
}

// What the terminated calls claimed must be free again: new memory may lie where theirs lay.
const [rows, width, words] = [64, 256, 16_000];
for (let i = 0; i < 10; i++) {
  linearTokenLogProbsVjpSync({
    hidden: tensor(new Float32Array(rows * width).fill(0.1), [rows, width]),
    weight: tensor(new Float32Array(words * width).fill(0.1), [words, width]),
    targets: new Int32Array(rows),
    upstream: new Float32Array(rows).fill(1),
  });
}
process.send({ count, memory });
