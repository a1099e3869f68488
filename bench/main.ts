import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { backends, threads, useBackend } from "dpo-kernels";
import { buildCeilings, measureCeilings } from "./ceilings.js";
import type { Context } from "./context.js";
import { divergenceBench } from "./divergence.bench.js";
import { gramBench } from "./gram.bench.js";
import { hmkObjectiveBench } from "./hmk-objective.bench.js";
import type { HeadShape } from "./inputs.js";
import { linearDivergenceBench } from "./linear-divergence.bench.js";
import { linearTokenLogProbsBench } from "./linear-token-log-probs.bench.js";
import { objectiveBench } from "./objective.bench.js";
import { pairKernelBench } from "./pair-kernel.bench.js";
import { MEASURED } from "./peak-memory.js";
import { PyTorch } from "./peers/pytorch.js";
import { preferenceBench } from "./preference.bench.js";
import { markdown, type Results, type Row } from "./report.js";
import { tokenLogProbsBench } from "./token-log-probs.bench.js";

const BENCHES: Record<string, (context: Context) => Promise<Row[]>> = {
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
  --op NAME        only one of ${Object.keys(BENCHES).join(", ")}
  --backend NAME   as useBackend
  --quick          fewer runs
  --python FILE    a Python with torch, for comparison (default: python3)
  --save NAME      write bench/results/NAME.json and .md`;

const { values: options } = parseArgs({
  options: {
    op: { type: "string" },
    backend: { type: "string", default: "auto" },
    quick: { type: "boolean", default: false },
    python: { type: "string", default: "python3" },
    save: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

function machine(pytorch: PyTorch | undefined): Results["machine"] {
  const backend = backends().find(({ selected }) => selected);
  return {
    processor: cpus()[0]?.model ?? "unknown",
    processors: cpus().length,
    "GiB of memory": Math.round(totalmem() / 2 ** 30),
    threads: threads(),
    backend: `${backend?.name} ${backend?.variant}`,
    Node: process.versions.node,
    PyTorch: pytorch?.version ?? "not found",
  };
}

function peakMemory({ rows, depth, vocabulary }: HeadShape): Results["peakMemory"] {
  const script = fileURLToPath(new URL("peak-memory.ts", import.meta.url));
  const bytes = (name: string) =>
    Number(execFileSync(process.execPath, [...process.execArgv, script, name, ...[rows, depth, vocabulary].map(String)], { encoding: "utf8" }));
  return Object.fromEntries(MEASURED.map((name) => [name, bytes(name)]));
}

async function main(): Promise<void> {
  if (options.help) return console.log(USAGE);
  useBackend(options.backend);
  buildCeilings();
  const shape = { rows: 512, depth: 512, vocabulary: 32000 };
  const pytorch = await PyTorch.open(options.python);
  const selected = Object.entries(BENCHES).filter(([name]) => options.op === undefined || options.op === name);
  if (selected.length === 0) throw new Error(`unknown operation ${options.op}\n${USAGE}`);
  const rows: Row[] = [];
  for (const [, bench] of selected) {
    // Ceilings are measured next to each bench, since the speed of a shared machine drifts.
    const ceilings = measureCeilings(shape, threads());
    rows.push(...(await bench({ shape, rounds: options.quick ? 5 : 15, ceilings, pytorch })));
  }
  const results: Results = { date: new Date().toISOString().slice(0, 10), machine: machine(pytorch), rows, peakMemory: peakMemory(shape) };
  pytorch?.close();
  console.log(markdown(results));
  if (options.save === undefined) return;
  const folder = fileURLToPath(new URL("results", import.meta.url));
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}/${options.save}.json`, `${JSON.stringify(results, null, 2)}\n`);
  writeFileSync(`${folder}/${options.save}.md`, markdown(results));
}

await main();
