import { basename, dirname } from "node:path";
import { styleText } from "node:util";
import type { Judged } from "./check.js";
import { type Environment, environment } from "./environment.js";
import type { NativeReport } from "./native-report.js";
import type { Verdict } from "./run-self-tests.js";

export interface DoctorOptions {
  /** As useBackend takes it. */
  readonly backend?: string | undefined;
  readonly json?: boolean | undefined;
}

/** What --json prints, and the rest of it in words. */
export interface Diagnosis extends Environment, Partial<NativeReport> {
  selfTests: Verdict[];
  ok: boolean;
}

type Colour = "green" | "red" | "bold";

/**
 * Says what the package runs on, and tests each operation of the selected backend on numbers known by hand. Resolves to whether all is well.
 * Each line is written once it is known: should a test end the process, those before it are there.
 */
export async function doctor({ backend, json = false }: DoctorOptions): Promise<boolean> {
  const say = (line: string) => void (json || process.stdout.write(`${line}\n`));
  const around = environment();
  say(environmentLines(around).join("\n"));
  const native = await lookAround(backend);
  say(nativeLines(native).join("\n"));
  const selfTests = await testSelected(native, (verdict) => say(verdictLines(verdict).join("\n")));
  const diagnosis = { ...around, ...native, selfTests, ok: native.selected !== undefined && selfTests.every(({ ok }) => ok) };
  say(conclusion(diagnosis));
  if (json) process.stdout.write(`${JSON.stringify(diagnosis, readable, 2)}\n`);
  return diagnosis.ok;
}

/** The addon is loaded no sooner than here, so that its failure is told, and after what it may come from. */
async function lookAround(backend: string | undefined): Promise<Partial<NativeReport>> {
  try {
    const { nativeReport } = await import("./native-report.js");
    return nativeReport(backend);
  } catch (error) {
    return { problem: `the addon cannot be loaded: ${error instanceof Error ? error.message.trim() : String(error)}` };
  }
}

async function testSelected({ selected, backends = [] }: Partial<NativeReport>, tell: (verdict: Verdict) => void): Promise<Verdict[]> {
  if (selected === undefined) return [];
  const { testOperation } = await import("./run-self-tests.js");
  const operations = backends.find((backend) => backend.selected)?.operations ?? [];
  return operations.map((operation) => {
    const verdict = testOperation(operation);
    tell(verdict);
    return verdict;
  });
}

/** JSON has no infinities and no NaN. */
function readable(_: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
}

function coloured(colour: Colour, text: string): string {
  return process.stdout.isTTY ? styleText(colour, text) : text;
}

function field(name: string, value: string | number): string {
  return `${name.padEnd(12)}${value}`;
}

function environmentLines({ version, node, platform, arch, libc }: Environment): string[] {
  return [field("dpo-kernels", version), field("Node.js", node), field("platform", [`${platform}-${arch}`, ...(libc ? [libc] : [])].join(", "))];
}

function nativeLines({ addon, backends = [], cpuLevel, threads, selected, problem }: Partial<NativeReport>): string[] {
  const lines: string[] = [];
  if (addon !== undefined) lines.push(field("addon", `${addon} (${originOf(addon)})`));
  if (threads !== undefined) lines.push(field("CPU level", cpuLevel ?? "none runs"), field("threads", threads));
  if (backends.length > 0) {
    lines.push("", coloured("bold", "backends, best first"));
    const width = Math.max(...backends.map((backend) => titleOf(backend).length));
    for (const backend of backends) {
      const mark = backend.selected && selected !== undefined ? "*" : " ";
      lines.push(`${mark} ${titleOf(backend).padEnd(width)}  score ${String(backend.score).padStart(3)}  ${backend.reason}`);
    }
  }
  lines.push("", selected === undefined ? coloured("red", problem ?? "no backend can run") : coloured("bold", `self-tests of ${selected}`));
  return lines;
}

function titleOf({ name, variant }: { name: string; variant: string }): string {
  return variant === "" ? name : `${name}:${variant}`;
}

/** Built here, or as it came with the package: …/build/Release/dpo_kernels.node or …/prebuilds/linux-x64/dpo-kernels.node. */
function originOf(addon: string): string {
  const folder = dirname(addon);
  return basename(dirname(folder)) === "prebuilds" ? "prebuild" : basename(dirname(folder)) === "build" ? "build" : "elsewhere";
}

/** One line, with the number that is furthest off; of a failure, a line for each check that failed. */
function verdictLines({ operation, ok, checks, error }: Verdict): string[] {
  const [best] = checks;
  if (ok && best) return [verdictLine(true, operation, numberLine(best))];
  const failed = checks.filter((check) => !check.ok).map(numberLine);
  return [...failed, ...(error === undefined ? [] : [error])].map((text) => verdictLine(false, operation, text));
}

function verdictLine(ok: boolean, operation: string, text: string): string {
  return `${ok ? coloured("green", "ok    ") : coloured("red", "FAILED")}  ${operation.padEnd(22)}  ${text}`;
}

function numberLine({ precision, what, seen, expected, worst }: Judged): string {
  return `${precision} ${what}: ${numberText(seen[worst])}, expected ${numberText(expected[worst])}`;
}

function numberText(value: number | undefined): string {
  return value === undefined ? "nothing" : String(Number(value.toPrecision(9)));
}

function conclusion({ ok, selfTests, selected }: Diagnosis): string {
  const failed = selfTests.filter((test) => !test.ok).length;
  if (ok) return coloured("green", `\nall ${selfTests.length} operations of ${selected} give the numbers that are known`);
  return coloured(
    "red",
    selected === undefined ? "\nnothing could be tested" : `\n${failed} of ${selfTests.length} operations of ${selected} FAILED`,
  );
}
