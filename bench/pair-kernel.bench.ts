import { fitKernelSync, kernels, pairKernelSync, type Tensor, zeros } from "dpo-kernels";
import type { Bench, Context } from "./context.js";
import { randomArray, randomTensor } from "./inputs.js";
import { interleave, local, type Variant } from "./measure.js";
import type { Row } from "./report.js";
import { amountOf } from "./work.js";

/** Inputs and results that take turns where they are larger than the caches, so that none is found there. */
const TURNS = 4;

/** What the mixture costs beside rbf alone. */
async function run(context: Context): Promise<Row[]> {
  const results = [];
  for (const rows of context.sizes.pairKernel.rows) results.push(...(await rowsOf(rows, context)));
  return results;
}

async function rowsOf(rows: number, { sizes, rounds, placed, ceilings, pytorch }: Context): Promise<Row[]> {
  const { width, fitted, pairs, fewestRounds } = sizes.pairKernel;
  /** Calls that are timed together where one takes microseconds. */
  const repeats = Math.max(1, Math.round(pairs / rows));
  const [prompt, chosen, rejected] = [1, 2, 3].map((seed) => randomTensor([fitted, width], 1, seed)) as [Tensor, Tensor, Tensor];
  const hmk = fitKernelSync({ kernel: kernels.hmk(), embeddings: { prompt, chosen, rejected } });
  const rbf = fitKernelSync({ kernel: kernels.rbf({ sigma: "median" }), embeddings: { prompt, chosen, rejected } });
  const upstream = placed(randomArray(rows, 1, 4));
  const sets = Array.from({ length: rows > 1000 ? TURNS : 1 }, (_, turn) =>
    placed({
      rows: { u: randomTensor([rows, width], 1, 10 + turn), v: randomTensor([rows, width], 1, 20 + turn) },
      out: { u: zeros([rows, width], "f32"), v: zeros([rows, width], "f32") },
    }),
  );
  const step = (kernel: typeof hmk, gradients: boolean): Variant => {
    let turn = 0;
    return local(() => {
      for (let call = 0; call < repeats; call++) {
        const { rows: inputs, out } = sets[turn++ % sets.length] as (typeof sets)[number];
        if (gradients) pairKernelSync({ ...inputs, kernel, upstream }, { out });
        else pairKernelSync({ ...inputs, kernel });
      }
    });
  };
  const timings = await interleave(
    { rbfValue: step(rbf, false), hmkValue: step(hmk, false), rbf: step(rbf, true), hmk: step(hmk, true) },
    Math.max(rounds, fewestRounds),
    pytorch?.eager("pairKernel", { rows, depth: width, vocabulary: 1, calls: repeats }),
  );
  const all = { rows: repeats * rows, depth: 1, vocabulary: width };
  const row = (name: "hmk" | "hmkValue", alone: "rbf" | "rbfValue", what: string, moved: { name: string; passes: number }): Row => ({
    operation: "pairKernel",
    what: `hmk, ${repeats} × [${rows}, ${width}] f32, ${what}`,
    timing: timings[name],
    ceiling: { name: "rbf alone", ms: timings[alone].median, ...(ceilings && { bound: 1.3 }) },
    ...(!ceilings && { work: amountOf(moved, all) }),
    peers: {},
  });
  const gradients = { name: "one read of u and v + one write of their gradients", passes: 4 };
  return [
    {
      operation: "pairKernel",
      what: `rbf, ${repeats} × [${rows}, ${width}] f32, values and gradients`,
      timing: timings.rbf,
      ...(!ceilings && { work: amountOf(gradients, all) }),
      peers: timings.peers,
    },
    row("hmkValue", "rbfValue", "values", { name: "one read of u and v", passes: 2 }),
    row("hmk", "rbf", "values and gradients", gradients),
  ];
}

export const pairKernelBench: Bench = { needs: ["gram", "landmarks", "eigh", "pairKernel", "pairKernelVjp"], run };
