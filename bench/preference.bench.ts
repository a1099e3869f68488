import { preferenceLossSync } from "dpo-kernels";
import type { Context } from "./context.js";
import { randomArray } from "./inputs.js";
import { interleave, local } from "./measure.js";
import type { Row } from "./report.js";

const PAIRS = 256;

export async function preferenceBench({ rounds }: Context): Promise<Row[]> {
  const policy = randomArray(2 * PAIRS, 50).map((x) => x - 200);
  const reference = randomArray(2 * PAIRS, 50, 2).map((x) => x - 200);
  const one = { policy: policy.slice(0, 2), reference: reference.slice(0, 2) };
  const timings = await interleave(
    { batch: local(() => preferenceLossSync({ policy, reference })), one: local(() => preferenceLossSync(one)) },
    100 * rounds,
  );
  return [
    {
      operation: "preferenceLoss",
      what: `${PAIRS} pairs, sigmoid`,
      timing: timings.batch,
      ceiling: { name: "50 µs", ms: 0.05, bound: 1 },
      peers: {},
    },
    { operation: "preferenceLoss", what: "1 pair: what a call costs", timing: timings.one, peers: {} },
  ];
}
