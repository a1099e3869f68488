import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Backend, BackendError, backends, threads, useBackend, zeros } from "dpo-kernels";
import { buildCeilings, measureCeilings } from "./ceilings.js";
import { chartsOf } from "./charts.js";
import { compare, comparisonPage } from "./compare.js";
import type { Bench, Context } from "./context.js";
import { divergenceBench } from "./divergence.bench.js";
import { gramBench } from "./gram.bench.js";
import { hmkObjectiveBench } from "./hmk-objective.bench.js";
import { Placement } from "./inputs.js";
import { linearDivergenceBench } from "./linear-divergence.bench.js";
import { linearTokenLogProbsBench } from "./linear-token-log-probs.bench.js";
import { FEWEST_RUNS } from "./measure.js";
import { objectiveBench } from "./objective.bench.js";
import { pairKernelBench } from "./pair-kernel.bench.js";
import { peakMemory } from "./peak-memory.js";
import { InProcess } from "./peers/in-process.js";
import { PyTorch } from "./peers/pytorch.js";
import { preferenceBench } from "./preference.bench.js";
import { markdown, type Results, type Row } from "./report.js";
import { SIZES, type Sizes } from "./sizes.js";
import { tokenLogProbsBench } from "./token-log-probs.bench.js";

const BENCHES: Record<string, Bench> = {
  tokenLogProbs: tokenLogProbsBench,
  linearTokenLogProbs: linearTokenLogProbsBench,
  divergence: divergenceBench,
  linearDivergence: linearDivergenceBench,
  preferenceLoss: preferenceBench,
  objective: objectiveBench,
  hmkObjective: hmkObjectiveBench,
  pairKernel: pairKernelBench,
  gram: gramBench,
};

const USAGE = `npm run bench -- [options]
  --op NAME,...    only some of ${Object.keys(BENCHES).join(", ")}
  --backend NAME   as useBackend
  --shapes NAME    ${Object.keys(SIZES).join(" or ")} (to see that all of it runs; default: full)
  --quick          fewer runs
  --python FILE    a Python with torch, for comparison (default: python3)
  --from FILE      the results in this file instead of a run
  --compare FILE   also say what is faster and slower than in these older results, and what is noise
  --save NAME      write bench/results/NAME.json, .md and a chart of each operation as .svg`;

