import { type Tensor, tokenLogProbsSync, tokenLogProbsVjpSync, zeros } from "dpo-kernels";
import type { Context } from "./context.js";
import { bf16Of, randomTargets, randomTensor } from "./inputs.js";
import { interleave, local } from "./measure.js";
import type { Row } from "./report.js";

/** Value and pull-back of logits in `dtype`, results in memory that is used again. */
function step(logits: Tensor, rows: number, vocabulary: number): () => void {
  const targets = randomTargets(rows, vocabulary);
  const upstream = new Float32Array(rows).fill(1);
  const out = { logits: zeros([rows, vocabulary], logits.dtype) };
  return () => {
    const { logSumExp } = tokenLogProbsSync({ logits, targets });
    tokenLogProbsVjpSync({ logits, targets, logSumExp, upstream }, { out });
  };
}

export async function tokenLogProbsBench({ shape, rounds, ceilings, pytorch }: Context): Promise<Row[]> {
  const { rows, vocabulary } = shape;
  const f32 = randomTensor([rows, vocabulary], 4);
  const targets = randomTargets(rows, vocabulary);
  const timings = await interleave(
    {
      value: local(() => tokenLogProbsSync({ logits: f32, targets })),
      both: local(step(f32, rows, vocabulary)),
      bf16: local(step(bf16Of(f32), rows, vocabulary)),
    },
    rounds,
    pytorch && { "PyTorch eager": pytorch.variant("tokenLogProbs", shape) },
  );
  const copy = { name: "one read + one write of the logits", ms: ceilings.copyMs };
  const what = `[${rows}, ${vocabulary}]`;
  return [
    { operation: "tokenLogProbs", what: `${what} f32, value`, timing: timings.value, ceiling: copy, peers: {} },
    {
      operation: "tokenLogProbs",
      what: `${what} f32, value + pull-back`,
      timing: timings.both,
      ceiling: { ...copy, bound: 2 },
      peers: timings.peers,
    },
    {
      operation: "tokenLogProbs",
      what: `${what} f32, value + pull-back`,
      timing: timings.both,
      ceiling: { name: "the same around the caches", ms: ceilings.streamedCopyMs },
      peers: {},
    },
    { operation: "tokenLogProbs", what: `${what} bf16, value + pull-back`, timing: timings.bf16, ceiling: copy, peers: {} },
  ];
}
