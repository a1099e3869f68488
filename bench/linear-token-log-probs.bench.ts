import { linearTokenLogProbsSync, linearTokenLogProbsVjpSync, zeros } from "dpo-kernels";
import type { Context } from "./context.js";
import { randomTargets, randomTensor } from "./inputs.js";
import { interleave, local } from "./measure.js";
import type { Row } from "./report.js";

export async function linearTokenLogProbsBench({ shape, rounds, ceilings, pytorch }: Context): Promise<Row[]> {
  const { rows, depth, vocabulary } = shape;
  const hidden = randomTensor([rows, depth]);
  const weight = randomTensor([vocabulary, depth], 0.1);
  const targets = randomTargets(rows, vocabulary);
  const upstream = new Float32Array(rows).fill(1);
  const out = { hidden: zeros([rows, depth], "f32"), weight: zeros([vocabulary, depth], "f32") };
  const timings = await interleave(
    {
      value: local(() => linearTokenLogProbsSync({ hidden, weight, targets })),
      both: local(() => {
        const { logSumExp } = linearTokenLogProbsSync({ hidden, weight, targets });
        linearTokenLogProbsVjpSync({ hidden, weight, targets, logSumExp, upstream }, { out });
      }),
    },
    rounds,
    pytorch && { "PyTorch eager (holds all logits)": pytorch.variant("linearTokenLogProbs", shape) },
  );
  const { logitsProductMs, hiddenProductMs, weightProductMs } = ceilings;
  const four = { name: "its four products", ms: 2 * logitsProductMs + hiddenProductMs + weightProductMs, bound: 1.15 };
  const what = `N=${rows} D=${depth} V=${vocabulary} f32`;
  return [
    {
      operation: "linearTokenLogProbs",
      what: `${what}, value`,
      timing: timings.value,
      ceiling: { name: "its product", ms: logitsProductMs },
      peers: {},
    },
    { operation: "linearTokenLogProbs", what: `${what}, value + pull-back`, timing: timings.both, ceiling: four, peers: timings.peers },
  ];
}
