import { fitKernelSync, kernels, pairKernelSync, type Tensor, zeros } from "dpo-kernels";
import type { Context } from "./context.js";
import { randomArray, randomTensor } from "./inputs.js";
import { interleave, local, type Variant } from "./measure.js";
import type { Row } from "./report.js";

const WIDTH = 768;
/** A training batch, and rows that fill no cache. */
const ROWS = [32, 4096] as const;
/** Inputs and results that take turns where they are larger than the caches, so that none is found there. */
const TURNS = 4;
/** Calls that are timed together where one takes microseconds. */
const repeats = (rows: number): number => Math.max(1, Math.round(8192 / rows));

/** What the mixture costs beside rbf alone. */
export async function pairKernelBench({ rounds }: Context): Promise<Row[]> {
  const results = [];
  for (const rows of ROWS) results.push(...(await rowsOf(rows, rounds)));
  return results;
}

async function rowsOf(rows: number, rounds: number): Promise<Row[]> {
  const [prompt, chosen, rejected] = [1, 2, 3].map((seed) => randomTensor([256, WIDTH], 1, seed)) as [Tensor, Tensor, Tensor];
  const hmk = fitKernelSync({ kernel: kernels.hmk(), embeddings: { prompt, chosen, rejected } });
  const rbf = fitKernelSync({ kernel: kernels.rbf({ sigma: "median" }), embeddings: { prompt, chosen, rejected } });
  const upstream = randomArray(rows, 1, 4);
  const sets = Array.from({ length: rows > 1000 ? TURNS : 1 }, (_, turn) => ({
    rows: { u: randomTensor([rows, WIDTH], 1, 10 + turn), v: randomTensor([rows, WIDTH], 1, 20 + turn) },
    out: { u: zeros([rows, WIDTH], "f32"), v: zeros([rows, WIDTH], "f32") },
  }));
  const step = (kernel: typeof hmk, gradients: boolean): Variant => {
    let turn = 0;
    return local(() => {
      for (let call = 0; call < repeats(rows); call++) {
        const { rows: inputs, out } = sets[turn++ % sets.length] as (typeof sets)[number];
        if (gradients) pairKernelSync({ ...inputs, kernel, upstream }, { out });
        else pairKernelSync({ ...inputs, kernel });
      }
    });
  };
  const timings = await interleave(
    { rbfValue: step(rbf, false), hmkValue: step(hmk, false), rbf: step(rbf, true), hmk: step(hmk, true) },
    Math.max(rounds, 15),
  );
  const row = (name: "hmk" | "hmkValue", alone: "rbf" | "rbfValue", what: string): Row => ({
    operation: "pairKernel",
    what: `hmk, ${repeats(rows)} × [${rows}, ${WIDTH}] f32, ${what}`,
    timing: timings[name],
    ceiling: { name: "rbf alone", ms: timings[alone].median, bound: 1.3 },
    peers: {},
  });
  return [row("hmkValue", "rbfValue", "values"), row("hmk", "rbf", "values and gradients")];
}
