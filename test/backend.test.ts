/** Which backend runs, how that is chosen, and what is said when it cannot be. */

import { type Backend, BackendError, backends, tensor, threads, tokenLogProbsSync, useBackend, useThreads } from "dpo-kernels";
import { afterEach, describe, expect, it } from "vitest";
import { nameOf, runnableBackends } from "./support/backends.js";
import { resultOfChild } from "./support/child.js";

const selected = () => backends().filter((backend) => backend.selected);
const compute = () => tokenLogProbsSync({ logits: tensor(Float32Array.of(0, 0), [1, 2]), targets: Int32Array.of(0) }).logProbs.data[0];

afterEach(() => useBackend("auto"));

describe("backends()", () => {
  it("lists each backend found with its score and the reason for it", () => {
    const found = backends();
    expect(found.length).toBeGreaterThan(0);
    for (const backend of found) {
      expect(Object.keys(backend).sort()).toEqual(["name", "operations", "reason", "score", "selected", "variant"]);
      expect(backend).toEqual({
        name: expect.stringMatching(/./),
        variant: expect.any(String),
        score: expect.any(Number),
        reason: expect.stringMatching(/./),
        selected: expect.any(Boolean),
        operations: expect.any(Array),
      });
      expect(backend.score).toBeGreaterThanOrEqual(0);
    }
  });

  it("has the best first, and that one selected", () => {
    const scores = backends().map(({ score }) => score);
    expect(scores).toEqual(scores.toSorted((a, b) => b - a));
    expect(selected()).toEqual([backends()[0]]);
  });

  it("always has one for the CPU that runs", () => {
    expect(backends().some(({ name, score }) => name === "cpu" && score > 0)).toBe(true);
  });

  it("gives a list of the caller's own", () => {
    (backends() as Backend[]).length = 0;
    expect(backends().length).toBeGreaterThan(0);
  });
});

describe("useBackend", () => {
  it.each(runnableBackends())("takes %s", (name) => {
    useBackend(name);
    expect(selected().map(nameOf)).toEqual([name]);
    expect(compute()).toBeCloseTo(-Math.LN2, 6);
  });

  it("takes the name alone, and auto", () => {
    useBackend("cpu");
    expect(selected().map(({ name }) => name)).toEqual(["cpu"]);
    useBackend("auto");
    expect(selected()).toEqual([backends()[0]]);
  });

  it.each(["gpu", "", "cpu:", "cpu:pdp-11", "CPU", "dpo_cpu_v4.so", " cpu"])(
    'refuses "%s", says what was found, and stays with what it has',
    (name) => {
      const before = backends();
      expect(() => useBackend(name)).toThrow(BackendError);
      expect(() => useBackend(name)).toThrow(
        expect.objectContaining({ code: "ERR_BACKEND", message: expect.stringContaining(JSON.stringify(name)) }),
      );
      for (const { name: found } of before) expect(() => useBackend(name)).toThrow(new RegExp(found));
      expect(backends()).toEqual(before);
      expect(compute()).toBeCloseTo(-Math.LN2, 6);
    },
  );

  it.each([undefined, null, 5, {}])("refuses %s, which is no name", (name) => {
    expect(() => useBackend(name as unknown as string)).toThrow(BackendError);
  });

  it.runIf(!backends().some(({ name, score }) => name === "cuda" && score > 0))(
    "refuses cuda where it cannot run, with what was found and what is needed",
    () => {
      expect(() => useBackend("cuda")).toThrow(expect.objectContaining({ code: "ERR_BACKEND", message: expect.stringMatching(/cuda/) }));
      const cuda = backends().find(({ name }) => name === "cuda");
      if (cuda === undefined) expect(() => useBackend("cuda")).toThrow(/found: .*cpu/);
      else expect(() => useBackend("cuda")).toThrow(cuda.reason);
      expect(selected().map(({ name }) => name)).toEqual(["cpu"]);
    },
  );
});

describe("useThreads", () => {
  const before = threads();
  afterEach(() => useThreads(before));

  it.each([1, 2, 3, 7])("takes %d", (count) => {
    useThreads(count);
    expect(threads()).toBe(count);
    expect(compute()).toBeCloseTo(-Math.LN2, 6);
  });

  it("takes more than any machine has as many as it can", () => {
    for (const count of [2 ** 20, 2 ** 31, 2 ** 32, 2 ** 40]) {
      useThreads(count);
      expect(threads()).toBeGreaterThanOrEqual(64);
    }
  });

  it.each([0, -1, 1.5, Number.NaN, Infinity, "2", null, undefined])("refuses %s", (count) => {
    expect(() => useThreads(count as number)).toThrow(expect.objectContaining({ code: "ERR_RANGE" }));
    expect(threads()).toBe(before);
  });
});

interface Outcome {
  readonly value?: number;
  readonly error?: { readonly name: string; readonly code: string; readonly message: string };
}

interface Environment {
  readonly backends: readonly Backend[];
  readonly threads: number;
  readonly sync: Outcome;
  readonly async: Outcome;
  readonly afterUseBackend: Outcome;
}

/** What the package says of itself in a process with these variables; printing anything there is an error. */
async function within(env: Record<string, string>): Promise<Environment> {
  const [environment] = await resultOfChild<Environment>("environment.mjs", { env });
  if (environment === undefined) throw new Error("the child said nothing");
  return environment;
}

describe("DPO_KERNELS_BACKEND", () => {
  it.each(["cpu", "auto", ""])('set to "%s" runs', async (name) => {
    const { sync, async, backends: found } = await within({ DPO_KERNELS_BACKEND: name });
    expect(sync.value).toBeCloseTo(-Math.LN2, 6);
    expect(async.value).toBeCloseTo(-Math.LN2, 6);
    expect(found.filter((backend) => backend.selected)).toHaveLength(1);
  });

  it.each(["abacus", "cpu:pdp-11"])('set to "%s" lets the package be imported, and the first operation fail', async (name) => {
    const { sync, async, backends: found, afterUseBackend } = await within({ DPO_KERNELS_BACKEND: name });
    for (const { error } of [sync, async]) {
      expect(error).toMatchObject({ name: "BackendError", code: "ERR_BACKEND" });
      expect(error?.message).toContain(name);
      expect(error?.message).toMatch(/cpu/);
    }
    expect(found.length).toBeGreaterThan(0);
    expect(found.some((backend) => backend.selected)).toBe(false);
    expect(afterUseBackend.value).toBeCloseTo(-Math.LN2, 6);
  });
});

describe("DPO_KERNELS_THREADS", () => {
  it.each([1, 3])("set to %d is the number of threads", async (count) => {
    const environment = await within({ DPO_KERNELS_THREADS: String(count) });
    expect(environment.threads).toBe(count);
    expect(environment.sync.value).toBeCloseTo(-Math.LN2, 6);
  });

  it.each(["0", "-2", "many", ""])('set to "%s" is as if it were not set', async (value) => {
    const [{ threads: unset }, { threads: set, sync }] = await Promise.all([within({}), within({ DPO_KERNELS_THREADS: value })]);
    expect(set).toBe(unset);
    expect(set).toBeGreaterThanOrEqual(1);
    expect(sync.value).toBeCloseTo(-Math.LN2, 6);
  });
});
