import { DpoKernels, kernels, type Tensor, zeros } from "dpo-kernels";
import type { Bench, Context } from "./context.js";
import { randomTargets, randomTensor } from "./inputs.js";
import { interleave, local } from "./measure.js";
import type { Row } from "./report.js";
import { against, type Products } from "./work.js";

const THREE: Products = { name: "its three products", logits: 1, hidden: 1, weight: 1 };

/** From hidden × head, two pairs of equal sequences. */
async function run(context: Context): Promise<Row[]> {
  const { shape, rounds, placed, pytorch } = context;
  const { rows, depth, vocabulary } = shape;
  const pairs = 2;
  const length = rows / (2 * pairs);
  const [prompt, chosen, rejected] = [1, 2, 3].map((seed) => randomTensor([pairs, depth], 1, seed)) as [Tensor, Tensor, Tensor];
  const gradient = () => zeros([pairs, depth], "f32");
  const { policy, reference, embeddings, out } = placed({
    policy: {
      hidden: randomTensor([rows, depth]),
      weight: randomTensor([vocabulary, depth], 0.1),
      targets: randomTargets(rows, vocabulary),
      offsets: Int32Array.from({ length: 2 * pairs + 1 }, (_, s) => s * length),
    },
    reference: { logProbs: new Float32Array(2 * pairs).fill(-1000) },
    embeddings: { prompt, chosen, rejected },
    out: {
      policy: { hidden: zeros([rows, depth], "f32"), weight: zeros([vocabulary, depth], "f32") },
      embeddings: { prompt: gradient(), chosen: gradient(), rejected: gradient() },
    },
  });
  const plain = new DpoKernels();
  const hybrid = new DpoKernels({ kernel: kernels.rbf({ sigma: 0.7 }), gamma: 0.25 });
  const timings = await interleave(
    {
      plain: local(() => plain.lossAndGradSync({ policy, reference }, { out: { policy: out.policy } })),
      hybrid: local(() => hybrid.lossAndGradSync({ policy, reference, embeddings }, { out })),
    },
    rounds,
    await pytorch?.variantsOfHead("objective", { ...shape, pairs }),
  );
  const what = `${pairs} pairs, N=${rows} D=${depth} V=${vocabulary} f32, loss and gradients`;
  const three = against(context, THREE, { ...THREE, bound: 1.08 });
  return [
    { operation: "DpoKernels", what: `plain DPO, ${what}`, timing: timings.plain, ...three, peers: timings.peers },
    { operation: "DpoKernels", what: `hybrid with rbf, ${what}`, timing: timings.hybrid, ...three, peers: timings.peers },
  ];
}

export const objectiveBench: Bench = {
  needs: ["linearPreference", "linearTokenLogProbs", "sequenceLogProbs", "preference", "pairKernel", "pairKernelVjp"],
  run,
};
