import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { threads } from "dpo-kernels";
import { buildCeilings, measureMachine } from "./ceilings.js";
import { type Chart, chartsOf } from "./charts.js";
import { BENCHES, chosenRows, type Peers } from "./chosen-rows.js";
import { compare, comparisonPage } from "./compare.js";
import { FEWEST_RUNS } from "./measure.js";
import { peakMemory, surveyMemory, TABLE_MEMORY } from "./peak-memory.js";
import { InProcess } from "./peers/in-process.js";
import { PyTorch } from "./peers/pytorch.js";
import { markdown, type Results } from "./report.js";
import { scalingCurves } from "./scaling.js";
import { scalingCharts } from "./scaling-report.js";
import { SIZES, type Sizes } from "./sizes.js";
import { type Extent, surveyCases } from "./survey/cases.js";
import { runSurvey } from "./survey/run.js";
import { Refusal, selectTarget, type Target } from "./target.js";

type SizeName = keyof typeof SIZES;

/** What a run of part of the benchmarks is given. */
interface Run {
  target: Target;
  size: SizeName;
  sizes: Sizes;
  extent: Extent;
}

const PARTS: Record<string, (run: Run) => Promise<Partial<Results>>> = { table: tablePart, survey: surveyPart, scaling: scalingPart };
const QUICK_PARTS = "table,survey";
/** With those of a whole batch a step takes seconds. */
const FEW_PAIRS = 2;

const USAGE = `npm run bench -- [options]
  --part NAME,...  only some of ${Object.keys(PARTS).join(", ")} (default: all; with --op table)
  --op NAME,...    in the table only some of ${Object.keys(BENCHES).join(", ")}
  --backend NAME   as useBackend
  --shapes NAME    ${Object.keys(SIZES).join(" or ")} (to see that all of it runs; default: full)
  --quick          fewer runs, small shapes, no scaling, and of the peers PyTorch eager alone
  --python FILE    a Python with torch, for comparison (default: python3)
  --from FILE      the results in this file instead of a run
  --compare FILE   also say what of the table is faster and slower than in these older results, and what is noise
  --save NAME      write bench/results/NAME.json, .md and charts as .svg`;

const { values: options } = parseArgs({
  options: {
    part: { type: "string" },
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

function choose<T>(option: string, from: Readonly<Record<string, T>>, name: string): T {
  const chosen = Object.hasOwn(from, name) ? from[name] : undefined;
  if (chosen === undefined) throw new Refusal(`--${option} ${name}: expected one of ${Object.keys(from).join(", ")}\n${USAGE}`);
  return chosen;
}

/** Those of a list such as "gram,divergence", in its order; all of them without one. */
function select<T>(option: string, from: Readonly<Record<string, T>>, list: string | undefined): Record<string, T> {
  if (list === undefined) return from;
  return Object.fromEntries(list.split(",").map((name) => [name.trim(), choose(option, from, name.trim())]));
}

function machine({ backend, device }: Target): Results["machine"] {
  return {
    processor: cpus()[0]?.model ?? "unknown",
    processors: cpus().length,
    "GiB of memory": Math.round(totalmem() / 2 ** 30),
    threads: threads(),
    backend: `${backend.name} ${backend.variant}`.trim(),
    ...(device !== "cpu" && { device: backend.reason }),
    Node: process.versions.node,
  };
}

/** PyTorch on the same device as ours; none against a simulated one. */
async function openPeers({ device }: Target): Promise<Peers> {
  return {
    pytorch: device === "cpu" || device === "cuda" ? await PyTorch.open(options.python, device, !options.quick) : undefined,
    inProcess: device === "cpu" && !options.quick ? await InProcess.open() : undefined,
  };
}

async function tablePart({ target, sizes, extent }: Run): Promise<Partial<Results>> {
  const benches = select("op", BENCHES, options.op);
  const peers = await openPeers(target);
  const results = await chosenRows(benches, target, sizes, peers);
  peers.pytorch?.close();
  const { pytorch, inProcess } = peers;
  return {
    ...results,
    machine: { PyTorch: pytorch?.version ?? "not found", ...(inProcess?.tfjs && { "TensorFlow.js": inProcess.tfjs }) },
    ...(target.device === "cpu" && { peakMemory: peakMemory(TABLE_MEMORY, extent, sizes.head) }),
  };
}

async function surveyPart({ target, sizes, extent }: Run): Promise<Partial<Results>> {
  const survey = await runSurvey(surveyCases(extent), target.device, target.backend.operations);
  const measured = target.device === "cpu" && !options.quick;
  return { survey, ...(measured && { peakMemory: peakMemory(surveyMemory(extent), extent, sizes.head) }) };
}

async function scalingPart({ target, size }: Run): Promise<Partial<Results>> {
  return { scaling: await scalingCurves(size, target.device, target.backend.operations) };
}

function save(name: string, results: Results): void {
  const folder = fileURLToPath(new URL("results", import.meta.url));
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}/${name}.json`, `${JSON.stringify(results, null, 2)}\n`);
  const charts: Chart[] = [...chartsOf(results.rows), ...scalingCharts(results.scaling ?? [])];
  for (const chart of charts) writeFileSync(`${folder}/${name}.${chart.name}.svg`, chart.svg);
  const pictures = charts.map((chart) => `![${chart.name}](${name}.${chart.name}.svg)\n`);
  writeFileSync(`${folder}/${name}.md`, [markdown(results), ...pictures].join("\n"));
}

function readResults(file: string): Results {
  try {
    return JSON.parse(readFileSync(file, "utf8")) as Results;
  } catch (error) {
    throw new Refusal(`${file}: ${(error as Error).message}`, { cause: error });
  }
}

function inHaste({ rounds, hmkObjective, ...others }: Sizes): Sizes {
  const pairs = Math.min(hmkObjective.pairs, FEW_PAIRS);
  return { ...others, rounds: Math.min(rounds, FEWEST_RUNS), hmkObjective: { ...hmkObjective, pairs } };
}

function runOf(target: Target): Run {
  const all = choose("shapes", SIZES, options.shapes);
  const size = options.shapes as SizeName;
  const sizes = options.quick ? inHaste(all) : all;
  const extent = options.quick && size === "full" ? "small" : size;
  return { target, size, sizes, extent };
}

function defaultParts(): string | undefined {
  if (options.op !== undefined) return "table";
  return options.quick ? QUICK_PARTS : undefined;
}

async function measure(): Promise<Results> {
  const parts = select("part", PARTS, options.part ?? defaultParts());
  select("op", BENCHES, options.op);
  const run = runOf(selectTarget(options.backend));
  const onCpu = run.target.device === "cpu";
  if (onCpu) buildCeilings();
  const results: Results = {
    date: new Date().toISOString().slice(0, 10),
    machine: machine(run.target),
    ...(onCpu && { ceilings: measureMachine(run.sizes.head, threads()) }),
    rows: [],
  };
  for (const part of Object.values(parts)) merge(results, await part(run));
  return results;
}

/** Takes in what a part has measured. */
function merge(results: Results, { machine: more, peakMemory: bytes, ...others }: Partial<Results>): void {
  Object.assign(results, others);
  Object.assign(results.machine, more);
  if (bytes) results.peakMemory = { ...results.peakMemory, ...bytes };
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
