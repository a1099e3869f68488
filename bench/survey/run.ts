import { threads, useThreads } from "dpo-kernels";
import { collectGarbage } from "../garbage.js";
import { Placement } from "../inputs.js";
import type { Timing } from "../measure.js";
import { type Call, operationOf, type SurveyCase } from "./case.js";
import { SLOW, timedAsync, timedSync } from "./timed.js";

export interface Faces {
  sync: Timing;
  /** Not of calls that take seconds, beside which the way to another thread is nothing. */
  async?: Timing;
}

/** One case, timed. */
export interface SurveyLine {
  operation: string;
  what: string;
  shape: string;
  dtype: string;
  /** With one thread; not on a device, where the host's threads do nothing. */
  one?: Faces;
  /** With as many as `threads`. */
  all: Faces;
  threads: number;
}

/** The survey as results keep it. */
export interface Survey {
  lines: SurveyLine[];
  /** Of the operations that the backend lacks: how many cases could not run. */
  notRun: Record<string, number>;
}

async function facesOf(call: Call): Promise<Faces> {
  const sync = await timedSync(call);
  return sync.median > SLOW ? { sync } : { sync, async: await timedAsync(call) };
}

async function withOneThread(call: Call): Promise<Faces> {
  const all = threads();
  useThreads(1);
  try {
    return await facesOf(call);
  } finally {
    useThreads(all);
  }
}

async function lineOf(one: SurveyCase, device: string): Promise<SurveyLine> {
  const placement = new Placement(device);
  const call = one.prepare(placement.placed);
  const { what, shape, dtype } = one;
  const line = { operation: operationOf(one), what, shape, dtype, all: await facesOf(call), threads: threads() };
  const withOne = device === "cpu" && { one: await withOneThread(call) };
  placement.dispose();
  return { ...line, ...withOne };
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
