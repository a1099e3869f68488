import { backendName } from "./backend-name.js";
import { conclusionText, environmentText, nativeText, verdictText } from "./doctor-text.js";
import { type Environment, environment } from "./environment.js";
import type { NativeReport } from "./native-report.js";
import type { Verdict } from "./run-self-tests.js";

export interface DoctorOptions {
  /** As useBackend takes it. */
  readonly backend?: string | undefined;
  readonly json?: boolean | undefined;
}

/** What --json prints. */
export interface Diagnosis extends Environment, Partial<NativeReport> {
  selfTests: Verdict[];
  ok: boolean;
}

/**
 * Says what the package runs on, and tests each operation of the selected backend on numbers known by hand. Resolves to whether all is well.
 * What is known is written at once: should a test end the process, what came before it is there.
 */
export async function doctor({ backend, json = false }: DoctorOptions): Promise<boolean> {
  const say = (text: string) => void (json || process.stdout.write(`${text}\n`));
  const around = environment();
  say(environmentText(around));
  const native = await lookAround(backend);
  say(nativeText(native));
  const selfTests = await testSelected(native, (verdict) => say(verdictText(verdict)));
  const diagnosis = { ...around, ...native, selfTests, ok: selfTests.length > 0 && selfTests.every(({ ok }) => ok) };
  say(conclusionText(diagnosis));
  if (json) process.stdout.write(`${JSON.stringify(diagnosis, readable, 2)}\n`);
  return diagnosis.ok;
}

/** The addon is loaded no sooner than here, so that what it may fail by is told before. */
async function lookAround(backend: string | undefined): Promise<Partial<NativeReport>> {
  try {
    const { nativeReport } = await import("./native-report.js");
    return nativeReport(backend);
  } catch (error) {
    return { problem: `the addon cannot be loaded: ${error instanceof Error ? error.message.trim() : String(error)}` };
  }
}

async function testSelected({ selected, backends = [] }: Partial<NativeReport>, tell: (verdict: Verdict) => void): Promise<Verdict[]> {
  const tested = backends.find((backend) => backendName(backend) === selected);
  if (tested === undefined) return [];
  const { testOperation } = await import("./run-self-tests.js");
  return tested.operations.map((operation) => {
    const verdict = testOperation(operation);
    tell(verdict);
    return verdict;
  });
}

/** JSON has no infinities and no NaN. */
function readable(_: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
}
