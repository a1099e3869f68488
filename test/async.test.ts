/** Asynchronous calls: off the event loop, stopped by a signal, and kept apart from one another. */

import { getEventListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import {
  AbortedError,
  DpoKernels,
  type DpoKernelsError,
  type HeadGradients,
  kernels,
  linearTokenLogProbs,
  linearTokenLogProbsVjp,
  linearTokenLogProbsVjpSync,
  type ObjectiveInputs,
  type StepOut,
  type Tensor,
  tensor,
  tokenLogProbs,
  tokenLogProbsSync,
} from "dpo-kernels";
import { beforeAll, describe, expect, it } from "vitest";
import { describeBackends, isSimulating } from "./support/backends.js";
import { expectSameResults } from "./support/cases.js";
import { resultOfChild } from "./support/child.js";
import { type LargeCall, largeCall, largeOut } from "./support/large-call.js";
import { nested, OPERATIONS } from "./support/operation-table.js";
import { createRandom } from "./support/random.js";
import { filled, floats } from "./support/tensors.js";

let large: LargeCall;
let expected: HeadGradients; // of the backend under test: another instruction set rounds otherwise

/** Rows of a head that keep a backend busy for a while. */
const words = (ofFastOnes: number): number => (isSimulating() ? ofFastOnes / 8 : ofFastOnes);

interface Timed {
  readonly milliseconds: number;
  readonly error: unknown;
}

async function timed(call: () => Promise<unknown>): Promise<Timed> {
  const begin = performance.now();
  let error: unknown;
  try {
    await call();
  } catch (thrown) {
    error = thrown;
  }
  return { milliseconds: performance.now() - begin, error };
}

function abortAfter(milliseconds: number, reason: unknown): AbortSignal {
  const controller = new AbortController();
  setTimeout(() => controller.abort(reason), milliseconds);
  return controller.signal;
}

function codesOf(results: readonly PromiseSettledResult<unknown>[]): string[] {
  return results.map((result) => (result.status === "fulfilled" ? "fulfilled" : ((result.reason as DpoKernelsError).code ?? String(result.reason))));
}

function isFilled(tensor: Tensor): boolean {
  const untouched = filled(tensor.shape, tensor.dtype).data;
  return tensor.data.every((value, i) => value === untouched[i]);
}

function filledOut(): ReturnType<typeof largeOut> {
  const out = largeOut(large);
  return { hidden: filled(out.hidden.shape, "f32") as Tensor<"f32">, weight: filled(out.weight.shape, "f32") as Tensor<"f32"> };
}

/** A batch whose logits take `words` · `rows` numbers, in two pairs. */
function objectiveInputs(
  rows: number,
  width: number,
  words: number,
): ObjectiveInputs & { embeddings: Record<"prompt" | "chosen" | "rejected", Tensor> } {
  const random = createRandom(6);
  const quarter = rows / 4;
  const embedding = () => floats(random, [2, 8], "f32");
  return {
    policy: {
      hidden: floats(random, [rows, width], "f32", -0.5, 0.5),
      weight: floats(random, [words, width], "f32", -0.5, 0.5),
      targets: random.integers(rows, 0, words),
      offsets: Int32Array.of(0, quarter, 2 * quarter, 3 * quarter, rows),
    },
    reference: { logProbs: Float32Array.of(-9, -8, -7, -6) },
    embeddings: { prompt: embedding(), chosen: embedding(), rejected: embedding() },
  };
}

function objectiveOut({ policy, embeddings }: ReturnType<typeof objectiveInputs>): Required<NonNullable<StepOut["out"]>> {
  const { hidden, weight } = policy as { hidden: Tensor; weight: Tensor };
  const like = ({ shape, dtype }: Tensor) => filled(shape, dtype);
  return {
    policy: { hidden: like(hidden), weight: like(weight) },
    embeddings: { prompt: like(embeddings.prompt), chosen: like(embeddings.chosen), rejected: like(embeddings.rejected) },
  };
}

function tensorsOf(out: ReturnType<typeof objectiveOut>): Tensor[] {
  return [...Object.values(out.policy), ...Object.values(out.embeddings)] as Tensor[];
}

describeBackends(() => {
  beforeAll(() => {
    large = largeCall(words(32_000));
    expected = linearTokenLogProbsVjpSync(large);
  });

  describe.each(OPERATIONS)("$name", (operation) => {
    it("rejects when the signal was aborted before, and touches nothing", async () => {
      const outs = operation.outs("f32");
      const reason = new Error("no longer wanted");
      const error = await timed(() => operation.async(operation.args("f32"), nested(outs), AbortSignal.abort(reason)));
      expect(error.error).toBeInstanceOf(AbortedError);
      expect(error.error).toMatchObject({ code: "ERR_ABORTED", cause: reason });
      for (const [path, out] of Object.entries(outs)) expect(isFilled(out), path).toBe(true);
    });

    it("gives what the synchronous call does, many times at once", async () => {
      const calls = Array.from({ length: isSimulating() ? 6 : 40 }, () => ({ args: operation.args("f32"), outs: operation.outs("f32") }));
      const objective = operation.state?.();
      const results = await Promise.all(calls.map(({ args, outs }) => operation.async(args, nested(outs))));
      const first = operation.sync(operation.args("f32"), {});
      for (const result of results) expectSameResults(result as object, first as object);
      expect(typeof operation.state?.()).toBe(typeof objective);
    });

    it("leaves no listener on the signal", async () => {
      const { signal } = new AbortController();
      await operation.async(operation.args("f32"), {}, signal);
      await timed(() => operation.async({}, {}, signal));
      expect(getEventListeners(signal, "abort")).toEqual([]);
    });
  });

  describe("a signal aborted on the way", () => {
    it("stops the call long before its end, with the signal's reason", async () => {
      const full = await timed(() => linearTokenLogProbsVjp(large));
      expect(full.error).toBeUndefined();
      const reason = { why: "stopped by the user" };
      const stopped: number[] = [];
      for (let attempt = 0; attempt < 3; attempt++) {
        const { milliseconds, error } = await timed(() => linearTokenLogProbsVjp(large, { signal: abortAfter(5, reason) }));
        expect(error).toBeInstanceOf(AbortedError);
        expect(error).toMatchObject({ code: "ERR_ABORTED", cause: reason });
        stopped.push(milliseconds);
      }
      expect(Math.min(...stopped)).toBeLessThan(full.milliseconds / 2);
    });

    it("stops the forward pass and an objective too", async () => {
      const { upstream: _, logSumExp: __, ...inputs } = large;
      const forward = await timed(() => linearTokenLogProbs(inputs, { signal: abortAfter(2, "enough") }));
      expect(forward.error).toMatchObject({ code: "ERR_ABORTED", cause: "enough" });
      for (const memoryLimit of [2 ** 30, 2 ** 20]) {
        const objective = new DpoKernels({ memoryLimit, kernel: kernels.rbf(), loss: "bco_pair" });
        const state = objective.state();
        const { error } = await timed(() => objective.lossAndGrad(objectiveInputs(256, 128, words(20_000)), { signal: abortAfter(5, "enough") }));
        expect(error).toMatchObject({ code: "ERR_ABORTED", cause: "enough" });
        expect(objective.state()).toEqual(state);
      }
    });

    it.each([0, 3, 30, 80])("after %d ms leaves the results supplied untouched, or complete", async (milliseconds) => {
      const out = filledOut();
      const { error } = await timed(() => linearTokenLogProbsVjp(large, { out, signal: abortAfter(milliseconds, "enough") }));
      if (error === undefined) {
        expectSameResults(out, { hidden: expected.hidden, weight: expected.weight }, "complete");
      } else {
        expect(error).toMatchObject({ code: "ERR_ABORTED", cause: "enough" });
        expect([isFilled(out.hidden), isFilled(out.weight)]).toEqual([true, true]);
      }
    });

    it.each([
      ["pair by pair", 2 ** 30],
      ["in passes", 2 ** 20],
    ])("leaves all of an objective's results untouched, or all complete, %s", async (_, memoryLimit) => {
      const inputs = objectiveInputs(256, 64, words(12_000));
      const objective = new DpoKernels({ memoryLimit, kernel: kernels.rbf() });
      const complete = objectiveOut(inputs);
      await objective.lossAndGrad(inputs, { out: complete });
      for (const milliseconds of [0, 1, 5, 15, 40, 90]) {
        const out = objectiveOut(inputs);
        const { error } = await timed(() => objective.lossAndGrad(inputs, { out, signal: abortAfter(milliseconds, "enough") }));
        if (error === undefined) expectSameResults(out, complete, `${milliseconds} ms`);
        else {
          expect(error).toMatchObject({ code: "ERR_ABORTED", cause: "enough" });
          expect(tensorsOf(out).map(isFilled), `${milliseconds} ms`).toEqual(tensorsOf(out).map(() => true));
        }
      }
    });

    it("stops passes that were fallen back to while nothing of the results supplied is written", async () => {
      const inputs = objectiveInputs(512, 128, words(24_000));
      const objective = new DpoKernels({ memoryLimit: 2 ** 20, kernel: kernels.rbf() });
      const full = await timed(() => objective.lossAndGrad(inputs, { out: objectiveOut(inputs) }));
      expect(full.error).toBeUndefined();
      const out = objectiveOut(inputs);
      // In the first pass, for values alone.
      const { error } = await timed(() => objective.lossAndGrad(inputs, { out, signal: abortAfter(full.milliseconds / 10, "enough") }));
      expect(error).toMatchObject({ code: "ERR_ABORTED" });
      expect(tensorsOf(out).every(isFilled)).toBe(true);
    });

    it("lets go of the memory, so that the next call can have it", async () => {
      const out = largeOut(large);
      await timed(() => linearTokenLogProbsVjp(large, { out, signal: abortAfter(1, "enough") }));
      expectSameResults(await linearTokenLogProbsVjp(large, { out }), expected, "again");
    });

    it("after the end changes nothing", async () => {
      const controller = new AbortController();
      const result = await tokenLogProbs({ logits: tensor(Float32Array.of(0, 0), [1, 2]), targets: Int32Array.of(0) }, { signal: controller.signal });
      controller.abort();
      expect(result.logProbs.data[0]).toBeCloseTo(-Math.LN2, 6);
    });
  });

  it("leaves the event loop free", async () => {
    const gaps: number[] = [];
    let last = performance.now();
    const timer = setInterval(() => {
      const now = performance.now();
      gaps.push(now - last);
      last = now;
    }, 2);
    const { milliseconds } = await timed(() => linearTokenLogProbsVjp(large));
    clearInterval(timer);
    // The fresh results take a moment to be made; the rest of the time is the loop's.
    expect(gaps.length).toBeGreaterThanOrEqual(10);
    expect(Math.max(...gaps)).toBeLessThan(milliseconds / 2);
  });

  describe("calls at the same time", () => {
    it("may not write the same memory", async () => {
      const out = largeOut(large);
      const results = await Promise.allSettled([linearTokenLogProbsVjp(large, { out }), linearTokenLogProbsVjp(large, { out })]);
      expect(codesOf(results)).toEqual(["fulfilled", "ERR_MEMORY"]);
      expectSameResults(out, { hidden: expected.hidden, weight: expected.weight }, "the first call's");
    });

    it("may not write overlapping parts of one buffer, but may write parts side by side", async () => {
      const { shape, size } = expected.weight;
      const buffer = new Float32Array(2 * size + 1);
      const at = (begin: number) => tensor(buffer.subarray(begin, begin + size), shape);
      const apart = await Promise.all([0, size].map((begin) => linearTokenLogProbsVjp(large, { out: { weight: at(begin) } })));
      for (const result of apart) expectSameResults(result, expected, "apart");
      const overlapping = [0, size - 1].map((begin) => linearTokenLogProbsVjp(large, { out: { weight: at(begin) } }));
      expect(codesOf(await Promise.allSettled(overlapping))).toEqual(["fulfilled", "ERR_MEMORY"]);
    });

    it("may not write what another reads, nor read what another writes", async () => {
      const { hidden, weight } = largeCall(words(32_000));
      const mine = { ...large, hidden, weight };
      const reads = linearTokenLogProbsVjp(mine);
      const writes = linearTokenLogProbsVjp(large, { out: { hidden } });
      expect(codesOf(await Promise.allSettled([reads, writes]))).toEqual(["fulfilled", "ERR_MEMORY"]);
      expectSameResults(await reads, expected, "the reader");

      const writer = linearTokenLogProbsVjp(large, { out: { weight } });
      const reader = linearTokenLogProbsVjp(mine);
      expect(codesOf(await Promise.allSettled([writer, reader]))).toEqual(["fulfilled", "ERR_MEMORY"]);
      expectSameResults(await writer, expected, "the writer");
    });

    it("keep a synchronous call from that memory too", async () => {
      const out = largeOut(large);
      const running = linearTokenLogProbsVjp(large, { out });
      expect(() => linearTokenLogProbsVjpSync(large, { out })).toThrow(expect.objectContaining({ code: "ERR_MEMORY" }));
      expectSameResults(await running, expected, "the running call");
      expectSameResults(linearTokenLogProbsVjpSync(large, { out }), expected, "afterwards");
    });

    it("may share inputs", async () => {
      for (const result of await Promise.all([1, 2, 3].map(() => linearTokenLogProbsVjp(large)))) expectSameResults(result, expected);
    });

    it("do not disturb one another when one fails", async () => {
      const [wrong, right] = await Promise.allSettled([
        linearTokenLogProbsVjp({ ...large, upstream: new Float32Array(large.hidden.shape[0] ?? 0).fill(Number.NaN) }),
        linearTokenLogProbsVjp(large),
      ]);
      expect(codesOf([wrong, right])).toEqual(["ERR_NONFINITE", "fulfilled"]);
      if (right.status === "fulfilled") expectSameResults(right.value, expected);
    });

    it("of an objective may not write the same memory", async () => {
      const inputs = objectiveInputs(128, 64, 8000);
      const objective = new DpoKernels({ kernel: kernels.rbf() });
      const complete = objectiveOut(inputs);
      await objective.lossAndGrad(inputs, { out: complete });
      for (const part of ["policy", "embeddings"] as const) {
        const out = objectiveOut(inputs);
        const both = [1, 2].map(() => objective.lossAndGrad(inputs, { out: { [part]: out[part] } }));
        const codes = codesOf(await Promise.allSettled(both));
        expect(codes.toSorted(), part).toEqual(["ERR_MEMORY", "fulfilled"]);
        expectSameResults(out[part], complete[part], part);
      }
    });

    it("that use an objective's last result keep it from writing its first ones", async () => {
      const inputs = objectiveInputs(8, 8, 11);
      const out = objectiveOut(inputs);
      // The prompt's gradient lies in memory that the running call writes.
      const { hidden, ...rest } = largeOut(large);
      out.embeddings.prompt = tensor(hidden.data.subarray(0, 16), [2, 8]);
      const running = linearTokenLogProbsVjp(large, { out: { ...rest, hidden } });
      const { error } = await timed(() => new DpoKernels({ kernel: kernels.rbf() }).lossAndGrad(inputs, { out }));
      await running;
      expect(error).toMatchObject({ code: "ERR_MEMORY" });
      expect(Object.values(out.policy).every((tensor) => isFilled(tensor as Tensor))).toBe(true);
    });
  });

  describe("tensors of a running call", () => {
    it("may be disposed of: the call has them already", async () => {
      const { hidden, weight } = largeCall(words(32_000));
      const running = linearTokenLogProbsVjp({ ...large, hidden, weight });
      hidden.dispose();
      weight.dispose();
      expectSameResults(await running, expected);
    });

    it("disposed of before a later step make the whole fail, or nothing", async () => {
      const inputs = objectiveInputs(64, 32, 4000);
      const complete = objectiveOut(inputs);
      const objective = new DpoKernels({ kernel: kernels.rbf() });
      await objective.lossAndGrad(inputs, { out: complete });
      const out = objectiveOut(inputs);
      const running = objective.lossAndGrad(inputs, { out });
      inputs.embeddings.prompt.dispose();
      const [result] = await Promise.allSettled([running]);
      if (result?.status === "fulfilled") expectSameResults(out, complete);
      else {
        expect(codesOf([result])).toEqual(["ERR_DISPOSED"]);
        expect(tensorsOf(out).every(isFilled)).toBe(true);
      }
    });
  });
});

describe("memory of a running call", () => {
  it("outlives its last reference in JavaScript, and goes after the call", async () => {
    const [report] = await resultOfChild<object>("garbage.mjs", { flags: ["--expose-gc"] });
    expect(report).toEqual({ alive: true, leaked: 0, same: true, first: expect.any(Number) });
  });

  it.each(["transfer", "resize"])("may be taken away by %s without the process crashing", async (way) => {
    const outcomes = await resultOfChild<string>("taken-away.mjs", { args: [way], flags: ["--expose-gc"] });
    expect(outcomes).toHaveLength(4);
    for (const outcome of outcomes) expect(outcome).toMatch(/^(resolved|ERR_[A-Z]+)$/);
  });
});

it("a synchronous call in the meantime uses the same pool and gives the same", async () => {
  const logits = floats(createRandom(1), [64, 5000], "f32");
  const targets = createRandom(2).integers(64, 0, 5000);
  const alone = tokenLogProbsSync({ logits, targets });
  const largeAlone = linearTokenLogProbsVjpSync(large);
  const running = linearTokenLogProbsVjp(large);
  await sleep(5);
  for (let i = 0; i < 5; i++) expectSameResults(tokenLogProbsSync({ logits, targets }), alone);
  expectSameResults(await running, largeAlone);
});
