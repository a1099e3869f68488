import { basename, dirname } from "node:path";
import { styleText } from "node:util";
import type { Backend } from "../backend.js";
import { backendName } from "./backend-name.js";
import type { Judged } from "./check.js";
import type { Diagnosis } from "./doctor.js";
import type { Environment } from "./environment.js";
import type { NativeReport } from "./native-report.js";
import type { Verdict } from "./run-self-tests.js";

function coloured(colour: "green" | "red" | "bold", text: string): string {
  return process.stdout.isTTY ? styleText(colour, text) : text;
}

function field(name: string, value: string | number): string {
  return `${name.padEnd(12)}${value}`;
}

export function environmentText({ version, node, platform, arch, libc }: Environment): string {
  const lines = [field("dpo-kernels", version), field("Node.js", node), field("platform", `${platform}-${arch}${libc ? `, ${libc}` : ""}`)];
  return lines.join("\n");
}

export function nativeText({ addon, backends = [], cpuLevel, threads, selected, problem }: Partial<NativeReport>): string {
  const lines: string[] = [];
  if (addon !== undefined) lines.push(field("addon", `${addon} (${originOf(addon)})`));
  if (threads !== undefined) lines.push(field("CPU level", cpuLevel ?? "none runs"), field("threads", threads));
  if (selected !== undefined) lines.push(field("selected", selected));
  lines.push("", ...backendLines(backends));
  lines.push(selected === undefined ? coloured("red", problem ?? "no backend can run") : coloured("bold", `self-tests of ${selected}`));
  return lines.join("\n");
}

/** Built here, or as it came with the package: …/build/Release/dpo_kernels.node or …/prebuilds/linux-x64/dpo-kernels.node. */
function originOf(addon: string): string {
  const folder = basename(dirname(dirname(addon)));
  if (folder === "prebuilds") return "prebuild";
  return folder === "build" ? "build" : "elsewhere";
}

function backendLines(backends: readonly Backend[]): string[] {
  if (backends.length === 0) return [];
  const width = Math.max(...backends.map((backend) => backendName(backend).length));
  const lines = backends.map((backend) => `  ${backendName(backend).padEnd(width)}  score ${String(backend.score).padStart(3)}  ${backend.reason}`);
  return [coloured("bold", "backends, best first"), ...lines, ""];
}

/** One line, with a number of the first check; of a failure, a line for each check that failed. */
export function verdictText({ operation, ok, checks, error }: Verdict): string {
  const [first] = checks;
  if (ok && first) return verdictLine(true, operation, `${numberText(first)} (one of ${checks.length} checks)`);
  const failed = checks.filter((check) => !check.ok).map(numberText);
  return [...failed, ...(error === undefined ? [] : [error])].map((text) => verdictLine(false, operation, text)).join("\n");
}

function verdictLine(ok: boolean, operation: string, text: string): string {
  return `${ok ? coloured("green", "ok    ") : coloured("red", "FAILED")}  ${operation.padEnd(22)}  ${text}`;
}

function numberText({ precision, what, seen, expected, worst }: Judged): string {
  // So many digits that a difference that fails the check shows.
  const text = (value: number | undefined) => (value === undefined ? "nothing" : String(Number(value.toPrecision(precision === "f64" ? 14 : 9))));
  return `${precision} ${what}: ${text(seen[worst])}, expected ${text(expected[worst])}`;
}

export function conclusionText({ ok, selfTests, selected }: Diagnosis): string {
  const failed = selfTests.filter((test) => !test.ok).length;
  if (ok) return coloured("green", `\nall ${selfTests.length} operations of ${selected} give the numbers that are known`);
  return coloured(
    "red",
    selected === undefined ? "\nnothing could be tested" : `\n${failed} of ${selfTests.length} operations of ${selected} FAILED`,
  );
}
