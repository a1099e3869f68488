/** The table of chosen rows, each beside its ceiling and its peers. */

import { threads } from "dpo-kernels";
import { measureCeilings } from "./ceilings.js";
import type { Bench, Context } from "./context.js";
import { divergenceBench } from "./divergence.bench.js";
import { gramBench } from "./gram.bench.js";
import { hmkObjectiveBench } from "./hmk-objective.bench.js";
import { Placement } from "./inputs.js";
import { linearDivergenceBench } from "./linear-divergence.bench.js";
import { linearTokenLogProbsBench } from "./linear-token-log-probs.bench.js";
import { objectiveBench } from "./objective.bench.js";
import { pairKernelBench } from "./pair-kernel.bench.js";
import { preferenceBench } from "./preference.bench.js";
import type { Results, Row } from "./report.js";
import type { Sizes } from "./sizes.js";
import type { Target } from "./target.js";
import { tokenLogProbsBench } from "./token-log-probs.bench.js";

export const BENCHES: Record<string, Bench> = {
  tokenLogProbs: tokenLogProbsBench,
  linearTokenLogProbs: linearTokenLogProbsBench,
  divergence: divergenceBench,
  linearDivergence: linearDivergenceBench,
  preferenceLoss: preferenceBench,
  objective: objectiveBench,
  hmkObjective: hmkObjectiveBench,
  pairKernel: pairKernelBench,
  gram: gramBench,
};

export type Peers = Pick<Context, "pytorch" | "inProcess">;

async function rowsOf(bench: Bench, { device }: Target, sizes: Sizes, peers: Peers): Promise<Row[]> {
  const placement = new Placement(device);
  // Ceilings are measured next to each bench, since the speed of a shared machine drifts.
  const ceilings = device === "cpu" ? measureCeilings(sizes.head, threads()) : undefined;
  const rows = await bench.run({ sizes, shape: sizes.head, rounds: sizes.rounds, placed: placement.placed, ceilings, ...peers });
  placement.dispose();
  peers.inProcess?.release();
  return rows;
}

export async function chosenRows(
  benches: Readonly<Record<string, Bench>>,
  target: Target,
  sizes: Sizes,
  peers: Peers,
): Promise<Pick<Results, "rows" | "notRun">> {
  const rows: Row[] = [];
  const notRun: Record<string, string[]> = {};
  for (const [name, bench] of Object.entries(benches)) {
    const lacks = bench.needs.filter((operation) => !target.backend.operations.includes(operation));
    if (lacks.length > 0) notRun[name] = lacks;
    else rows.push(...(await rowsOf(bench, target, sizes, peers)));
  }
  return { rows, ...(Object.keys(notRun).length > 0 && { notRun }) };
}
