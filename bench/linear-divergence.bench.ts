import { type Divergence, divergences, linearDivergenceSync, zeros } from "dpo-kernels";
import type { Context } from "./context.js";
import { noisy, randomTensor } from "./inputs.js";
import { interleave, local } from "./measure.js";
import type { Row } from "./report.js";

export async function linearDivergenceBench({ shape, rounds, ceilings, pytorch }: Context): Promise<Row[]> {
  const { rows, depth, vocabulary } = shape;
  const policy = { hidden: randomTensor([rows, depth]), weight: randomTensor([vocabulary, depth], 0.1) };
  const reference = { hidden: policy.hidden, weight: noisy(policy.weight, 0.7 / Math.sqrt(depth)) };
  const out = { values: zeros([rows], "f32"), hidden: zeros([rows, depth], "f32"), weight: zeros([vocabulary, depth], "f32") };
  const step = (kind: Divergence) => local(() => linearDivergenceSync({ policy, reference, kind, upstream: 1 }, { out }));
  const timings = await interleave(
    { kl: step(divergences.kl()), js: step(divergences.js()) },
    rounds,
    pytorch && { "PyTorch eager (holds all logits)": pytorch.variant("linearDivergence", { ...shape, kind: "js" }) },
  );
  const { logitsProductMs, hiddenProductMs, weightProductMs } = ceilings;
  const four = { name: "its four products", ms: 2 * logitsProductMs + hiddenProductMs + weightProductMs, bound: 1.15 };
  const what = `N=${rows} D=${depth} V=${vocabulary} f32`;
  return [
    { operation: "linearDivergence", what: `${what}, kl, value + gradients`, timing: timings.kl, ceiling: four, peers: {} },
    { operation: "linearDivergence", what: `${what}, js, value + gradients`, timing: timings.js, ceiling: four, peers: timings.peers },
  ];
}
