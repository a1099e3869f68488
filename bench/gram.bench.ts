import { gramSync, gramVjpSync, kernels, type Tensor, zeros } from "dpo-kernels";
import { measureCeilings } from "./ceilings.js";
import type { Context } from "./context.js";
import { randomTensor } from "./inputs.js";
import { interleave, local } from "./measure.js";
import type { Row } from "./report.js";

const [ROWS, WIDTH] = [4096, 768];

/** A whole matrix and its pull-back to the rows, of one sample and of two. */
export async function gramBench({ rounds, ceilings, pytorch }: Context): Promise<Row[]> {
  const [x, y] = [1, 2].map((seed) => randomTensor([ROWS, WIDTH], 1, seed)) as [Tensor, Tensor];
  const upstream = randomTensor([ROWS, ROWS], 1, 3);
  const out = { gram: zeros([ROWS, ROWS], "f32"), x: zeros([ROWS, WIDTH], "f32"), y: zeros([ROWS, WIDTH], "f32") };
  const kernel = kernels.rbf({ sigma: 1.4 });
  const step = (rows: { x: Tensor; y?: Tensor }) => {
    const { gram, y: gradY, ...ofX } = out;
    return local(() => {
      gramSync({ ...rows, kernel }, { out: { gram } });
      gramVjpSync({ ...rows, kernel, upstream, gram }, { out: rows.y ? { ...ofX, y: gradY } : ofX });
    });
  };
  const timings = await interleave(
    { two: step({ x, y }), one: step({ x }), value: local(() => gramSync({ x, y, kernel }, { out: { gram: out.gram } })) },
    rounds,
    pytorch && { "PyTorch eager": pytorch.variant("gram", { rows: ROWS, depth: WIDTH, vocabulary: ROWS }) },
  );
  const { logitsProductMs, hiddenProductMs, weightProductMs } = measureCeilings({ rows: ROWS, depth: WIDTH, vocabulary: ROWS }, ceilings.threads);
  const three = { name: "its three products", ms: logitsProductMs + hiddenProductMs + weightProductMs, bound: 1.2 };
  const what = `rbf, [${ROWS}, ${WIDTH}] f32`;
  return [
    { operation: "gram, gramVjp", what: `${what}, two samples`, timing: timings.two, ceiling: three, peers: timings.peers },
    {
      operation: "gram, gramVjp",
      what: `${what}, one sample`,
      timing: timings.one,
      ceiling: { ...three, name: "the three products of two samples" },
      peers: {},
    },
    { operation: "gram", what: `${what}, two samples`, timing: timings.value, ceiling: { name: "its product", ms: logitsProductMs }, peers: {} },
  ];
}
