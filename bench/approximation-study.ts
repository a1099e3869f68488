/** How the error of approximate features falls with their number: writes docs/approximations.{json,svg,md}. */

import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { featureErrorSync, fitKernelSync, kernels, nystromSync, randomFeaturesSync, type Tensor, tensor } from "dpo-kernels";
import { svgOf } from "../examples/quickstart/svg.js";
import { randomArray } from "./inputs.js";
import { exponentOf } from "./slope.js";

const [ROWS, WIDTH, CLUSTERS, SEEDS] = [1024, 64, 16, 5];
const WIDTHS = [16, 32, 64, 128, 256, 512];

interface Point {
  width: number;
  mean: number;
  least: number;
  most: number;
}

/** Rows about a few centres. */
function clustered(): Tensor {
  const centres = randomArray(CLUSTERS * WIDTH, 1, 3);
  const noise = randomArray(ROWS * WIDTH, 0.3, 5);
  return tensor(
    noise.map((value, i) => value + (centres[(Math.floor(i / WIDTH) % CLUSTERS) * WIDTH + (i % WIDTH)] ?? 0)),
    [ROWS, WIDTH],
  );
}

function study(x: Tensor): Record<string, Point[]> {
  const kernel = fitKernelSync({ kernel: kernels.rbf({ sigma: "median" }), embeddings: { prompt: x, chosen: x, rejected: x } });
  const methods = {
    "random Fourier": (width: number, seed: number) => randomFeaturesSync({ kernel, frequencies: width / 2, depth: WIDTH, seed }),
    "orthogonal random Fourier": (width: number, seed: number) =>
      randomFeaturesSync({ kernel, frequencies: width / 2, depth: WIDTH, orthogonal: true, seed }),
    "Nyström, uniform": (width: number, seed: number) => nystromSync({ x, kernel, landmarks: width, method: "uniform", seed }),
    "Nyström, k-means++": (width: number, seed: number) => nystromSync({ x, kernel, landmarks: width, method: "kmeans++", seed }),
    "Nyström, leverage": (width: number, seed: number) => nystromSync({ x, kernel, landmarks: width, method: "leverage", seed }),
  };
  return Object.fromEntries(
    Object.entries(methods).map(([name, make]) => [
      name,
      WIDTHS.map((width) => {
        const errors = Array.from({ length: SEEDS }, (_, seed) => featureErrorSync({ features: make(width, seed), x, rows: 256 }).relative);
        return { width, mean: errors.reduce((sum, error) => sum + error, 0) / SEEDS, least: Math.min(...errors), most: Math.max(...errors) };
      }),
    ]),
  );
}

function chartOf(results: Record<string, Point[]>): string {
  const option = {
    grid: { left: 64, right: 24, top: 64, bottom: 52 },
    legend: { top: 8 },
    xAxis: { type: "log", logBase: 2, name: "features", nameLocation: "middle", nameGap: 30, min: WIDTHS[0], max: WIDTHS.at(-1) },
    yAxis: { type: "log", name: "relative error (Frobenius)" },
    series: Object.entries(results).map(([name, points]) => ({ type: "line", name, data: points.map(({ width, mean }) => [width, mean]) })),
  };
  return svgOf(option, { width: 720, height: 420 });
}

function pageOf(results: Record<string, Point[]>): string {
  const show = (value: number): string => value.toPrecision(2);
  const line = ([name, points]: [string, Point[]]): string =>
    `| ${name} | ${points.map(({ mean, least, most }) => `${show(mean)} (${show(least)}–${show(most)})`).join(" | ")} | ${exponentOf(points.map(({ width, mean }) => [width, mean])).toFixed(2)} |`;
  return [
    "# Approximate features",
    "",
    `Error of φ(x)·φ(y) against rbf with the median bandwidth: Frobenius norm of the difference over that of the kernel's matrix, on 256 of ${ROWS} rows`,
    `[${WIDTH}] about ${CLUSTERS} centres; mean (least–most) of ${SEEDS} seeds. The slope is that of ln error over ln width: −½ is 1/√R.`,
    "Written by `npx tsx --tsconfig tsconfig.check.json bench/approximation-study.ts`.",
    "",
    "![Error by number of features](approximations.svg)",
    "",
    `| features | ${WIDTHS.join(" | ")} | slope |`,
    `|---|${WIDTHS.map(() => "---|").join("")}---|`,
    ...Object.entries(results).map(line),
    "",
  ].join("\n");
}

const results = study(clustered());
const docs = fileURLToPath(new URL("../docs", import.meta.url));
writeFileSync(`${docs}/approximations.json`, `${JSON.stringify(results, null, 2)}\n`);
writeFileSync(`${docs}/approximations.svg`, chartOf(results));
writeFileSync(`${docs}/approximations.md`, pageOf(results));
