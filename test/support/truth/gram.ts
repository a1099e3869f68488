/** Reference for matrices of kernels: every pair of rows on the tape of kernels.ts, in float64. */

import type { Kernel } from "dpo-kernels";
import { remembered } from "../remember.js";
import { type Gradient, type KernelInputs, logKernelGradients, logKernelTruth } from "./kernels.js";
import { at, type Numbers } from "./numbers.js";

export interface GramInputs {
  /** [N, D] */
  readonly x: Numbers;
  /** [M, D]; left out, x again. */
  readonly y?: Numbers | undefined;
  /** D */
  readonly width: number;
}

export interface GramTruthGradients {
  readonly x: Gradient;
  readonly y?: Gradient;
  readonly params: Readonly<Record<string, Gradient>>;
}

/** Row i·M + j of u and v are rows i of x and j of y. */
export function pairsOf({ x, y = x, width }: GramInputs): KernelInputs {
  const [n, m] = [x.length / width, y.length / width];
  const [u, v] = [new Float64Array(n * m * width), new Float64Array(n * m * width)];
  for (let pair = 0; pair < n * m; pair++) {
    for (let k = 0; k < width; k++) {
      u[pair * width + k] = at(x, Math.floor(pair / m) * width + k);
      v[pair * width + k] = at(y, (pair % m) * width + k);
    }
  }
  return { u, v, width };
}

export const gramTruth = remembered(gramTruthOf);

function gramTruthOf(kernel: Kernel, inputs: GramInputs): Float64Array {
  return logKernelTruth(kernel, pairsOf(inputs)).logK.map(Math.exp);
}

/** Gradients of Σ upstream·K. */
export const gramGradients = remembered(gramGradientsOf);

function gramGradientsOf(kernel: Kernel, inputs: GramInputs, upstream: Numbers): GramTruthGradients {
  const { x, y, width } = inputs;
  const k = gramTruth(kernel, inputs);
  const ofLogs = k.map((value, pair) => value * at(upstream, pair));
  const { u, v, params } = logKernelGradients(kernel, pairsOf(inputs), ofLogs);
  const columns = (y ?? x).length / width;
  const ofX = rowSums(u, x.length, width, (pair) => Math.floor(pair / columns));
  const ofY = rowSums(v, (y ?? x).length, width, (pair) => pair % columns);
  return { ...(y === undefined ? { x: sumOf(ofX, ofY) } : { x: ofX, y: ofY }), params };
}

/** Adds up the gradients of pairs by the row that they belong to. */
export function rowSums(of: Gradient, size: number, width: number, rowOf: (pair: number) => number): Gradient {
  const sums = { values: new Float64Array(size), termSums: new Float64Array(size) };
  for (let i = 0; i < of.values.length; i++) {
    const to = rowOf(Math.floor(i / width)) * width + (i % width);
    sums.values[to] = at(sums.values, to) + at(of.values, i);
    sums.termSums[to] = at(sums.termSums, to) + at(of.termSums, i);
  }
  return sums;
}

function sumOf(a: Gradient, b: Gradient): Gradient {
  return { values: a.values.map((value, i) => value + at(b.values, i)), termSums: a.termSums.map((value, i) => value + at(b.termSums, i)) };
}

/** Biased or unbiased MMD², from the formula. */
export const mmdTruth = remembered(mmdTruthOf);

function mmdTruthOf(kernel: Kernel, x: Numbers, y: Numbers, width: number, unbiased: boolean): number {
  const within = (rows: Numbers): number => {
    const n = rows.length / width;
    const k = gramTruth(kernel, { x: rows, width });
    const counted = k.filter((_, pair) => !unbiased || Math.floor(pair / n) !== pair % n);
    return counted.reduce((total, value) => total + value, 0) / counted.length;
  };
  const between = gramTruth(kernel, { x, y, width });
  return within(x) + within(y) - (2 * between.reduce((total, value) => total + value, 0)) / between.length;
}
