// Ends the process, by the way that the argument names, while calls run in it and in a worker.
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { linearTokenLogProbsVjp, tensor } from "dpo-kernels";

const [, , way] = process.argv;
const [rows, width, words] = [512, 256, 32_000];

const worker = new Worker(new URL("worker.mjs", import.meta.url));
worker.postMessage({ command: "forever", shape: { rows: 128, width: 128, words: 8000 }, way: "async" });
await new Promise((resolve) => worker.once("message", resolve));

for (let i = 0; i < 2; i++) {
  linearTokenLogProbsVjp({
    hidden: tensor(new Float32Array(rows * width).fill(0.1), [rows, width]),
    weight: tensor(new Float32Array(words * width).fill(0.1), [words, width]),
    targets: new Int32Array(rows),
    upstream: new Float32Array(rows).fill(1),
  });
}
await sleep(20);
if (way === "throw") throw new Error("on purpose");
process.exit(7);
