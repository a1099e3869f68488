import { preferenceLossSync } from "dpo-kernels";
import type { Bench, Context } from "./context.js";
import { randomArray } from "./inputs.js";
import { interleave, local } from "./measure.js";
import type { Row } from "./report.js";

async function run({ sizes, shape, rounds, placed, ceilings, pytorch }: Context): Promise<Row[]> {
  const { pairs, repeats } = sizes.preference;
  const policy = randomArray(2 * pairs, 50).map((x) => x - 200);
  const reference = randomArray(2 * pairs, 50, 2).map((x) => x - 200);
  const { batch, one } = placed({ batch: { policy, reference }, one: { policy: policy.slice(0, 2), reference: reference.slice(0, 2) } });
  const timings = await interleave(
    { batch: local(() => preferenceLossSync(batch)), one: local(() => preferenceLossSync(one)) },
    repeats * rounds,
    pytorch?.eager("preferenceLoss", { ...shape, pairs }),
  );
  const ofCpu = ceilings && { ceiling: { name: "50 µs", ms: 0.05, bound: 1 } };
  return [
    { operation: "preferenceLoss", what: `${pairs} pairs, sigmoid`, timing: timings.batch, ...ofCpu, peers: timings.peers },
    { operation: "preferenceLoss", what: "1 pair: what a call costs", timing: timings.one, peers: {} },
  ];
}

export const preferenceBench: Bench = { needs: ["preference"], run };
