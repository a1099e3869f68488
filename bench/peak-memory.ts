// Run as a process of its own: `peak-memory.ts OPERATION ROWS DEPTH VOCABULARY` prints the bytes by which the operation raises the peak of the
// process's memory beyond its inputs and results.
import { DpoKernels, linearTokenLogProbsSync, linearTokenLogProbsVjpSync, type Tensor, tokenLogProbsSync, zeros } from "dpo-kernels";
import { type HeadShape, randomTargets, randomTensor } from "./inputs.js";

type Prepare = (shape: HeadShape) => () => unknown;

function touched(shape: readonly number[]): Tensor<"f32"> {
  const result = zeros(shape, "f32");
  result.data.fill(1);
  return result;
}

function head({ rows, depth, vocabulary }: HeadShape) {
  return {
    inputs: { hidden: randomTensor([rows, depth]), weight: randomTensor([vocabulary, depth], 0.1), targets: randomTargets(rows, vocabulary) },
    out: { hidden: touched([rows, depth]), weight: touched([vocabulary, depth]) },
  };
}

const OPERATIONS: Record<string, Prepare> = {
  "linearTokenLogProbs, value": (shape) => {
    const { inputs } = head(shape);
    return () => linearTokenLogProbsSync(inputs);
  },
  "linearTokenLogProbs, value + pull-back": (shape) => {
    const { inputs, out } = head(shape);
    const upstream = new Float32Array(shape.rows).fill(1);
    return () => linearTokenLogProbsVjpSync({ ...inputs, upstream }, { out });
  },
  "DpoKernels from hidden × head": (shape) => {
    const { inputs, out } = head(shape);
    const quarter = shape.rows / 4;
    const policy = { ...inputs, offsets: Int32Array.of(0, quarter, 2 * quarter, 3 * quarter, shape.rows) };
    return () => new DpoKernels().lossAndGradSync({ policy, reference: { logProbs: new Float32Array(4) } }, { out: { policy: out } });
  },
};

export const MEASURED = Object.keys(OPERATIONS);

const [, script, name, ...numbers] = process.argv;
if (script?.endsWith("peak-memory.ts")) {
  const [rows = 512, depth = 512, vocabulary = 32000] = numbers.map(Number);
  const run = OPERATIONS[name ?? ""]?.({ rows, depth, vocabulary });
  if (run === undefined) throw new Error(`unknown operation ${name}`);
  tokenLogProbsSync({ logits: zeros([1, 2], "f32"), targets: Int32Array.of(0) }); // loads the backend
  const before = process.resourceUsage().maxRSS;
  run();
  console.log(1024 * (process.resourceUsage().maxRSS - before));
}
