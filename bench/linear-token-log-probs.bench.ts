import { linearTokenLogProbsSync, linearTokenLogProbsVjpSync, zeros } from "dpo-kernels";
import type { Bench, Context } from "./context.js";
import { randomTargets, randomTensor } from "./inputs.js";
import { interleave, local } from "./measure.js";
import type { Row } from "./report.js";
import { against, type Products } from "./work.js";

const ONE: Products = { name: "its product", logits: 1 };
const FOUR: Products = { name: "its four products", logits: 2, hidden: 1, weight: 1 };

async function run(context: Context): Promise<Row[]> {
  const { shape, rounds, placed, pytorch } = context;
  const { rows, depth, vocabulary } = shape;
  const { hidden, weight, targets, upstream, out } = placed({
    hidden: randomTensor([rows, depth]),
    weight: randomTensor([vocabulary, depth], 0.1),
    targets: randomTargets(rows, vocabulary),
    upstream: new Float32Array(rows).fill(1),
    out: { hidden: zeros([rows, depth], "f32"), weight: zeros([vocabulary, depth], "f32") },
  });
  const timings = await interleave(
    {
      value: local(() => linearTokenLogProbsSync({ hidden, weight, targets })),
      both: local(() => {
        const { logSumExp } = linearTokenLogProbsSync({ hidden, weight, targets });
        linearTokenLogProbsVjpSync({ hidden, weight, targets, logSumExp, upstream }, { out });
      }),
    },
    rounds,
    await pytorch?.variantsOfHead("linearTokenLogProbs", shape),
  );
  const what = `N=${rows} D=${depth} V=${vocabulary} f32`;
  return [
    { operation: "linearTokenLogProbs", what: `${what}, value`, timing: timings.value, ...against(context, ONE, ONE), peers: {} },
    {
      operation: "linearTokenLogProbs",
      what: `${what}, value + pull-back`,
      timing: timings.both,
      ...against(context, FOUR, { ...FOUR, bound: 1.08 }),
      peers: timings.peers,
    },
  ];
}

export const linearTokenLogProbsBench: Bench = { needs: ["linearTokenLogProbs", "linearTokenLogProbsVjp"], run };
