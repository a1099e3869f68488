import { type Tensor, tokenLogProbsSync, tokenLogProbsVjpSync, zeros } from "dpo-kernels";
import type { Bench, Context } from "./context.js";
import { bf16Of, randomTargets, randomTensor } from "./inputs.js";
import { interleave, local } from "./measure.js";
import type { Row } from "./report.js";
import { against, type Passes } from "./work.js";

const COPY: Passes = { name: "one read + one write of the logits", passes: 2 };
/** What a value and a pull-back of it move when each is a call of its own. */
const TWO_CALLS: Passes = { name: "two reads + one write of the logits", passes: 3 };

interface Step {
  logits: Tensor;
  targets: Int32Array;
  upstream: Float32Array;
}

/** Value and pull-back, whose memory the next run is given. */
function step({ logits, targets, upstream }: Step): () => void {
  return () => {
    const { logSumExp } = tokenLogProbsSync({ logits, targets });
    tokenLogProbsVjpSync({ logits, targets, logSumExp, upstream }).logits.dispose();
  };
}

/** The same in memory of the caller's, which a call that fails may not touch. */
function stepInto({ logits, targets, upstream }: Step, out: { logits: Tensor }): () => void {
  return () => {
    const { logSumExp } = tokenLogProbsSync({ logits, targets });
    tokenLogProbsVjpSync({ logits, targets, logSumExp, upstream }, { out });
  };
}

async function run(context: Context): Promise<Row[]> {
  const { shape, rounds, placed, ceilings, pytorch, inProcess } = context;
  const { rows, vocabulary } = shape;
  const f32 = randomTensor([rows, vocabulary], 4);
  const others = { targets: randomTargets(rows, vocabulary), upstream: new Float32Array(rows).fill(1) };
  const both = placed({ logits: f32, ...others });
  const bf16 = placed({ logits: bf16Of(f32), ...others });
  const { out } = placed({ out: { logits: zeros([rows, vocabulary], "f32") } });
  const variants = { both: local(step(both)), into: local(stepInto(both, out)), bf16: local(step(bf16)) };
  const timings = await interleave(variants, rounds, {
    ...(await pytorch?.variants("tokenLogProbs", shape)),
    ...inProcess?.tokenLogProbs({ logits: f32, targets: others.targets }),
  });
  const value = await interleave(
    { ours: local(() => tokenLogProbsSync({ logits: both.logits, targets: both.targets })) },
    rounds,
    pytorch?.eager("tokenLogProbs", { ...shape, valueOnly: true }),
  );
  const what = `[${rows}, ${vocabulary}]`;
  const ofBoth = { operation: "tokenLogProbs", what: `${what} f32, value + pull-back`, timing: timings.both };
  const aroundCaches = ceilings && { name: "the same around the caches", ms: ceilings.streamedCopyMs };
  return [
    {
      operation: "tokenLogProbs",
      what: `${what} f32, value`,
      timing: value.ours,
      ...against(context, { name: "one read of the logits", passes: 1 }, COPY),
      peers: value.peers,
    },
    { ...ofBoth, ...against(context, TWO_CALLS, { ...COPY, bound: 1.4 }), peers: timings.peers },
    ...(aroundCaches ? [{ ...ofBoth, ceiling: aroundCaches, peers: {} }] : []),
    {
      operation: "tokenLogProbs",
      what: `${what} f32, value + pull-back into the caller's memory`,
      timing: timings.into,
      ...against(context, TWO_CALLS, COPY),
      peers: {},
    },
    {
      operation: "tokenLogProbs",
      what: `${what} bf16, value + pull-back`,
      timing: timings.bf16,
      ...against(context, { ...TWO_CALLS, dtype: "bf16" }, COPY),
      peers: {},
    },
  ];
}

export const tokenLogProbsBench: Bench = { needs: ["tokenLogProbs", "tokenLogProbsVjp"], run };
