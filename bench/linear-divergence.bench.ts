import { type Divergence, divergences, linearDivergenceSync, zeros } from "dpo-kernels";
import type { Bench, Context } from "./context.js";
import { noisy, randomTensor } from "./inputs.js";
import { interleave, local } from "./measure.js";
import type { Row } from "./report.js";
import { against, type Products } from "./work.js";

const FOUR: Products = { name: "its four products", logits: 2, hidden: 1, weight: 1 };

async function run(context: Context): Promise<Row[]> {
  const { shape, rounds, placed, pytorch } = context;
  const { rows, depth, vocabulary } = shape;
  const [hidden, weight] = [randomTensor([rows, depth]), randomTensor([vocabulary, depth], 0.1)];
  const { policy, reference, out } = placed({
    policy: { hidden, weight },
    reference: { hidden, weight: noisy(weight, 0.7 / Math.sqrt(depth)) },
    out: { values: zeros([rows], "f32"), hidden: zeros([rows, depth], "f32"), weight: zeros([vocabulary, depth], "f32") },
  });
  const step = (kind: Divergence) => local(() => linearDivergenceSync({ policy, reference, kind, upstream: 1 }, { out }));
  const kl = await interleave({ ours: step(divergences.kl()) }, rounds, pytorch?.eagerOfHead("linearDivergence", { ...shape, kind: "kl" }));
  const js = await interleave({ ours: step(divergences.js()) }, rounds, await pytorch?.variantsOfHead("linearDivergence", { ...shape, kind: "js" }));
  const what = `N=${rows} D=${depth} V=${vocabulary} f32`;
  const four = against(context, FOUR, { ...FOUR, bound: 1.08 });
  return [
    { operation: "linearDivergence", what: `${what}, kl, value + gradients`, timing: kl.ours, ...four, peers: kl.peers },
    { operation: "linearDivergence", what: `${what}, js, value + gradients`, timing: js.ours, ...four, peers: js.peers },
  ];
}

export const linearDivergenceBench: Bench = { needs: ["linearDivergence"], run };
