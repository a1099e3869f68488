/** How the times of two runs of the benchmarks differ, and whether that is more than their noise. No input, no output. */

import type { Interval, Timing } from "./measure.js";
import { type Ceiling, type Column, type Results, type Row, table } from "./report.js";

/** "by medians": one side has no interval, so nothing is known of its noise. */
export type Verdict = "faster" | "slower" | "within noise" | "faster by medians" | "slower by medians" | "equal medians";

export interface Ratio {
  /** New over old. */
  ratio: number;
  interval?: Interval;
  verdict: Verdict;
}

/** One row that both runs have. */
export interface ComparedRow extends Ratio {
  operation: string;
  what: string;
  old: Timing;
  now: Timing;
  /** New over old of what the row is held against: what the machine itself has drifted by. */
  ceiling?: number;
}

export interface Comparison {
  rows: ComparedRow[];
  /** Rows of the old run that the new one lacks, and the other way round. */
  onlyOld: string[];
  onlyNew: string[];
  /** Entries of the machine's description that differ: [name, old, new]. */
  machine: [string, string, string][];
}

/**
 * The ratio of two medians with the interval that follows from theirs: each side's distance from the median to the end of its interval counts as that of an
 * error on the logarithm, and the two are added as independent errors are (Zou & Donner 2008, "method of variance estimates recovery").
 */
export function ratioOf(old: Timing, now: Timing): Ratio {
  const ratio = now.median / old.median;
  if (old.interval === undefined || now.interval === undefined) return { ratio, verdict: byMedians(ratio) };
  const down = Math.hypot(Math.log(now.median / now.interval[0]), Math.log(old.interval[1] / old.median));
  const up = Math.hypot(Math.log(now.interval[1] / now.median), Math.log(old.median / old.interval[0]));
  const interval: Interval = [ratio * Math.exp(-down), ratio * Math.exp(up)];
  return { ratio, interval, verdict: byInterval(interval) };
}

function byInterval([low, high]: Interval): Verdict {
  if (high < 1) return "faster";
  return low > 1 ? "slower" : "within noise";
}

function byMedians(ratio: number): Verdict {
  if (ratio === 1) return "equal medians";
  return ratio < 1 ? "faster by medians" : "slower by medians";
}

const nameOf = ({ operation, what }: Row) => `${operation}: ${what}`;

/** By name; a time that stands in several rows, against several ceilings, counts once, with the first. */
function rowsByName({ rows }: Results): Map<string, Row> {
  return new Map(rows.toReversed().map((row) => [nameOf(row), row]));
}

function comparedRow(old: Row, now: Row): ComparedRow {
  const { operation, what } = now;
  const sameCeiling = old.ceiling && now.ceiling && old.ceiling.name === now.ceiling.name;
  return {
    operation,
    what,
    old: old.timing,
    now: now.timing,
    ...ratioOf(old.timing, now.timing),
    ...(sameCeiling && { ceiling: (now.ceiling as Ceiling).ms / (old.ceiling as Ceiling).ms }),
  };
}

export function compare(old: Results, now: Results): Comparison {
  const [before, after] = [rowsByName(old), rowsByName(now)];
  const names = [...new Set(now.rows.map(nameOf))];
  const machineNames = new Set([...Object.keys(old.machine), ...Object.keys(now.machine)]);
  return {
    rows: names.flatMap((name) => {
      const [oldRow, row] = [before.get(name), after.get(name)];
      return oldRow && row ? [comparedRow(oldRow, row)] : [];
    }),
    onlyOld: [...new Set(old.rows.map(nameOf))].filter((name) => !after.has(name)),
    onlyNew: names.filter((name) => !before.has(name)),
    machine: [...machineNames]
      .map((name): [string, string, string] => [name, String(old.machine[name] ?? "–"), String(now.machine[name] ?? "–")])
      .filter(([, was, is]) => was !== is),
  };
}

const COLUMNS: readonly Column<ComparedRow>[] = [
  { title: "operation", cell: ({ operation }) => operation },
  { title: "what", cell: ({ what }) => what },
  { title: "old ms", cell: ({ old }) => old.median.toPrecision(3) },
  { title: "new ms", cell: ({ now }) => now.median.toPrecision(3) },
  {
    title: "new / old",
    cell: ({ ratio, interval }) => ratio.toFixed(2) + (interval ? ` (${interval.map((end) => end.toFixed(2)).join("–")})` : ""),
  },
  { title: "verdict", cell: ({ verdict }) => verdict },
  { title: "its ceiling, new / old", cell: ({ ceiling }) => ceiling?.toFixed(2) ?? "", optional: true },
];

const NOTES = [
  "In brackets: where the ratio of the medians lies with 95 % confidence, by the runs' own noise; of 20 equal rows about one is outside by chance. What changes",
  "from run to run, such as the machine's speed, is not in it: compare the ratio with that of the ceiling.",
];

/** The comparison as a Markdown page. */
export function comparisonPage({ rows, onlyOld, onlyNew, machine }: Comparison): string {
  const withoutInterval = rows.filter(({ interval }) => interval === undefined).length;
  const counts = [...new Set(rows.map(({ verdict }) => verdict))].map((one) => `${rows.filter(({ verdict }) => verdict === one).length} ${one}`);
  const list = (title: string, names: readonly string[]) => (names.length > 0 ? [title, "", ...names.map((name) => `- ${name}`), ""] : []);
  return [
    "# Comparison",
    "",
    ...list(
      "Not the same machine or software:",
      machine.map(([name, was, is]) => `${name}: ${was} → ${is}`),
    ),
    ...(rows.length > 0 ? [...table(COLUMNS, rows), "", `${counts.join(", ")}.`, "", ...NOTES, ""] : ["No row is in both.", ""]),
    ...(withoutInterval > 0
      ? [
          `Compared by medians alone: ${withoutInterval} of ${rows.length} rows; one side has too few runs for an interval, or was saved without one.`,
          "",
        ]
      : []),
    ...list("Only in the old results:", onlyOld),
    ...list("Only in the new results:", onlyNew),
  ].join("\n");
}
