import { threads, useThreads } from "dpo-kernels";
import { collectGarbage } from "./garbage.js";
import { Placement } from "./inputs.js";
import { peakMemoryOf } from "./peak-memory.js";
import type { Curve, CurvePoint } from "./scaling-report.js";
import type { Shape } from "./shapes.js";
import { exponentOf, upperHalf } from "./slope.js";
import type { Call, Placed, Work } from "./survey/case.js";
import { JS_VALUE_AND_GRADIENT } from "./survey/divergences.js";
import { GRAM, pairValueAndGradients } from "./survey/kernels.js";
import { HEAD_VALUE_AND_GRADIENTS } from "./survey/log-probs.js";
import { LOSS } from "./survey/preference.js";
import { timedSync } from "./survey/timed.js";

type Scale = "full" | "tiny";

interface Plan {
  name: string;
  axis: string;
  expected: number;
  points: Record<Scale, readonly number[]>;
  needs: readonly string[];
  prepare(at: number, placed: Placed): Call;
  /** Bytes, measured in a process of its own. */
  memory?(at: number): number;
}

/** from, 2·from, 4·from, … up to `to`. */
function doubling(from: number, to: number): number[] {
  return Array.from({ length: 1 + Math.round(Math.log2(to / from)) }, (_, i) => from * 2 ** i);
}

const HEAD = { rows: 128, depth: 256 };
const ANY = { name: "", use: "bench" } as const;

interface Axis<S> extends Pick<Plan, "name" | "axis" | "points" | "memory"> {
  work: Work<S>;
  shapeAt(at: number): Omit<S, keyof Shape>;
  /** Default: 1. */
  expected?: number;
}

function plan<S extends Shape>({ work, shapeAt, expected = 1, ...others }: Axis<S>): Plan {
  const { calls, needs = calls, prepare } = work;
  return { ...others, expected, needs, prepare: (at, placed) => prepare({ ...ANY, ...shapeAt(at) } as unknown as S, "f32", placed) };
}

const headMemory = (vocabulary: number): number => peakMemoryOf("linearTokenLogProbs, value + pull-back", "full", { ...HEAD, vocabulary });

const PLANS: readonly Plan[] = [
  plan({
    name: "divergence, js, V=32000",
    axis: "N",
    points: { full: doubling(32, 1024), tiny: [2, 4] },
    work: JS_VALUE_AND_GRADIENT,
    shapeAt: (rows) => ({ rows, vocabulary: 32_000 }),
  }),
  plan({
    name: "divergence, js, N=64",
    axis: "V",
    points: { full: doubling(1000, 256_000), tiny: [40, 80] },
    work: JS_VALUE_AND_GRADIENT,
    shapeAt: (vocabulary) => ({ rows: 64, vocabulary }),
  }),
  plan({
    name: "linearTokenLogProbs, N=128 D=256",
    axis: "V",
    points: { full: doubling(2000, 256_000), tiny: [40, 80] },
    work: HEAD_VALUE_AND_GRADIENTS,
    shapeAt: (vocabulary) => ({ ...HEAD, vocabulary }),
    memory: headMemory,
  }),
  plan({
    name: "linearTokenLogProbs, N=128 V=8000",
    axis: "D",
    points: { full: doubling(64, 2048), tiny: [4, 8] },
    work: HEAD_VALUE_AND_GRADIENTS,
    shapeAt: (depth) => ({ rows: HEAD.rows, depth, vocabulary: 8000 }),
  }),
  ...(["rbf", "hmk"] as const).map((name) =>
    plan({
      name: `pairKernel, ${name}, B=512`,
      axis: "D",
      points: { full: doubling(128, 4096), tiny: [4, 8] },
      work: pairValueAndGradients(name),
      shapeAt: (depth) => ({ rows: 512, depth }),
    }),
  ),
  plan({
    name: "pairKernel, hmk, D=256",
    axis: "B",
    points: { full: doubling(64, 65_536), tiny: [4, 8] },
    work: pairValueAndGradients("hmk"),
    shapeAt: (rows) => ({ rows, depth: 256 }),
  }),
  plan({
    name: "preferenceLoss, sigmoid",
    axis: "B",
    points: { full: doubling(64, 65_536), tiny: [4, 8] },
    work: LOSS,
    shapeAt: (pairs) => ({ pairs, tokens: 1 }),
  }),
  plan({
    name: "gram, rbf, two samples, value, D=256",
    axis: "N",
    points: { full: doubling(256, 4096), tiny: [4, 8] },
    work: GRAM,
    shapeAt: (rows) => ({ rows, depth: 256 }),
    expected: 2,
  }),
];

