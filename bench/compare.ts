/** How the times of two runs of the benchmarks differ, and whether that is more than their noise. No input, no output. */

import { type Column, table } from "./markdown-table.js";
import { type Interval, type Timing, timingOf } from "./measure.js";
import type { Ceiling, Results, Row } from "./report.js";

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
  /** As of ratioOf, by the peers; undefined where too few are in both runs. */
  drift: number | undefined;
  /** Entries of the machine's description that differ: [name, old, new]. */
  machine: [string, string, string][];
}

/** Of a normal distribution: 95 % lie within so many times the distance within which half lie. */
const OF_HALF_TO_95 = 1.96 * 1.4826;
const FEWEST_PEERS = 5;

/**
 * The ratio of two medians with the interval that follows from theirs: each side's distance from the median to the end of its interval counts as that of an
 * error on the logarithm, and the two are added as independent errors are (Zou & Donner 2008, "method of variance estimates recovery"), and so is the
 * machine's drift between the runs.
 *
 * @param drift logarithm of the ratio by which half of what did not change moved at the most
 */
export function ratioOf(old: Timing, now: Timing, drift = 0): Ratio {
  const ratio = now.median / old.median;
  if (old.interval === undefined || now.interval === undefined) return { ratio, verdict: byMedians(ratio) };
  const between = OF_HALF_TO_95 * drift;
  const down = Math.hypot(Math.log(now.median / now.interval[0]), Math.log(old.interval[1] / old.median), between);
  const up = Math.hypot(Math.log(now.interval[1] / now.median), Math.log(old.median / old.interval[0]), between);
  const interval: Interval = [ratio * Math.exp(-down), ratio * Math.exp(up)];
  return { ratio, interval, verdict: byInterval(interval) };
}

/** The runs' own noise cannot tell how the machine differs between them; the peers, which did not change, can. A few that moved far do not count. */
function driftOf(before: ReadonlyMap<string, Row>, after: ReadonlyMap<string, Row>): number | undefined {
  const moved = [...after].flatMap(([name, { peers }]) =>
    Object.entries(peers).flatMap(([peer, { median }]) => {
      const old = before.get(name)?.peers[peer];
      return old ? [Math.abs(Math.log(median / old.median))] : [];
    }),
  );
  return moved.length < FEWEST_PEERS ? undefined : timingOf(moved).median;
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

function comparedRow(old: Row, now: Row, drift: number | undefined): ComparedRow {
  const { operation, what } = now;
  const sameCeiling = old.ceiling && now.ceiling && old.ceiling.name === now.ceiling.name;
  return {
    operation,
    what,
    old: old.timing,
    now: now.timing,
    ...ratioOf(old.timing, now.timing, drift),
    ...(sameCeiling && { ceiling: (now.ceiling as Ceiling).ms / (old.ceiling as Ceiling).ms }),
  };
}

export function compare(old: Results, now: Results): Comparison {
  const [before, after] = [rowsByName(old), rowsByName(now)];
  const names = [...new Set(now.rows.map(nameOf))];
  const drift = driftOf(before, after);
  const machineNames = new Set([...Object.keys(old.machine), ...Object.keys(now.machine)]);
  return {
    rows: names.flatMap((name) => {
      const [oldRow, row] = [before.get(name), after.get(name)];
      return oldRow && row ? [comparedRow(oldRow, row, drift)] : [];
    }),
    onlyOld: [...new Set(old.rows.map(nameOf))].filter((name) => !after.has(name)),
    onlyNew: names.filter((name) => !before.has(name)),
    drift,
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

function notes(drift: number | undefined): string[] {
  const ofDrift =
    drift === undefined
      ? "What the machine's speed changes from run to run is not in it, for want of peers in both runs: hold the ratio against that of the ceiling."
      : `So is what the machine changes from run to run: peers, which stayed the same, moved by ${(100 * Math.expm1(drift)).toFixed(0)} % (median).`;
  return [
    "In brackets: where the ratio lies with 95 % confidence; of 20 equal rows about one is outside by chance. The runs' own noise is in it.",
    ofDrift,
  ];
}

/** The comparison as a Markdown page. */
export function comparisonPage({ rows, onlyOld, onlyNew, drift, machine }: Comparison): string {
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
    ...(rows.length > 0 ? [...table(COLUMNS, rows), "", `${counts.join(", ")}.`, "", ...notes(drift), ""] : ["No row is in both.", ""]),
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
