import { gramSync, gramVjpSync, kernels, type Tensor, zeros } from "dpo-kernels";
import { measureCeilings } from "./ceilings.js";
import type { Bench, Context } from "./context.js";
import { randomTensor } from "./inputs.js";
import { interleave, local } from "./measure.js";
import type { Row } from "./report.js";
import { against, type Products } from "./work.js";

const ONE: Products = { name: "its product", logits: 1 };
const THREE: Products = { name: "its three products", logits: 1, hidden: 1, weight: 1 };

/** A whole matrix and its pull-back to the rows, of one sample and of two. */
async function run({ sizes, rounds, placed, ceilings, pytorch }: Context): Promise<Row[]> {
  const { rows, width } = sizes.gram;
  const shape = { rows, depth: width, vocabulary: rows };
  const { x, y, upstream, out } = placed({
    x: randomTensor([rows, width], 1, 1),
    y: randomTensor([rows, width], 1, 2),
    upstream: randomTensor([rows, rows], 1, 3),
    out: { gram: zeros([rows, rows], "f32"), x: zeros([rows, width], "f32"), y: zeros([rows, width], "f32") },
  });
  const kernel = kernels.rbf({ sigma: 1.4 });
  const step = (samples: { x: Tensor; y?: Tensor }) => {
    const { gram, y: gradY, ...ofX } = out;
    return local(() => {
      gramSync({ ...samples, kernel }, { out: { gram } });
      gramVjpSync({ ...samples, kernel, upstream, gram }, { out: samples.y ? { ...ofX, y: gradY } : ofX });
    });
  };
  const timings = await interleave(
    { two: step({ x, y }), one: step({ x }), value: local(() => gramSync({ x, y, kernel }, { out: { gram: out.gram } })) },
    rounds,
    await pytorch?.variants("gram", shape),
  );
  const own = { shape, ceilings: ceilings && measureCeilings(shape, ceilings.threads) };
  const bounded = { ...THREE, bound: 1.15 };
  const what = `rbf, [${rows}, ${width}] f32`;
  return [
    { operation: "gram, gramVjp", what: `${what}, two samples`, timing: timings.two, ...against(own, THREE, bounded), peers: timings.peers },
    {
      operation: "gram, gramVjp",
      what: `${what}, one sample`,
      timing: timings.one,
      ...against(own, undefined, { ...bounded, name: "the three products of two samples" }),
      peers: {},
    },
    { operation: "gram", what: `${what}, two samples`, timing: timings.value, ...against(own, ONE, ONE), peers: {} },
  ];
}

export const gramBench: Bench = { needs: ["gram", "gramVjp"], run };
