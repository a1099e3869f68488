import { threads, useThreads } from "dpo-kernels";
import { collectGarbage } from "../garbage.js";
import { Placement } from "../inputs.js";
import type { Timing } from "../measure.js";
import { type Call, operationOf, type SurveyCase } from "./case.js";
import { timedAsync, timedSync } from "./timed.js";

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

async function facesOf(call: Call): Promise<Faces> {
  return { sync: await timedSync(call), async: await timedAsync(call) };
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
