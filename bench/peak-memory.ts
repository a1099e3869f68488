// Run as a process of its own: `peak-memory.ts OPERATION ROWS DEPTH VOCABULARY` prints the bytes by which the operation raises the peak of the
// process's memory beyond its inputs and results.
import { readFileSync, writeFileSync } from "node:fs";
import {
  DpoKernels,
  divergenceSync,
  divergences,
  linearDivergenceSync,
  linearTokenLogProbsSync,
  linearTokenLogProbsVjpSync,
  type Tensor,
  tokenLogProbsSync,
  zeros,
} from "dpo-kernels";
import { type HeadShape, noisy, randomTargets, randomTensor } from "./inputs.js";

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

/** js and its gradient of so many rows. */
function divergenceOf(rows: number): Prepare {
  return ({ vocabulary }) => {
    const policy = randomTensor([rows, vocabulary], 2);
    const reference = noisy(policy, 0.7);
    const out = { values: touched([rows]), gradPolicy: touched([rows, vocabulary]) };
    return () => divergenceSync({ policy, reference, kind: divergences.js(), upstream: 1 }, { out });
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
  "divergence, js, value + gradient, 128 rows": divergenceOf(128),
  "divergence, js, value + gradient, 512 rows": divergenceOf(512),
  "linearDivergence, js, value + gradients": (shape) => {
    const { inputs, out } = head(shape);
    const policy = { hidden: inputs.hidden, weight: inputs.weight };
    const reference = { hidden: inputs.hidden, weight: noisy(inputs.weight, 0.7 / Math.sqrt(shape.depth)) };
    return () => linearDivergenceSync({ policy, reference, kind: divergences.js(), upstream: 1 }, { out });
  },
  "DpoKernels from hidden × head": (shape) => {
    const { inputs, out } = head(shape);
    const quarter = shape.rows / 4;
    const policy = { ...inputs, offsets: Int32Array.of(0, quarter, 2 * quarter, 3 * quarter, shape.rows) };
    return () => new DpoKernels().lossAndGradSync({ policy, reference: { logProbs: new Float32Array(4) } }, { out: { policy: out } });
  },
};

// getrusage's peak would not do: it counts what the parent held when it started this process.
const FORGET_PEAK = "5"; // see proc_pid_clear_refs(5)

function forgetPeak(): void {
  writeFileSync("/proc/self/clear_refs", FORGET_PEAK);
}

function peak(): number {
  return 1024 * Number(/VmHWM:\s*(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);
}

export const MEASURED = Object.keys(OPERATIONS);

const [, script, name, ...numbers] = process.argv;
if (script?.endsWith("peak-memory.ts")) {
  const [rows = 512, depth = 512, vocabulary = 32000] = numbers.map(Number);
  const run = OPERATIONS[name ?? ""]?.({ rows, depth, vocabulary });
  if (run === undefined) throw new Error(`unknown operation ${name}`);
  tokenLogProbsSync({ logits: zeros([1, 2], "f32"), targets: Int32Array.of(0) }); // loads the backend
  forgetPeak();
  const before = peak();
  run();
  console.log(peak() - before);
}
