import { threads, useThreads } from "dpo-kernels";
import { collectGarbage } from "../garbage.js";
import { Placement } from "../inputs.js";
import { type Timing, timingOf } from "../measure.js";
import { type Call, operationOf, type SurveyCase } from "./case.js";

export interface Faces {
  sync: Timing;
  async: Timing;
}

/** One case, timed. */
export interface SurveyLine {
  operation: string;
  what: string;
  shape: string;
  dtype: string;
  /** With one thread, and with as many as `threads`. */
  one: Faces;
  all: Faces;
  threads: number;
}

/** The survey as results keep it. */
export interface Survey {
  lines: SurveyLine[];
  /** Of the operations that the backend lacks: how many cases could not run. */
  notRun: Record<string, number>;
}

const ROUNDS = 9;
/** Milliseconds that all runs of a variant may take, the warming one among them. */
const BUDGET = 700;
/** A first run that takes longer is the only one. */
const SLOW = 2000;
/** Shorter calls are timed so many together that it takes about this long. */
const SHORT = 0.5;
const MOST_REPEATS = 100;

/** Milliseconds of one of so many calls in a row. */
type Timer = (repeats: number) => number | Promise<number>;

function syncTimer({ sync }: Call): Timer {
  return (repeats) => {
    const begin = performance.now();
    for (let i = 0; i < repeats; i++) sync();
    return (performance.now() - begin) / repeats;
  };
}

function asyncTimer(call: Call): Timer {
  return async (repeats) => {
    const begin = performance.now();
    for (let i = 0; i < repeats; i++) await call.async();
    return (performance.now() - begin) / repeats;
  };
}

async function timed(timer: Timer): Promise<Timing> {
  let spent = await timer(1);
  if (spent > SLOW) return timingOf([spent]);
  const repeats = Math.min(MOST_REPEATS, Math.max(1, Math.round(SHORT / (await timer(1)))));
  const times: number[] = [];
  do {
    const time = await timer(repeats);
    times.push(time);
    spent += time * repeats;
  } while (times.length < ROUNDS && spent < BUDGET);
  return timingOf(times);
}

async function facesOf(call: Call): Promise<Faces> {
  return { sync: await timed(syncTimer(call)), async: await timed(asyncTimer(call)) };
}

async function lineOf(one: SurveyCase, device: string): Promise<SurveyLine> {
  const placement = new Placement(device);
  const all = threads();
  try {
    const call = one.prepare(placement.placed);
    const withAll = await facesOf(call);
    useThreads(1);
    const withOne = all === 1 ? withAll : await facesOf(call);
    return { operation: operationOf(one), what: one.what, shape: one.shape, dtype: one.dtype, one: withOne, all: withAll, threads: all };
  } finally {
    useThreads(all);
    placement.dispose();
  }
}

/** @param has the operations of the backend */
export async function runSurvey(cases: readonly SurveyCase[], device: string, has: readonly string[]): Promise<Survey> {
  const lines: SurveyLine[] = [];
  const notRun: Record<string, number> = {};
  for (const one of cases) {
    if (one.needs.every((operation) => has.includes(operation))) lines.push(await lineOf(one, device));
    else notRun[operationOf(one)] = (notRun[operationOf(one)] ?? 0) + 1;
    // GiBs that the next case needs.
    collectGarbage();
  }
  return { lines, notRun };
}
