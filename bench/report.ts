import type { MachineRates } from "./ceilings.js";
import { type Column, table } from "./markdown-table.js";
import type { Timing } from "./measure.js";
import { type Curve, scalingSection } from "./scaling-report.js";
import type { Survey } from "./survey/run.js";
import { surveySection } from "./survey/table.js";
import type { Amount } from "./work.js";

export interface Ceiling {
  name: string;
  ms: number;
  bound?: number;
}

/** One line of the results. */
export interface Row {
  operation: string;
  what: string;
  timing: Timing;
  /** What the time is held against, measured in the same run. */
  ceiling?: Ceiling;
  /** On a device: what its rate counts. */
  work?: Amount;
  /** The same work elsewhere, in the same run. */
  peers: Record<string, Timing>;
}

/** What bench/results/*.json holds. */
export interface Results {
  date: string;
  machine: Record<string, string | number>;
  /** Measured when the run began; not on a device, and absent from results that were saved before these were kept. */
  ceilings?: MachineRates[];
  rows: Row[];
  /** Extra bytes at the peak, by operation; not measured on a device. */
  peakMemory?: Record<string, number>;
  /** Every operation on every shape; absent from results that were saved before it was kept, as is the next. */
  survey?: Survey;
  scaling?: Curve[];
  /** The benchmarks that the backend cannot run, and the operations of theirs that it lacks. */
  notRun?: Record<string, string[]>;
}

const ms = ({ median, q20, q80 }: Timing) => `${median.toPrecision(3)} (${q20.toPrecision(3)}–${q80.toPrecision(3)})`;

const STAR = " ★";

/** Whether PyTorch eager is not slower. */
function outrun({ timing, peers }: Row): boolean {
  return Object.entries(peers).some(([name, peer]) => name.startsWith("PyTorch eager") && peer.median <= timing.median);
}

const COLUMNS: readonly Column<Row>[] = [
  { title: "operation", cell: ({ operation }) => operation },
  { title: "what", cell: ({ what }) => what },
  { title: "ms", cell: ({ timing }) => ms(timing) },
  { title: "rate", cell: ({ timing, work }) => (work ? `${rate(work, timing)} (${work.name})` : ""), optional: true },
  {
    title: "against its ceiling in the same run",
    cell: ({ timing, ceiling }) => (ceiling ? `${(timing.median / ceiling.ms).toFixed(2)} × ${ceiling.name} (${ceiling.ms.toPrecision(3)} ms)` : ""),
  },
  { title: "bound", cell: ({ ceiling }) => (ceiling?.bound ? `≤ ${ceiling.bound} ×` : ""), optional: true },
  {
    title: "peers",
    cell: (row) =>
      Object.entries(row.peers)
        .map(([name, peer]) => `${name} ${ms(peer)}: ${(peer.median / row.timing.median).toFixed(1)} ×`)
        .join("; ") + (outrun(row) ? STAR : ""),
  },
];

const threeDigits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** 10⁶ a millisecond are 10⁹ a second. */
function rate(work: Amount, { median }: Timing): string {
  const [count, unit] = "bytes" in work ? [work.bytes, "GB/s"] : [work.flops, "GFLOP/s"];
  return `${threeDigits.format(count / median / 1e6)} ${unit}`;
}

const CEILING_COLUMNS: readonly Column<MachineRates>[] = [
  { title: "threads", cell: ({ threads }) => String(threads) },
  { title: "copy, GB/s read and written", cell: ({ copy }) => threeDigits.format(copy) },
  { title: "copy around the caches, GB/s", cell: ({ streamedCopy }) => threeDigits.format(streamedCopy) },
  { title: "matrix product, GFLOP/s", cell: ({ product }) => threeDigits.format(product) },
  { title: "e^x in the L1 cache, 10⁹/s", cell: ({ exp }) => threeDigits.format(exp) },
];

function memoryTable(peakMemory: Record<string, number>): string[] {
  const lines = Object.entries(peakMemory).map(([name, bytes]) => `| ${name} | ${(bytes / 2 ** 20).toFixed(1)} |`);
  return ["| peak memory beyond inputs and results | MiB |", "|---|---|", ...lines, ""];
}

/** The results as a Markdown page. */
export function markdown({ date, machine, ceilings, rows, peakMemory, survey, scaling, notRun = {} }: Results): string {
  const description = Object.entries(machine).map(([name, value]) => `${name} ${value}`);
  return [
    "# Benchmark",
    "",
    `${date}. ${description.join(", ")}.`,
    "",
    ...(ceilings ? ["What the machine does at most, in f32:", "", ...table(CEILING_COLUMNS, ceilings), ""] : []),
    "Milliseconds: median (20 % to 80 % quantile) of interleaved runs. Peers: their time, and how many times ours it is.",
    "",
    ...(rows.length > 0 ? [...table(COLUMNS, rows), ""] : []),
    ...(rows.some(outrun) ? [`${STAR.trim()}: PyTorch eager is not slower than this library.`, ""] : []),
    ...(peakMemory ? memoryTable(peakMemory) : []),
    ...Object.entries(notRun).flatMap(([name, lacks]) => [`Not run: ${name} (backend lacks ${lacks.join(", ")})`, ""]),
    ...(survey ? surveySection(survey) : []),
    ...(scaling ? scalingSection(scaling) : []),
  ].join("\n");
}
