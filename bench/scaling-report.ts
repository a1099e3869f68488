import { type Chart, COLORS, logAxis, pageOf } from "./charts.js";
import { type Column, table } from "./markdown-table.js";
import type { Timing } from "./measure.js";

export interface CurvePoint {
  at: number;
  timing: Timing;
  /** Peak memory beyond inputs and results, where it is measured. */
  bytes?: number;
}

/** How the time of one kind of work grows with one of its extents. */
export interface Curve {
  name: string;
  /** What grows: "N", "V", "D", "B" or "threads". */
  axis: string;
  points: CurvePoint[];
  /** That of the power law through the upper half of the points; none of one point. */
  exponent?: number;
  expected: number;
}

const SIZE = { width: 760, height: 440 };

const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);

const COLUMNS: readonly Column<Curve>[] = [
  { title: "curve", cell: ({ name }) => name },
  { title: "over", cell: ({ axis, points }) => `${axis} = ${points.map(({ at }) => at).join(", ")}` },
  { title: "ms", cell: ({ points }) => points.map(({ timing }) => timing.median.toPrecision(3)).join(", ") },
  { title: "exponent", cell: ({ exponent }) => exponent?.toFixed(2) ?? "–" },
  { title: "expected", cell: ({ expected }) => String(expected) },
  {
    title: "peak memory beyond inputs and results, MiB",
    cell: ({ points }) => points.flatMap(({ bytes }) => (bytes === undefined ? [] : [mebibytes(bytes)])).join(", "),
    optional: true,
  },
];

const MEMORY_LIMITED = "Memory grows up to the memory limit, 56 MiB where none is given, and a few MiB a thread, and no further.";

export function scalingSection(curves: readonly Curve[]): string[] {
  return [
    "## Scaling",
    "",
    "Medians, value and gradients where not said otherwise. The exponent is that of a power law through the upper half of the points, by least squares on",
    "logarithms.",
    "",
    ...table(COLUMNS, curves),
    "",
    ...(curves.some(({ points }) => points.some(({ bytes }) => bytes)) ? [MEMORY_LIMITED, ""] : []),
  ];
}

/** The expected law through the last point. */
function lawOf({ points, expected }: Curve): [number, number][] {
  const last = points.at(-1);
  return last ? points.map(({ at }) => [at, last.timing.median * (at / last.at) ** expected]) : [];
}

function chartOf(axis: string, curves: readonly Curve[]): Chart {
  const series = curves.flatMap((curve, i) => {
    const color = COLORS[i % COLORS.length];
    return [
      { type: "line", name: curve.name, color, symbol: "circle", symbolSize: 7, data: curve.points.map(({ at, timing }) => [at, timing.median]) },
      { type: "line", color, symbol: "none", silent: true, lineStyle: { type: "dotted", width: 1.5 }, data: lawOf(curve) },
    ];
  });
  const option = {
    legend: { top: 34, orient: "vertical", left: 16, data: curves.map(({ name }) => name) },
    grid: { left: 70, right: 40, top: 52 + 24 * curves.length, bottom: 52 },
    xAxis: { ...logAxis(axis), logBase: 2, min: "dataMin", max: "dataMax" },
    yAxis: { ...logAxis("milliseconds"), nameGap: 48 },
    series,
  };
  return pageOf(`scaling-${axis}`, `Time over ${axis}; dotted: the expected law`, option, SIZE);
}

/** A chart for each axis. */
export function scalingCharts(curves: readonly Curve[]): Chart[] {
  return [...new Set(curves.map(({ axis }) => axis))].map((axis) =>
    chartOf(
      axis,
      curves.filter((curve) => curve.axis === axis),
    ),
  );
}
