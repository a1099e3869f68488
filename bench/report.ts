import type { Timing } from "./measure.js";

/** One line of the results. */
export interface Row {
  operation: string;
  what: string;
  timing: Timing;
  /** What the time is held against, measured in the same run. */
  ceiling?: { name: string; ms: number; bound?: number };
  /** The same work elsewhere, in the same run. */
  peers: Record<string, Timing>;
}

/** What bench/results/*.json holds. */
export interface Results {
  date: string;
  machine: Record<string, string | number>;
  rows: Row[];
  /** Extra bytes at the peak, by operation. */
  peakMemory: Record<string, number>;
}

const ms = ({ median, q20, q80 }: Timing) => `${median.toPrecision(3)} (${q20.toPrecision(3)}–${q80.toPrecision(3)})`;

function line({ operation, what, timing, ceiling, peers }: Row): string {
  const ratio = ceiling ? `${(timing.median / ceiling.ms).toFixed(2)} × ${ceiling.name} (${ceiling.ms.toPrecision(3)} ms)` : "";
  const bound = ceiling?.bound ? `≤ ${ceiling.bound} ×` : "";
  const others = Object.entries(peers).map(([name, peer]) => `${name} ${ms(peer)}: ${(peer.median / timing.median).toFixed(1)} ×`);
  return `| ${operation} | ${what} | ${ms(timing)} | ${ratio} | ${bound} | ${others.join("; ")} |`;
}

/** The results as a Markdown page. */
export function markdown({ date, machine, rows, peakMemory }: Results): string {
  const description = Object.entries(machine).map(([name, value]) => `${name} ${value}`);
  const memory = Object.entries(peakMemory).map(([name, bytes]) => `| ${name} | ${(bytes / 2 ** 20).toFixed(1)} |`);
  return [
    "# Benchmark",
    "",
    `${date}. ${description.join(", ")}.`,
    "",
    "Milliseconds: median (20 % to 80 % quantile) of interleaved runs. Peers: their time, and how many times ours it is.",
    "",
    "| operation | what | ms | against its ceiling in the same run | bound | peers |",
    "|---|---|---|---|---|---|",
    ...rows.map(line),
    "",
    "| peak memory beyond inputs and results | MiB |",
    "|---|---|",
    ...memory,
    "",
  ].join("\n");
}
