import { DpoKernels, kernels, zeros } from "dpo-kernels";
import type { Context } from "./context.js";
import { randomTargets, randomTensor } from "./inputs.js";
import { interleave, local } from "./measure.js";
import type { Row } from "./report.js";

/** From hidden × head, two pairs of equal sequences. */
export async function objectiveBench({ shape, rounds, ceilings, pytorch }: Context): Promise<Row[]> {
  const { rows, depth, vocabulary } = shape;
  const pairs = 2;
  const length = rows / (2 * pairs);
  const policy = {
    hidden: randomTensor([rows, depth]),
    weight: randomTensor([vocabulary, depth], 0.1),
    targets: randomTargets(rows, vocabulary),
    offsets: Int32Array.from({ length: 2 * pairs + 1 }, (_, s) => s * length),
  };
  const reference = { logProbs: new Float32Array(2 * pairs).fill(-1000) };
  const out = { policy: { hidden: zeros([rows, depth], "f32"), weight: zeros([vocabulary, depth], "f32") } };
  const [prompt, chosen, rejected] = [1, 2, 3].map((seed) => randomTensor([pairs, depth], 1, seed)) as [never, never, never];
  const plain = new DpoKernels();
  const hybrid = new DpoKernels({ kernel: kernels.rbf({ sigma: 0.7 }), gamma: 0.25 });
  const timings = await interleave(
    {
      plain: local(() => plain.lossAndGradSync({ policy, reference }, { out })),
      hybrid: local(() => hybrid.lossAndGradSync({ policy, reference, embeddings: { prompt, chosen, rejected } }, { out })),
    },
    rounds,
    pytorch && { "PyTorch eager (holds all logits)": pytorch.variant("objective", { ...shape, pairs }) },
  );
  const { logitsProductMs, hiddenProductMs, weightProductMs } = ceilings;
  const three = { name: "its three products", ms: logitsProductMs + hiddenProductMs + weightProductMs, bound: 1.15 };
  const what = `${pairs} pairs, N=${rows} D=${depth} V=${vocabulary} f32, loss and gradients`;
  return [
    { operation: "DpoKernels", what: `plain DPO, ${what}`, timing: timings.plain, ceiling: three, peers: timings.peers },
    { operation: "DpoKernels", what: `hybrid with rbf, ${what}`, timing: timings.hybrid, ceiling: three, peers: timings.peers },
  ];
}
