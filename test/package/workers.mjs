import { once } from "node:events";
import { isMainThread, Worker } from "node:worker_threads";
import * as dpo from "dpo-kernels";
import { check } from "./check.mjs";

check(dpo);
if (isMainThread) {
  const workers = Array.from({ length: 3 }, () => new Worker(new URL(import.meta.url)));
  const codes = await Promise.all(workers.map((worker) => once(worker, "exit")));
  if (codes.some(([code]) => code !== 0)) throw new Error(`workers ended with ${codes}`);
}
