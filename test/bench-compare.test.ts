import { describe, expect, it } from "vitest";
import { compare, comparisonPage, ratioOf } from "../bench/compare.js";
import { timingOf } from "../bench/measure.js";
import type { Results, Row } from "../bench/report.js";

/** One run of ten is disturbed, as on a machine that others use too. */
const DISTURBED = 0.1;

/** Times about a median, with a share of them slower by 30 %. */
function samples(median: number, runs: number, seed: number, disturbed = DISTURBED): number[] {
  let state = seed;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >>> 0) / 2 ** 32;
  };
  const gaussian = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return Array.from({ length: runs }, () => median * Math.exp(0.03 * gaussian()) * (uniform() < disturbed ? 1.3 : 1));
}

const PAIRS = Array.from({ length: 200 }, (_, i) => [2 * i + 1, 2 * i + 2] as const);

function verdicts(slowdown: number, disturbed: number): string[] {
  const timing = (median: number, seed: number) => timingOf(samples(median, 15, seed, disturbed));
  return PAIRS.map(([a, b]) => ratioOf(timing(10, a), timing(10 * slowdown, b)).verdict);
}

const shareOf = (verdict: string, all: readonly string[]) => all.filter((one) => one === verdict).length / all.length;

describe("the interval of a median", () => {
  it("lies between the order statistics of the binomial distribution", () => {
    const upTo = (n: number) => timingOf(Array.from({ length: n }, (_, i) => i + 1)).interval;
    // Tables of the sign test, 95 %.
    expect([6, 8, 9, 15, 20, 25].map(upTo)).toEqual([
      [1, 6],
      [1, 8],
      [2, 8],
      [4, 12],
      [6, 15],
      [8, 18],
    ]);
  });

  it("is none of fewer than six runs", () => {
    expect(timingOf([1, 2, 3, 4, 5]).interval).toBeUndefined();
  });

  it("narrows with thousands of independent runs", () => {
    const [low, high] = timingOf(samples(10, 5000, 3)).interval as [number, number];
    expect(high - low).toBeLessThan(0.05);
    expect(low).toBeLessThan(10.2);
    expect(high).toBeGreaterThan(9.8);
  });

  it("does not narrow with runs that wander together", () => {
    const levels = samples(1, 15, 5, 0);
    const wandering = levels.flatMap((level, i) => samples(10 * level, 100, i + 1, 0));
    const [low, high] = timingOf(wandering).interval as [number, number];
    const [lowest, highest] = timingOf(levels).interval as [number, number];
    expect(low / 10).toBeCloseTo(lowest, 1);
    expect(high / low).toBeGreaterThan(0.9 * (highest / lowest));
  });

  it("holds the true median nearly as often as it says, or more often", () => {
    const held = Array.from({ length: 2000 }, (_, seed) => timingOf(samples(1, 15, seed + 1)).interval as [number, number]);
    // A tenth of the runs are slower by 30 %: the median is that of a normal distribution at the quantile 0.5 / 0.9.
    const median = Math.exp(0.03 * 0.1397);
    expect(held.filter(([low, high]) => low <= median && median <= high).length / held.length).toBeGreaterThan(0.94);
  });
});

describe("comparison of two runs", () => {
  it("calls equal distributions noise, but for the few that chance puts apart", () => {
    expect(shareOf("within noise", verdicts(1, 0))).toBeGreaterThan(0.93);
    expect(shareOf("within noise", verdicts(1, DISTURBED))).toBeGreaterThan(0.93);
  });

  it("calls 20 % more slower, and 20 % less faster", () => {
    expect(shareOf("slower", verdicts(1.2, 0))).toBe(1);
    expect(shareOf("faster", verdicts(0.8, 0))).toBe(1);
  });

  it("misses few of them where runs are disturbed, and never takes one for the other", () => {
    expect(shareOf("slower", verdicts(1.2, DISTURBED))).toBeGreaterThan(0.9);
    expect(verdicts(1.2, DISTURBED)).not.toContain("faster");
    expect(shareOf("faster", verdicts(0.8, DISTURBED))).toBeGreaterThan(0.9);
    expect(verdicts(0.8, DISTURBED)).not.toContain("slower");
  });

  it("puts the ratio into its interval, and the mirrored interval round the mirrored ratio", () => {
    const [old, now] = [timingOf(samples(10, 15, 1)), timingOf(samples(11, 15, 2))];
    const { ratio, interval } = ratioOf(old, now);
    const [low, high] = interval as [number, number];
    expect(low).toBeLessThanOrEqual(ratio);
    expect(high).toBeGreaterThanOrEqual(ratio);
    const mirrored = ratioOf(now, old).interval as [number, number];
    expect(mirrored[0]).toBeCloseTo(1 / high, 12);
    expect(mirrored[1]).toBeCloseTo(1 / low, 12);
  });

  it("takes the drift of the machine from peers", () => {
    const timing = (median: number) => timingOf(Array.from({ length: 15 }, (_, i) => median * (1 + i / 1000)));
    const peers = (factor: number) => Object.fromEntries(["a", "b", "c", "d", "e"].map((name) => [name, timing(100 * factor)]));
    const run = (median: number, factor: number) => results([{ ...rowOf("both", timing(median)), peers: peers(factor) }]);
    const verdict = (factor: number, ofPeers: number) => compare(run(10, 1), run(10 * factor, ofPeers)).rows[0]?.verdict;
    expect(verdict(1.1, 1)).toBe("slower");
    expect(verdict(1.1, 1.1)).toBe("within noise");
    expect(verdict(1.1, 0.9)).toBe("within noise");
    expect(verdict(2, 1.1)).toBe("slower");
    expect(comparisonPage(compare(run(10, 1), run(10, 1.1)))).toContain("moved by 10 % (median)");
    expect(comparisonPage(compare(results([rowOf("both", timing(10))]), run(10, 1)))).toContain("for want of peers");
  });

  it("goes by medians where a side has no interval, and says so", () => {
    const old = { median: 10, q20: 9, q80: 11 };
    const now = timingOf(samples(12, 15, 1));
    expect(ratioOf(old, now)).toEqual({ ratio: now.median / 10, verdict: "slower by medians" });
    const page = comparisonPage(compare(results([rowOf("a", old)]), results([rowOf("a", now)])));
    expect(page).toContain("Compared by medians alone: 1 of 1 rows");
  });

  it("lists the rows that one side lacks, once each, and what differs of the machine", () => {
    const timing = timingOf(samples(10, 15, 1));
    const old = results([rowOf("both", timing), rowOf("gone", timing)], { threads: 2 });
    const now = results([rowOf("both", timing, 4), rowOf("both", timing, 5), rowOf("added", timing)], { threads: 4 });
    const comparison = compare(old, now);
    expect(comparison.rows).toMatchObject([{ operation: "op", what: "both", ratio: 1, verdict: "within noise", ceiling: 2 }]);
    expect(comparison.onlyOld).toEqual(["op: gone"]);
    expect(comparison.onlyNew).toEqual(["op: added"]);
    expect(comparison.machine).toEqual([["threads", "2", "4"]]);
    expect(comparisonPage(comparison)).toContain("| op | both |");
  });
});

function rowOf(what: string, timing: Row["timing"], ceiling = 2): Row {
  return { operation: "op", what, timing, ceiling: { name: "copy", ms: ceiling }, peers: {} };
}

function results(rows: Row[], machine: Results["machine"] = {}): Results {
  return { date: "2026-01-01", machine, rows };
}