const { values: options } = parseArgs({
  options: {
    op: { type: "string" },
    backend: { type: "string", default: "auto" },
    shapes: { type: "string", default: "full" },
    quick: { type: "boolean", default: false },
    python: { type: "string", default: "python3" },
    from: { type: "string" },
    compare: { type: "string" },
    save: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

/** What keeps the benchmarks from running, for whoever started them. */
class Refusal extends Error {}

/** The backend that runs the benchmarks, and where their tensors belong: "cpu", or the backend's device. */
interface Target {
  backend: Backend;
  device: string;
}

type Peers = Pick<Context, "pytorch" | "inProcess">;

function selectTarget(name: string): Target {
  try {
    useBackend(name);
    const backend = backends().find(({ selected }) => selected) as Backend;
    const fullName = [backend.name, backend.variant].filter((part) => part !== "").join(":");
    const probe = zeros([1], "f32").toSync(fullName);
    probe.dispose();
    return { backend, device: probe.device };
  } catch (error) {
    if (error instanceof BackendError) throw new Refusal(error.message, { cause: error });
    throw error;
  }
}

function choose<T>(option: string, from: Readonly<Record<string, T>>, name: string): T {
  const chosen = Object.hasOwn(from, name) ? from[name] : undefined;
  if (chosen === undefined) throw new Refusal(`--${option} ${name}: expected one of ${Object.keys(from).join(", ")}\n${USAGE}`);
  return chosen;
}

/** The benchmarks of a list such as "gram,divergence", in its order; all of them without one. */
function selectBenches(list: string | undefined): Record<string, Bench> {
  if (list === undefined) return BENCHES;
  return Object.fromEntries(list.split(",").map((name) => [name, choose("op", BENCHES, name.trim())]));
}

function machine({ backend, device }: Target, { pytorch, inProcess }: Peers): Results["machine"] {
  return {
    processor: cpus()[0]?.model ?? "unknown",
    processors: cpus().length,
    "GiB of memory": Math.round(totalmem() / 2 ** 30),
    threads: threads(),
    backend: `${backend.name} ${backend.variant}`.trim(),
    ...(device !== "cpu" && { device: backend.reason }),
    Node: process.versions.node,
    PyTorch: pytorch?.version ?? "not found",
    ...(inProcess?.tfjs && { "TensorFlow.js": inProcess.tfjs }),
  };
}

/** PyTorch on the same device as ours; none against a simulated one. */
async function openPeers({ device }: Target): Promise<Peers> {
  return {
    pytorch: device === "cpu" || device === "cuda" ? await PyTorch.open(options.python, device) : undefined,
    inProcess: device === "cpu" ? await InProcess.open() : undefined,
  };
}

async function runBench(bench: Bench, { device }: Target, sizes: Sizes, peers: Peers): Promise<Row[]> {
  const placement = new Placement(device);
  // Ceilings are measured next to each bench, since the speed of a shared machine drifts.
  const ceilings = device === "cpu" ? measureCeilings(sizes.head, threads()) : undefined;
  const rounds = Math.min(sizes.rounds, options.quick ? FEWEST_RUNS : sizes.rounds);
  const rows = await bench.run({ sizes, shape: sizes.head, rounds, placed: placement.placed, ceilings, ...peers });
  placement.dispose();
  peers.inProcess?.release();
  return rows;
}

function save(name: string, results: Results): void {
  const folder = fileURLToPath(new URL("results", import.meta.url));
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}/${name}.json`, `${JSON.stringify(results, null, 2)}\n`);
  const charts = chartsOf(results.rows).map(({ name: operation, svg }) => ({ operation, file: `${name}.${operation}.svg`, svg }));
  for (const { file, svg } of charts) writeFileSync(`${folder}/${file}`, svg);
  const pictures = charts.map(({ operation, file }) => `![${operation}](${file})\n`);
  writeFileSync(`${folder}/${name}.md`, [markdown(results), ...pictures].join("\n"));
}

function readResults(file: string): Results {
  try {
    return JSON.parse(readFileSync(file, "utf8")) as Results;
  } catch (error) {
    throw new Refusal(`${file}: ${(error as Error).message}`, { cause: error });
  }
}

async function measure(): Promise<Results> {
  const sizes = choose("shapes", SIZES, options.shapes);
  const selected = selectBenches(options.op);
  const target = selectTarget(options.backend);
  const onCpu = target.device === "cpu";
  if (onCpu) buildCeilings();
  const peers = await openPeers(target);
  const rows: Row[] = [];
  const notRun: Record<string, string[]> = {};
  for (const [name, bench] of Object.entries(selected)) {
    const lacks = bench.needs.filter((operation) => !target.backend.operations.includes(operation));
    if (lacks.length > 0) notRun[name] = lacks;
    else rows.push(...(await runBench(bench, target, sizes, peers)));
  }
  peers.pytorch?.close();
  return {
    date: new Date().toISOString().slice(0, 10),
    machine: machine(target, peers),
    rows,
    ...(onCpu && { peakMemory: peakMemory("full", sizes.head) }),
    ...(Object.keys(notRun).length > 0 && { notRun }),
  };
}

async function main(): Promise<void> {
  if (options.help) return console.log(USAGE);
  // Before a run of minutes, lest a wrong name is found after it.
  const old = options.compare === undefined ? undefined : readResults(options.compare);
  const results = options.from === undefined ? await measure() : readResults(options.from);
  console.log(markdown(results));
  if (old) console.log(comparisonPage(compare(old, results)));
  if (options.save !== undefined) save(options.save, results);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
