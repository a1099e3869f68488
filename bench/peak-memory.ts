// Run as a process of its own: `peak-memory.ts EXTENT ROWS DEPTH VOCABULARY NAME` prints the bytes by which what NAME says raises the peak of the process's
// memory beyond its inputs and results.
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import {
  DpoKernels,
  divergenceSync,
  divergences,
  linearDivergenceSync,
  linearTokenLogProbsSync,
  linearTokenLogProbsVjpSync,
  tokenLogProbsSync,
  zeros,
} from "dpo-kernels";
import { collectGarbage } from "./garbage.js";
import { type HeadShape, noisy, randomTargets, randomTensor } from "./inputs.js";
import { nameOf, operationOf, type SurveyCase } from "./survey/case.js";
import { type Extent, surveyCases } from "./survey/cases.js";
import { touched } from "./survey/inputs.js";

type Prepare = (shape: HeadShape) => () => unknown;

function head({ rows, depth, vocabulary }: HeadShape) {
  return {
    inputs: { hidden: randomTensor([rows, depth]), weight: randomTensor([vocabulary, depth], 0.1), targets: randomTargets(rows, vocabulary) },
    out: { hidden: touched([rows, depth], "f32"), weight: touched([vocabulary, depth], "f32") },
  };
}

/** js and its gradient of so many rows. */
function divergenceOf(rows: number): Prepare {
  return ({ vocabulary }) => {
    const policy = randomTensor([rows, vocabulary], 2);
    const reference = noisy(policy, 0.7);
    const out = { values: touched([rows], "f32"), gradPolicy: touched([rows, vocabulary], "f32") };
    return () => divergenceSync({ policy, reference, kind: divergences.js(), upstream: 1 }, { out });
  };
}

/** At the shape of the table's heads. */
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

/** Of each list of shapes the one at which a case of the survey is measured. */
const MEASURED_SHAPES: Record<Extent, readonly string[]> = {
  full: ["GPT-2", "small LLM", "encoder", "large batch", "embedding"],
  small: ["LLM-like", "batch", "small sample", "landmarks"],
  tiny: ["awkward"],
};

/** Every kind of work of the survey once, in f32. */
function casesFor(extent: Extent): SurveyCase[] {
  const all = surveyCases(extent).filter(({ dtype }) => dtype === "f32");
  const kinds = [...new Set(all.map(kindOf))].map((kind) => all.filter((one) => kindOf(one) === kind));
  return kinds.map((cases) => cases.find(({ shapeName }) => MEASURED_SHAPES[extent].includes(shapeName)) ?? (cases[0] as SurveyCase));
}

const kindOf = (one: SurveyCase): string => `${operationOf(one)}, ${one.what}`;

/** In the host's memory. */
const unmoved = <T>(value: T): T => value;

function prepared(name: string, extent: Extent, shape: HeadShape): () => unknown {
  const own = OPERATIONS[name];
  if (own) return own(shape);
  const one = casesFor(extent).find((other) => nameOf(other) === name);
  if (one === undefined) throw new Error(`unknown operation ${name}`);
  return one.prepare(unmoved).sync;
}

// getrusage's peak would not do: it counts what the parent held when it started this process.
const FORGET_PEAK = "5"; // see proc_pid_clear_refs(5)

function forgetPeak(): void {
  writeFileSync("/proc/self/clear_refs", FORGET_PEAK);
}

function peak(): number {
  return 1024 * Number(/VmHWM:\s*(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);
}

const SCRIPT = fileURLToPath(import.meta.url);

/** Bytes, in a process of its own. */
export function peakMemoryOf(name: string, extent: Extent, { rows, depth, vocabulary }: HeadShape): number {
  const args = [SCRIPT, extent, ...[rows, depth, vocabulary].map(String), name];
  return Number(execFileSync(process.execPath, [...process.execArgv, ...args], { encoding: "utf8" }));
}

export const TABLE_MEMORY = Object.keys(OPERATIONS);

export function surveyMemory(extent: Extent): string[] {
  return casesFor(extent).map(nameOf);
}

/** By name. */
export function peakMemory(names: readonly string[], extent: Extent, shape: HeadShape): Record<string, number> {
  return Object.fromEntries(names.map((name) => [name, peakMemoryOf(name, extent, shape)]));
}

if (process.argv[1] === SCRIPT) {
  const [extent, rows, depth, vocabulary, name = ""] = process.argv.slice(2);
  const run = prepared(name, extent as Extent, { rows: Number(rows), depth: Number(depth), vocabulary: Number(vocabulary) });
  tokenLogProbsSync({ logits: zeros([1, 2], "f32"), targets: Int32Array.of(0) }); // loads the backend
  collectGarbage();
  forgetPeak();
  const before = peak();
  run();
  console.log(peak() - before);
}
