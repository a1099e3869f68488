import { DpoKernels, type Embeddings, fitKernelSync, type Kernel, kernels, type PolicyInput, type Tensor, zeros } from "dpo-kernels";
import type { Bench, Context } from "./context.js";
import { randomTargets, randomTensor } from "./inputs.js";
import { interleave, local, slowRounds } from "./measure.js";
import type { Row } from "./report.js";

/** What the mixture of kernels adds to a whole step. */
async function run(context: Context): Promise<Row[]> {
  const { pairs, tokens, depth, vocabulary } = context.sizes.hmkObjective;
  const rows = 2 * pairs * tokens;
  const [prompt, chosen, rejected] = [1, 2, 3].map((seed) => randomTensor([pairs, depth], 1, seed)) as [Tensor, Tensor, Tensor];
  const embeddings = { prompt, chosen, rejected };
  const kernel = fitKernelSync({ kernel: kernels.hmk(), embeddings });
  const layout = { targets: randomTargets(rows, vocabulary), offsets: Int32Array.from({ length: 2 * pairs + 1 }, (_, s) => s * tokens) };
  const ofHidden = await stepRow(context, "hidden × head", kernel, {
    policy: { hidden: randomTensor([rows, depth]), weight: randomTensor([vocabulary, depth], 0.02), ...layout },
    embeddings,
    out: { hidden: zeros([rows, depth], "f32"), weight: zeros([vocabulary, depth], "f32") },
  });
  const ofLogits = await stepRow(context, "logits", kernel, {
    policy: { logits: randomTensor([rows, vocabulary], 3), ...layout },
    embeddings,
    out: { logits: zeros([rows, vocabulary], "f32") },
  });
  return [ofHidden, ofLogits];
}

interface Step {
  policy: PolicyInput;
  embeddings: Embeddings;
  out: Record<string, Tensor>;
}

async function stepRow({ sizes, rounds, placed, ceilings }: Context, source: string, kernel: Kernel, step: Step): Promise<Row> {
  const { pairs, tokens, depth, vocabulary } = sizes.hmkObjective;
  const gradient = () => zeros([pairs, depth], "f32");
  const { policy, embeddings, reference, out } = placed({
    ...step,
    reference: { logProbs: new Float32Array(2 * pairs).fill(-1000) },
    out: { policy: step.out, embeddings: { prompt: gradient(), chosen: gradient(), rejected: gradient() } },
  });
  const plain = new DpoKernels();
  const hmk = new DpoKernels({ kernel, gamma: 0.25 });
  const timings = await interleave(
    {
      plain: local(() => plain.lossAndGradSync({ policy, reference }, { out: { policy: out.policy } })),
      hmk: local(() => hmk.lossAndGradSync({ policy, reference, embeddings }, { out })),
    },
    // A step takes seconds.
    slowRounds(rounds),
  );
  return {
    operation: "DpoKernels",
    what: `hybrid with hmk, ${pairs} pairs of ${tokens} tokens, V=${vocabulary} D=${depth} f32 from ${source}, loss and gradients`,
    timing: timings.hmk,
    ceiling: { name: "the same step with plain DPO", ms: timings.plain.median, ...(ceilings && { bound: 1.05 }) },
    peers: {},
  };
}

const OF_KERNEL = ["gram", "landmarks", "eigh", "pairKernel", "pairKernelVjp"];
const OF_LOGITS = ["tokenLogProbs", "tokenLogProbsVjp", "sequenceLogProbs", "sequenceLogProbsVjp", "preference"];

export const hmkObjectiveBench: Bench = { needs: [...OF_KERNEL, ...OF_LOGITS, "linearTokenLogProbs", "linearPreference"], run };
