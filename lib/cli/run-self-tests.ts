import { type Judged, judge, PRECISIONS } from "./check.js";
import { SELF_TESTS, type SelfTest } from "./self-tests.js";

/** What a self-test of one operation came to. */
export interface Verdict {
  operation: string;
  ok: boolean;
  checks: Judged[];
  /** Why there are no numbers, or not all. */
  error?: string;
}

export function testOperation(operation: string, tests: Readonly<Record<string, SelfTest>> = SELF_TESTS): Verdict {
  const checks: Judged[] = [];
  const test = tests[operation];
  if (test === undefined) return { operation, ok: false, checks, error: "no self-test covers it" };
  try {
    for (const precision of PRECISIONS) checks.push(...test(precision).map((check) => judge(check, precision)));
  } catch (error) {
    return { operation, ok: false, checks, error: error instanceof Error ? `${error.name}: ${error.message}` : String(error) };
  }
  return { operation, ok: checks.length > 0 && checks.every(({ ok }) => ok), checks };
}
