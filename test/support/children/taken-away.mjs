// Takes a buffer away while a call reads it, by the way that the argument names. Whatever the call says, the process must live. Needs --expose-gc.
import { setTimeout as sleep } from "node:timers/promises";
import { linearTokenLogProbsVjp, tensor } from "dpo-kernels";

const [ROWS, WIDTH, WORDS] = [512, 256, 32_000];
const BYTES = 4 * WORDS * WIDTH;
const [, , way] = process.argv;

for (let round = 0; round < 4; round++) {
  const buffer = way === "resize" ? new ArrayBuffer(BYTES, { maxByteLength: BYTES }) : new ArrayBuffer(BYTES);
  const weight = tensor(new Float32Array(buffer, 0, WORDS * WIDTH), [WORDS, WIDTH]);
  const args = {
    hidden: tensor(new Float32Array(ROWS * WIDTH).fill(0.01), [ROWS, WIDTH]),
    weight,
    targets: new Int32Array(ROWS),
    logSumExp: new Float64Array(ROWS).fill(Math.log(WORDS)),
    upstream: new Float32Array(ROWS).fill(1),
  };
  const settled = linearTokenLogProbsVjp(args).then(
    () => "resolved",
    ({ code }) => code,
  );
  await sleep(20);
  try {
    if (way === "resize") buffer.resize(0);
    else structuredClone(buffer, { transfer: [buffer] });
  } catch {
    // That the buffer cannot be taken away is as good.
  }
  globalThis.gc();
  globalThis.gc();
  process.send(await settled);
}
