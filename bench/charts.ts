/** The results as pictures: a chart for each group of operations, of the times beside their ceilings and their peers. */

import { svgOf } from "../examples/quickstart/svg.js";
import type { Timing } from "./measure.js";
import type { Row } from "./report.js";

export interface Chart {
  /** The operation that its rows begin with, or what it is over. */
  name: string;
  svg: string;
}

const WIDTH = 1000;
const LABELS = 420;
const ROW = 42;
const MARGIN = { top: 72, bottom: 52 };
const OURS = "this library";
const CEILING = "ceiling";
/** Ours, the ceiling, then peers. */
export const COLORS = ["#2f6db3", "#555555", "#c8553d", "#3f8f5f", "#8f5fa8", "#b08a2e", "#4a9aa8"];

/** A point of a series: milliseconds, and the line of the chart. */
type Point = [number, string];

/** Rows of one operation, with and without its pull-back: "gram" and "gram, gramVjp". */
function groupsOf(rows: readonly Row[]): Map<string, Row[]> {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const name = row.operation.split(",")[0] as string;
    groups.set(name, [...(groups.get(name) ?? []), row]);
  }
  return groups;
}

/** What a line is called. A time that stands in two rows, against two ceilings, gets two lines. */
function labelOf({ operation, what, ceiling }: Row): string {
  return [operation.includes(",") ? `${operation}: ${what}` : what, ...(ceiling ? [`against ${ceiling.name}`] : [])].join("\n");
}

function scatter(name: string, symbol: string, data: Point[], size: number | [number, number] = 11) {
  return { type: "scatter", name, symbol, symbolSize: size, data };
}

/** A thin bar from the 20 % to the 80 % quantile. */
function spread(rows: readonly Row[]) {
  const ends = ({ q20, q80 }: Timing, label: string) => [{ coord: [q20, label] }, { coord: [q80, label] }];
  return {
    symbol: "none",
    silent: true,
    lineStyle: { type: "solid", width: 3, color: COLORS[0], opacity: 0.4 },
    data: rows.map((row) => ends(row.timing, labelOf(row))),
  };
}

function seriesOf(rows: readonly Row[]) {
  const peers = [...new Set(rows.flatMap((row) => Object.keys(row.peers)))];
  const ofPeer = (name: string) => rows.flatMap((row): Point[] => (row.peers[name] ? [[row.peers[name].median, labelOf(row)]] : []));
  return [
    {
      ...scatter(
        OURS,
        "circle",
        rows.map((row): Point => [row.timing.median, labelOf(row)]),
      ),
      markLine: spread(rows),
    },
    scatter(
      CEILING,
      "rect",
      rows.flatMap((row): Point[] => (row.ceiling ? [[row.ceiling.ms, labelOf(row)]] : [])),
      [3, 22],
    ),
    ...peers.map((name) => scatter(name, "diamond", ofPeer(name), 13)),
  ].filter(({ data }) => data.length > 0);
}

export function logAxis(name: string) {
  return { type: "log", name, nameLocation: "middle", nameGap: 28, minorSplitLine: { show: true } };
}

/** A chart on a ground of its own, since pages may be dark. */
export function pageOf(name: string, title: string, option: object, size: { width: number; height: number }): Chart {
  const ground = { color: COLORS, backgroundColor: "#fff", title: { text: title, left: 16, top: 8, textStyle: { fontSize: 15 } } };
  return { name, svg: svgOf({ ...ground, ...option }, size) };
}

function chartOf(name: string, rows: readonly Row[]): Chart {
  const height = MARGIN.top + MARGIN.bottom + ROW * rows.length;
  const option = {
    legend: { top: 34, itemWidth: 14, itemGap: 20 },
    grid: { left: LABELS, right: 40, ...MARGIN },
    xAxis: logAxis("milliseconds (logarithmic)"),
    yAxis: {
      type: "category",
      inverse: true,
      data: rows.map(labelOf),
      axisLabel: { interval: 0, width: LABELS - 90, overflow: "break", fontSize: 10, lineHeight: 12 },
      splitLine: { show: true },
    },
    series: seriesOf(rows),
  };
  return pageOf(name, name, option, { width: WIDTH, height });
}

export function chartsOf(rows: readonly Row[]): Chart[] {
  return [...groupsOf(rows)].map(([name, group]) => chartOf(name, group));
}
