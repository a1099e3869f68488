/** The package in several threads of one process: each with its own environment, all with the one pool. */

import { Worker } from "node:worker_threads";
import { type Backend, backends, DpoKernels, kernels, linearTokenLogProbsVjp, linearTokenLogProbsVjpSync, tensor } from "dpo-kernels";
import { afterEach, describe, expect, it } from "vitest";
import { nameOf, runnableBackends } from "./support/backends.js";
import { expectBitwiseEqual } from "./support/bounds.js";
import { resultOfChild, runChild } from "./support/child.js";

const started: Worker[] = [];

afterEach(async () => {
  await Promise.all(started.splice(0).map((worker) => worker.terminate()));
});

/** A worker of support/children/worker.mjs. */
function startWorker(): { ask<T>(request: object): Promise<T> } {
  const worker = new Worker(new URL("./support/children/worker.mjs", import.meta.url));
  started.push(worker);
  return {
    ask: (request) =>
      new Promise((resolve, reject) => {
        worker.once("message", resolve);
        worker.once("error", reject);
        worker.postMessage(request);
      }),
  };
}

interface Shape {
  readonly rows: number;
  readonly width: number;
  readonly words: number;
}

const SHAPES: readonly Shape[] = [
  { rows: 64, width: 96, words: 4000 },
  { rows: 128, width: 32, words: 6001 },
  { rows: 8, width: 8, words: 11 },
  { rows: 200, width: 64, words: 2500 },
];

function waves(length: number, step: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length }, (_, i) => Math.round(1000 * Math.sin(i * step)) / 1000);
}

function head({ rows, width, words }: Shape) {
  return {
    hidden: tensor(waves(rows * width, 0.7), [rows, width]),
    weight: tensor(waves(words * width, 0.3), [words, width]),
    targets: Int32Array.from({ length: rows }, (_, i) => (7 * i) % words),
  };
}

function pullBackHere(shape: Shape): ArrayLike<number>[] {
  const { hidden, weight } = linearTokenLogProbsVjpSync({ ...head(shape), upstream: new Float32Array(shape.rows).fill(0.5) });
  return [hidden.data, weight.data];
}

function stepHere(shape: Shape): ArrayLike<number>[] {
  const { rows } = shape;
  const embedding = (step: number) => tensor(waves(16, step), [2, 8]);
  const { loss, grads } = new DpoKernels({ kernel: kernels.rbf({ sigma: 0.8 }) }).lossAndGradSync({
    policy: { ...head(shape), offsets: Int32Array.of(0, rows / 4, rows / 2, (3 * rows) / 4, rows) },
    reference: { logProbs: Float32Array.of(-9, -8, -7, -6) },
    embeddings: { prompt: embedding(0.5), chosen: embedding(0.6), rejected: embedding(0.9) },
  });
  const hidden = "hidden" in grads.policy ? grads.policy.hidden.data : [];
  return [[loss], hidden, grads.embeddings?.prompt.data ?? [], grads.kernel?.sigma?.data ?? []];
}

function expectAll(actual: readonly ArrayLike<number>[], expected: readonly ArrayLike<number>[]): void {
  expect(actual.map(({ length }) => length)).toEqual(expected.map(({ length }) => length));
  expected.forEach((values, i) => {
    expectBitwiseEqual(actual[i] ?? [], values);
  });
}

describe("worker threads", () => {
  it("give the same bits as the main thread, four at once and with it", async () => {
    const workers = SHAPES.map(() => startWorker());
    const [pullBacks, steps] = [SHAPES.map(pullBackHere), SHAPES.map(stepHere)];
    for (const sync of [false, true]) {
      for (let round = 0; round < 3; round++) {
        const theirs = Promise.all(workers.map((worker, i) => worker.ask<ArrayLike<number>[]>({ command: "pullBack", sync, shape: SHAPES[i] })));
        const [shape] = SHAPES as readonly [Shape];
        const mine = await linearTokenLogProbsVjp({ ...head(shape), upstream: new Float32Array(shape.rows).fill(0.5) });
        expectAll([mine.hidden.data, mine.weight.data], pullBacks[0] ?? []);
        (await theirs).forEach((result, i) => {
          expectAll(result, pullBacks[i] ?? []);
        });
      }
      const theirs = await Promise.all(workers.map((worker, i) => worker.ask<ArrayLike<number>[]>({ command: "step", sync, shape: SHAPES[i] })));
      theirs.forEach((result, i) => {
        expectAll(result, steps[i] ?? []);
      });
    }
  });

  it("choose their backends apart from one another", async () => {
    const [one, other] = [startWorker(), startWorker()];
    const names = runnableBackends();
    const selected = (found: readonly Backend[]) => found.filter((backend) => backend.selected).map(nameOf);
    const mine = selected(backends());
    const wanted = names.at(-1) ?? "cpu";
    expect(selected(await one.ask<Backend[]>({ command: "use", backend: wanted }))).toEqual([wanted]);
    expect(await other.ask({ command: "use", backend: "abacus" })).toBe("ERR_BACKEND");
    expect(selected(await other.ask<Backend[]>({ command: "use", backend: "auto" }))).toEqual([names[0]]);
    expect(selected(backends())).toEqual(mine);
    const [shape] = SHAPES as readonly [Shape];
    for (const worker of [one, other]) {
      const [hidden] = await worker.ask<ArrayLike<number>[]>({ command: "pullBack", shape });
      expect(hidden).toHaveLength(shape.rows * shape.width);
    }
  });

  it("may come and go while the main thread works", async () => {
    const [, , shape] = SHAPES as readonly [Shape, Shape, Shape];
    const expected = pullBackHere(shape);
    for (let round = 0; round < 5; round++) {
      const worker = startWorker();
      expectAll(await worker.ask({ command: "pullBack", shape }), expected);
      await started.pop()?.terminate();
      expectAll(pullBackHere(shape), expected);
    }
  });
});

describe("workers terminated in the middle of their calls", () => {
  it.each([
    { length: "long", workers: 24 },
    { length: "short", workers: 80 },
  ])("$length: neither crash the process nor keep its memory or its claims", async ({ length, workers }) => {
    const options = { args: [length, runnableBackends().at(-1) ?? "cpu"], flags: ["--expose-gc"] };
    const [report] = await resultOfChild<{ count: number; memory: number[] }>("terminate.mjs", options);
    expect(report?.count).toBe(workers);
    const memory = report?.memory ?? [];
    // The last three rounds' twelve workers with long calls had 16 MiB or more each; the first rounds fill heaps and caches that stay.
    const [settled, last] = [Math.max(...memory.slice(0, 3)), memory.at(-1) ?? Infinity];
    expect(last - settled, memory.map(Math.round).join(" ")).toBeLessThan(80);
  });
});

describe("a process that ends while calls run", () => {
  it("by process.exit has that exit code", async () => {
    for (let i = 0; i < 3; i++)
      expect(await runChild("exit.mjs", { args: ["exit"] })).toMatchObject({ code: 7, signal: null, stdout: "", stderr: "" });
  });

  it("by an exception has Node's exit code for it", async () => {
    const { code, signal, stderr } = await runChild("exit.mjs", { args: ["throw"] });
    expect({ code, signal }).toEqual({ code: 1, signal: null });
    expect(stderr).toContain("on purpose");
  });
});
