/** A call that takes some tenths of a second: long enough to see what happens while it runs. */

import { type LinearTokenLogProbsVjpArgs, linearTokenLogProbsSync, type Tensor, tensor, zeros } from "dpo-kernels";
import { createRandom } from "./random.js";

const [ROWS, WIDTH] = [512, 256];

export interface LargeCall extends LinearTokenLogProbsVjpArgs {
  readonly hidden: Tensor;
  readonly weight: Tensor;
}

function noise(length: number): Float32Array<ArrayBuffer> {
  const period = createRandom(3).uniforms(9973, -0.5, 0.5);
  return Float32Array.from({ length }, (_, i) => period[i % period.length] ?? 0);
}

/** Arguments of linearTokenLogProbsVjp, with that many rows of the head. */
export function largeCall(words = 32_000): LargeCall {
  const inputs = {
    hidden: tensor(noise(ROWS * WIDTH), [ROWS, WIDTH]),
    weight: tensor(noise(words * WIDTH), [words, WIDTH]),
    targets: createRandom(4).integers(ROWS, 0, words),
  };
  const { logSumExp } = linearTokenLogProbsSync(inputs);
  return { ...inputs, logSumExp, upstream: new Float32Array(ROWS).fill(1 / ROWS) };
}

export function largeOut({ hidden, weight }: LargeCall): { hidden: Tensor<"f32">; weight: Tensor<"f32"> } {
  return { hidden: zeros(hidden.shape, "f32"), weight: zeros(weight.shape, "f32") };
}