/** A call of one size, with 1, 2, … threads. */
interface Team {
  name: string;
  needs: readonly string[];
  prepare(scale: Scale, placed: Placed): Call;
}

function team<S extends Shape>(name: string, { calls, needs = calls, prepare }: Work<S>, shapes: Record<Scale, Omit<S, keyof Shape>>): Team {
  return { name, needs, prepare: (scale, placed) => prepare({ ...ANY, ...shapes[scale] } as unknown as S, "f32", placed) };
}

const TEAMS: readonly Team[] = [
  team("divergence, js, [512, 32000]", JS_VALUE_AND_GRADIENT, { full: { rows: 512, vocabulary: 32_000 }, tiny: { rows: 4, vocabulary: 40 } }),
  team("linearTokenLogProbs, N=128 D=256 V=32000", HEAD_VALUE_AND_GRADIENTS, {
    full: { ...HEAD, vocabulary: 32_000 },
    tiny: { rows: 4, depth: 8, vocabulary: 40 },
  }),
  team("gram, rbf, value, [2048, 256]", GRAM, { full: { rows: 2048, depth: 256 }, tiny: { rows: 8, depth: 4 } }),
];

function curveOf(name: string, axis: string, expected: number, points: CurvePoint[]): Curve {
  const exponent = points.length > 1 && exponentOf(upperHalf(points).map(({ at, timing }) => [at, timing.median]));
  return { name, axis, points, ...(exponent !== false && { exponent }), expected };
}

async function placedCall(device: string, prepare: (placed: Placed) => Call, time: (call: Call) => Promise<void>): Promise<void> {
  const placement = new Placement(device);
  await time(prepare(placement.placed));
  placement.dispose();
  collectGarbage();
}

async function curveOfPlan({ name, axis, expected, points, prepare, memory }: Plan, scale: Scale, device: string): Promise<Curve> {
  const measured: CurvePoint[] = [];
  for (const at of points[scale]) {
    const time = async (call: Call) => void measured.push({ at, timing: await timedSync(call) });
    await placedCall(device, (placed) => prepare(at, placed), time);
  }
  if (memory && device === "cpu") for (const point of measured) point.bytes = memory(point.at);
  return curveOf(name, axis, expected, measured);
}

async function curveOfTeam({ name, prepare }: Team, scale: Scale): Promise<Curve> {
  const all = threads();
  const measured: CurvePoint[] = [];
  await placedCall(
    "cpu",
    (placed) => prepare(scale, placed),
    async (call) => {
      for (let at = 1; at <= all; at++) {
        useThreads(at);
        measured.push({ at, timing: await timedSync(call) });
      }
      useThreads(all);
    },
  );
  return curveOf(name, "threads", -1, measured);
}

/** @param has the operations of the backend; curves of others are left out, and on a device those over threads of the host */
export async function scalingCurves(scale: Scale, device: string, has: readonly string[]): Promise<Curve[]> {
  const runs = ({ needs }: { needs: readonly string[] }): boolean => needs.every((operation) => has.includes(operation));
  const curves: Curve[] = [];
  for (const one of PLANS.filter(runs)) curves.push(await curveOfPlan(one, scale, device));
  if (device === "cpu") for (const one of TEAMS.filter(runs)) curves.push(await curveOfTeam(one, scale));
  return curves;
}
