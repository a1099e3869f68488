// Runs every check of what scripts/setup.mjs has built, and ends with "N passed, N failed".
//   node scripts/test.mjs [lint] [types] [native] [js] [package]
//     lint    Biome: one check             native   the C++ tests: one per GoogleTest case
//     types   the type check: one check    js       Vitest: one per test
//                                          package  what npm pack makes: builds for all instruction sets
//   Default: all but package.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { configureOnce, PARALLEL, settingsOf } from "./lib/cmake.mjs";
import { checkPackage } from "./lib/package-checks.mjs";
import { Failure, root, run, say, script, seconds } from "./lib/process.mjs";
import { findTools, missingTools } from "./lib/tools.mjs";

const FOLDER = join(root, "build/tests");
// Reports are also read as files; there, colours are noise. CI makes some tools colour them.
const ENVIRONMENT = process.stdout.isTTY ? process.env : { ...process.env, NO_COLOR: "1" };
const bin = (path) => join(root, "node_modules", path);
const failed = (count) => ({ passed: 0, failed: count, skipped: 0 });

/** Runs a command, its output going where this process's goes; whether it succeeded. */
function succeeds(command, args) {
  return spawnSync(command, args, { cwd: root, env: ENVIRONMENT, stdio: ["ignore", "inherit", "inherit"] }).status === 0;
}

const oneCheck = (holds) => (holds ? { passed: 1, failed: 0, skipped: 0 } : failed(1));

const lint = () => oneCheck(succeeds(process.execPath, [bin("@biomejs/biome/bin/biome"), "check", "--no-errors-on-unmatched", "."]));

const types = () => oneCheck(succeeds(process.execPath, [bin("typescript/bin/tsc"), "--noEmit", "-p", "tsconfig.check.json"]));

/** Runs ctest and prints its lines, but for those about tests that start or pass. */
function runCTest(report) {
  const args = ["--test-dir", FOLDER, ...PARALLEL, "--output-on-failure", "--no-tests=error", "--output-junit", report];
  const child = spawn("ctest", args, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  createInterface({ input: child.stdout }).on("line", (line) => {
    if (!/^ *Start +\d+:|^ *\d+\/\d+ Test.* Passed +[\d.]+ sec$/.test(line)) console.log(line);
  });
  return new Promise((resolve, reject) => child.on("close", resolve).on("error", reject));
}

function buildNativeTests() {
  const tools = findTools();
  if (missingTools(tools, { tests: true }).length > 0) throw new Failure("tools are missing; npm run setup -- --tests");
  const { compiler, cmake, generator } = tools;
  const options = ["-G", generator, `-DCMAKE_CXX_COMPILER=${compiler.path}`, "-DDPO_TESTS=ON", "--log-level=NOTICE"];
  configureOnce(FOLDER, settingsOf(tools), () => run(cmake.path, ["-S", root, "-B", FOLDER, ...options]));
  run(cmake.path, ["--build", FOLDER, "--target", "dpo_tests", ...PARALLEL]);
}

async function native() {
  try {
    buildNativeTests();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    say(`test: ${error.message}`);
    return failed(1);
  }
  const report = join(FOLDER, "ctest.xml");
  rmSync(report, { force: true });
  const status = await runCTest(report);
  if (!existsSync(report)) return failed(1);
  const suite = /<testsuite [^>]*>/.exec(readFileSync(report, "utf8"))[0];
  const count = (name) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(suite)[1]);
  const result = { failed: count("failures"), skipped: count("skipped") + count("disabled") };
  if (status !== 0 && result.failed === 0) result.failed = 1;
  return { ...result, passed: count("tests") - count("failures") - result.skipped };
}

function js() {
  const report = join(FOLDER, "vitest.json");
  mkdirSync(FOLDER, { recursive: true });
  rmSync(report, { force: true });
  const succeeded = succeeds(process.execPath, [
    bin("vitest/vitest.mjs"),
    "run",
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
  ]);
  if (!existsSync(report)) return failed(1);
  const result = { passed: 0, failed: 0, skipped: 0 };
  for (const file of JSON.parse(readFileSync(report, "utf8")).testResults) {
    const outcomes = file.assertionResults.map((test) => test.status);
    // A file that cannot even be loaded has no test that failed.
    if (file.status === "failed" && !outcomes.includes("failed")) result.failed++;
    for (const outcome of outcomes) result[outcome === "passed" || outcome === "failed" ? outcome : "skipped"]++;
  }
  // As an error outside of any test.
  if (!succeeded && result.failed === 0) result.failed = 1;
  return result;
}

function summary({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
}

const SUITES = { lint, types, native, js, package: checkPackage };
const DEFAULT = ["lint", "types", "native", "js"];

await script("test", async () => {
  const wanted = process.argv.length > 2 ? process.argv.slice(2) : DEFAULT;
  const unknown = wanted.find((name) => !(name in SUITES));
  if (unknown) throw new Failure(`no checks are called "${unknown}"; there are ${Object.keys(SUITES).join(", ")}`);
  const total = { passed: 0, failed: 0, skipped: 0 };
  const lines = [];
  for (const name of wanted) {
    const began = performance.now();
    say(`test: ${name}`);
    const result = await SUITES[name]();
    if (result.passed + result.failed === 0) {
      say(`test: ${name} ran nothing`);
      result.failed = 1;
    }
    for (const key of Object.keys(total)) total[key] += result[key];
    lines.push(`${name.padEnd(7)} ${summary(result)} (${seconds(began)})`);
  }
  console.log(["", ...lines, summary(total)].join("\n"));
  process.exitCode = total.failed > 0 ? 1 : 0;
});
