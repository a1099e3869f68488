/** The command dpo-kernels, and its self-tests: that they cover every operation, hold, and can fail. */

import { readFileSync } from "node:fs";
import { backends } from "dpo-kernels";
import { afterEach, describe, expect, it, vi } from "vitest";
import { type Check, judge, PRECISIONS } from "../lib/cli/check.js";
import type { Diagnosis } from "../lib/cli/doctor.js";
import { testOperation } from "../lib/cli/run-self-tests.js";
import { SELF_TESTS } from "../lib/cli/self-tests.js";
import { addon } from "../lib/native/addon.js";
import { describeBackends, nameOf } from "./support/backends.js";
import { runCommand } from "./support/child.js";

const { version, bin } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
const OPERATIONS = [...new Set(backends().flatMap(({ operations }) => operations))];

afterEach(() => void vi.restoreAllMocks());

describe("self-tests", () => {
  it("are there for every operation, and for nothing else", () => {
    expect(Object.keys(SELF_TESTS).sort()).toEqual(OPERATIONS.toSorted());
  });

  describeBackends(() => {
    it.each(OPERATIONS)("%s runs the operation and finds its numbers", (operation) => {
      const run = vi.spyOn(addon, "run");
      const verdict = testOperation(operation);
      expect(run.mock.calls.map(([code]) => addon.operations[code])).toContain(operation);
      expect(verdict).toEqual({ operation, ok: true, checks: expect.any(Array) });
      expect(new Set(verdict.checks.map(({ precision }) => precision))).toEqual(new Set(PRECISIONS));
    });
  });

  it.each(OPERATIONS)("%s fails when every number that the addon gives is a little off", (operation) => {
    spoilResults((value) => value * 1.001 + 0.001);
    expect(testOperation(operation)).toMatchObject({ ok: false });
  });

  it.each(OPERATIONS)("%s fails when the addon gives no numbers", (operation) => {
    spoilResults(() => Number.NaN);
    expect(testOperation(operation)).toMatchObject({ ok: false });
  });

  it.each(OPERATIONS)("%s fails when the addon does nothing", (operation) => {
    vi.spyOn(addon, "run").mockReturnValue(undefined);
    expect(testOperation(operation)).toMatchObject({ ok: false });
  });

  it("fail by what an operation throws", () => {
    vi.spyOn(addon, "run").mockReturnValue({ status: 5, index: -1, message: "cuBLAS 13 is needed for it" });
    expect(testOperation("gram")).toEqual({ operation: "gram", ok: false, checks: [], error: "BackendError: cuBLAS 13 is needed for it" });
  });

  it("fail for an operation that has none, and where nothing is checked", () => {
    expect(testOperation("teleport")).toEqual({ operation: "teleport", ok: false, checks: [], error: "no self-test covers it" });
    expect(testOperation("gram", { gram: () => [] })).toMatchObject({ ok: false });
  });
});

