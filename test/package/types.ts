/** Compiled against the installed package alone. */
import { DpoKernels, divergences, kernels, type StepOut, type Tensor, tensor, tokenLogProbs, tokenLogProbsSync } from "dpo-kernels";

const logits: Tensor<"f32"> = tensor(new Float32Array(8), [2, 4]);
const { logProbs } = tokenLogProbsSync({ logits, targets: Int32Array.of(0, 1) });
export const first: number | undefined = logProbs.data[0];
export const later: Promise<{ readonly logProbs: Tensor }> = tokenLogProbs({ logits, targets: Int32Array.of(0, 1) });
export const objective = new DpoKernels({ kernel: kernels.rbf({ sigma: 2 }), divergence: divergences.js(), loss: "sigmoid" });
export const out: StepOut = {};

// @ts-expect-error: a loss of that name does not exist
new DpoKernels({ loss: "sigmoidal" });
// @ts-expect-error: targets are missing
tokenLogProbsSync({ logits });
// @ts-expect-error: a tensor's shape is a list
tensor(new Float32Array(8), 8);
