import { svgOf } from "./svg.js";
import type { ArmResult, CurvePoint } from "./train.js";

type Point = [number, number];

export interface Chart {
  readonly title: string;
  readonly svg: string;
}

const SIZE = { width: 520, height: 300 } as const;
const COLORS = ["#2f6db3", "#c8553d", "#3f8f5f", "#8f5fa8", "#b08a2e", "#4a9aa8"];
const WINDOW = 8;

/** Mean of the last few values, one point per step. */
function smoothed(values: readonly number[]): Point[] {
  return values.map((_, index) => {
    const recent = values.slice(Math.max(0, index + 1 - WINDOW), index + 1);
    return [index + 1, recent.reduce((sum, value) => sum + value, 0) / recent.length];
  });
}

function draw(title: string, series: readonly { name: string; data: Point[] }[]): Chart {
  const option = {
    color: COLORS,
    grid: { left: 56, right: 16, top: 40, bottom: 44 },
    legend: { top: 8 },
    xAxis: { type: "value", name: "step", nameLocation: "middle", nameGap: 28 },
    yAxis: { type: "value", scale: true },
    series: series.map(({ name, data }) => ({ type: "line", name, data, showSymbol: data.length < 20 })),
  };
  return { title, svg: svgOf(option, SIZE) };
}

/** What the metrics of an arm's steps say under names that begin with `prefix`. */
function ofMetrics(title: string, { metrics }: ArmResult, prefix: string): Chart {
  const names = Object.keys(metrics[0] ?? {}).filter((name) => name.startsWith(prefix));
  return draw(
    title,
    names.map((name) => ({ name: name.slice(prefix.length), data: smoothed(metrics.map((step) => step[name] ?? Number.NaN)) })),
  );
}

/** Weights and responsibilities of the mixture's kernels over training, for each arm that has one. */
function mixtureCharts(arms: readonly ArmResult[]): Chart[] {
  const mixtures = arms.filter(({ metrics }) => metrics[0]?.["hmk/entropy"] !== undefined);
  return mixtures.flatMap((result) => [
    ofMetrics(`Weights in the mixture, ${result.arm.name} (mean of ${WINDOW} steps)`, result, "hmk/weight/"),
    ofMetrics(`Responsibilities of the kernels, ${result.arm.name} (mean of ${WINDOW} steps)`, result, "hmk/responsibility/"),
  ]);
}

/** The curves of a run, each as SVG text. */
export function drawCharts(arms: readonly ArmResult[]): Chart[] {
  const heldOut = (title: string, read: (point: CurvePoint) => number) =>
    draw(
      title,
      arms.map(({ arm, curve }) => ({ name: arm.name, data: curve.map((point): Point => [point.step, read(point)]) })),
    );
  return [
    draw(
      `Training loss (mean of ${WINDOW} steps)`,
      arms.map(({ arm, losses }) => ({ name: arm.name, data: smoothed(losses) })),
    ),
    heldOut("Held-out loss, by log-probabilities alone", (point) => point.policyLoss),
    heldOut("Held-out reward accuracy", (point) => point.accuracy),
    heldOut("Held-out margin", (point) => point.margin),
    heldOut("Held-out kernel log-ratio", (point) => point.kernelRatio),
    heldOut("Change of log π(chosen), held out", (point) => point.chosenChange),
    ...mixtureCharts(arms),
  ];
}