/** Changes all that native calls write, after they have. */
function spoilResults(change: (value: number) => number): void {
  const { run } = addon;
  vi.spyOn(addon, "run").mockImplementation((operation, frame, claimed, ...memory) => {
    const given = memory.map((array) => (ArrayBuffer.isView(array) ? Uint8Array.from(bytesOf(array)) : undefined));
    const failure = run(operation, frame, claimed, ...memory);
    memory.forEach((array, i) => {
      if (!ArrayBuffer.isView(array) || bytesOf(array).every((byte, at) => byte === given[i]?.[at])) return;
      if (array instanceof Float64Array || array instanceof Float32Array || array instanceof Int32Array) array.set(Array.from(array, change));
    });
    return failure;
  });
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

describe("judge", () => {
  const ofOne = (seen: number, expected: number, within?: number): Check => ({
    what: "it",
    seen: [seen],
    expected: [expected],
    ...(within !== undefined && { within }),
  });

  it("takes rounding, and no more", () => {
    expect(judge(ofOne(1 + 1e-6, 1), "f32").ok).toBe(true);
    expect(judge(ofOne(1 + 1e-4, 1), "f32").ok).toBe(false);
    expect(judge(ofOne(1 + 1e-6, 1), "f64").ok).toBe(false);
    expect(judge(ofOne(1000 * (1 + 1e-6), 1000), "f32").ok).toBe(true);
    expect(judge(ofOne(1.05, 1, 0.1), "f64").ok).toBe(true);
  });

  it.each([Number.NaN, Infinity, -Infinity])("refuses %s for a number", (seen) => {
    expect(judge(ofOne(seen, 0), "f32").ok).toBe(false);
  });

  it("refuses numbers that are missing, too many, or none at all", () => {
    expect(judge({ what: "it", seen: [1], expected: [1, 0] }, "f32").ok).toBe(false);
    expect(judge({ what: "it", seen: [1, 0], expected: [1] }, "f32").ok).toBe(false);
    expect(judge({ what: "it", seen: [], expected: [] }, "f32").ok).toBe(false);
  });

  it("tells which is furthest off", () => {
    expect(judge({ what: "it", seen: [1, 2.1, 3.2, 4], expected: [1, 2, 3, 4] }, "f32")).toMatchObject({ ok: false, worst: 2 });
    expect(judge({ what: "it", seen: [1.5, Number.NaN], expected: [1, 2] }, "f32")).toMatchObject({ ok: false, worst: 1 });
  });
});

describe("dpo-kernels doctor", () => {
  it("says what it runs on and that every operation is well", async () => {
    const { code, stdout, stderr } = await runCommand(["doctor", "--backend", "cpu"]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    for (const part of [version, process.version, `${process.platform}-${process.arch}`, "dpo_kernels.node", "threads"])
      expect(stdout).toContain(part);
    for (const backend of backends()) {
      expect(stdout).toContain(nameOf(backend));
      expect(stdout).toContain(backend.reason);
    }
    for (const operation of OPERATIONS) expect(stdout).toMatch(new RegExp(`^ok +${operation} .*, expected `, "m"));
    expect(stdout).not.toContain("FAILED");
    expect(stdout).not.toContain("\u001b");
  });

  it("prints it as JSON", async () => {
    const { code, stdout, stderr } = await runCommand(["doctor", "--json", "--backend=cpu"]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const diagnosis: Diagnosis = JSON.parse(stdout);
    const cpu = backends().find(({ name, score }) => name === "cpu" && score > 0);
    expect(diagnosis).toMatchObject({
      version,
      node: process.version,
      platform: process.platform,
      arch: process.arch,
      addon: expect.stringMatching(/\.node$/),
      cpuLevel: cpu?.variant,
      threads: expect.any(Number),
      selected: cpu && nameOf(cpu),
      ok: true,
    });
    expect(diagnosis.backends?.map(nameOf)).toEqual(backends().map(nameOf));
    expect(diagnosis.selfTests.map(({ operation, ok }) => ({ operation, ok }))).toEqual(
      cpu?.operations.map((operation) => ({ operation, ok: true })),
    );
    if (process.platform === "linux") expect(diagnosis.libc).toMatch(/glibc/);
  });

  it.each([
    ["--backend", ["doctor", "--backend", "abacus"], {}],
    ["DPO_KERNELS_BACKEND", ["doctor"], { DPO_KERNELS_BACKEND: "abacus" }],
  ])("ends with 1 and the reason for a %s that cannot run", async (_, args, env) => {
    const { code, stdout, stderr } = await runCommand(args, { env });
    expect({ code, stderr }).toEqual({ code: 1, stderr: "" });
    expect(stdout).toMatch(/no backend answers to "abacus"; found: .*cpu.*; needed: /);
    const json = await runCommand([...args, "--json"], { env });
    expect(json.code).toBe(1);
    expect(JSON.parse(json.stdout)).toMatchObject({ ok: false, selfTests: [], problem: expect.stringContaining('"abacus"') });
  });

  it("ends with 1, and still says what it can, where the addon cannot be loaded", async () => {
    const { code, stdout, stderr } = await runCommand(["doctor"], { env: { DPO_KERNELS_PREBUILD: "/nowhere" } });
    expect({ code, stderr }).toEqual({ code: 1, stderr: "" });
    expect(stdout).toContain(process.version);
    expect(stdout).toMatch(/the addon cannot be loaded: No native build was found/);
  });
});

describe("dpo-kernels", () => {
  it("is the package's command", () => {
    expect(bin).toEqual({ "dpo-kernels": "dist/cli/main.js" });
    expect(readFileSync(new URL("../dist/cli/main.js", import.meta.url), "utf8")).toMatch(/^#!\/usr\/bin\/env node\n/);
  });

  it("prints help and version without the addon", async () => {
    const env = { DPO_KERNELS_PREBUILD: "/nowhere" };
    expect(await runCommand(["--version"], { env })).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: "" });
    for (const args of [["--help"], ["-h"], ["doctor", "--help"]]) {
      expect(await runCommand(args, { env })).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(/^Usage: dpo-kernels .*doctor.*--json/s),
        stderr: "",
      });
    }
  });

  it.each([[[]], [["doctr"]], [["--jsn"]], [["doctor", "--verbose"]], [["doctor", "cpu"]], [["doctor", "--backend"]], [["doctor", "--json=yes"]]])(
    "ends with 2 and says why for %j",
    async (args) => {
      const { code, stdout, stderr } = await runCommand(args);
      expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
      expect(stderr).toMatch(/^dpo-kernels: .*\ndpo-kernels --help/s);
    },
  );
});
