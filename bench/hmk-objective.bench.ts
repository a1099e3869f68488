import { DpoKernels, fitKernelSync, kernels, type PolicyInput, type Tensor, zeros } from "dpo-kernels";
import type { Context } from "./context.js";
import { randomTargets, randomTensor } from "./inputs.js";
import { interleave, local } from "./measure.js";
import type { Row } from "./report.js";

const [PAIRS, TOKENS, WORDS, WIDTH] = [32, 128, 32_000, 768];
const ROWS = 2 * PAIRS * TOKENS;
/** A step takes seconds. */
const MOST_ROUNDS = 7;

/** What the mixture of kernels adds to a whole step: 32 pairs, 64 sequences of 128 tokens. */
export async function hmkObjectiveBench({ rounds }: Context): Promise<Row[]> {
  const layout = { targets: randomTargets(ROWS, WORDS), offsets: Int32Array.from({ length: 2 * PAIRS + 1 }, (_, s) => s * TOKENS) };
  const hidden = { hidden: randomTensor([ROWS, WIDTH]), weight: randomTensor([WORDS, WIDTH], 0.02), ...layout };
  const ofHidden = await stepRow("hidden × head", hidden, { hidden: zeros([ROWS, WIDTH], "f32"), weight: zeros([WORDS, WIDTH], "f32") }, rounds);
  const logits = { logits: randomTensor([ROWS, WORDS], 3), ...layout };
  return [ofHidden, await stepRow("logits", logits, { logits: zeros([ROWS, WORDS], "f32") }, rounds)];
}

async function stepRow(source: string, policy: PolicyInput, out: Record<string, Tensor>, rounds: number): Promise<Row> {
  const [prompt, chosen, rejected] = [1, 2, 3].map((seed) => randomTensor([PAIRS, WIDTH], 1, seed)) as [Tensor, Tensor, Tensor];
  const embeddings = { prompt, chosen, rejected };
  const reference = { logProbs: new Float32Array(2 * PAIRS).fill(-1000) };
  const plain = new DpoKernels();
  const hmk = new DpoKernels({ kernel: fitKernelSync({ kernel: kernels.hmk(), embeddings }), gamma: 0.25 });
  const timings = await interleave(
    {
      plain: local(() => plain.lossAndGradSync({ policy, reference }, { out: { policy: out } })),
      hmk: local(() => hmk.lossAndGradSync({ policy, reference, embeddings }, { out: { policy: out } })),
    },
    Math.min(rounds, MOST_ROUNDS),
  );
  return {
    operation: "DpoKernels",
    what: `hybrid with hmk, ${PAIRS} pairs of ${TOKENS} tokens, V=${WORDS} D=${WIDTH} f32 from ${source}, loss and gradients`,
    timing: timings.hmk,
    ceiling: { name: "the same step with plain DPO", ms: timings.plain.median, bound: 1.05 },
    peers: {},
  };
}
