import {
  DisposedError,
  divergence,
  divergenceSync,
  divergences,
  gramSync,
  kernels,
  linearTokenLogProbsVjpSync,
  type Tensor,
  tensor,
  tokenLogProbsVjp,
  tokenLogProbsVjpSync,
  useBackend,
} from "dpo-kernels";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { bytesKept, releaseResult, resultMemory, takeKept } from "../lib/result-memory.js";

const ROWS = 16;
const VOCABULARY = 20000; // 1.28 MB of f32
const BYTES = ROWS * VOCABULARY * 4;

function numbers(count: number, seed: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => Math.sin(seed + 1.7 * i) * 3);
}

const policy = tensor(numbers(ROWS * VOCABULARY, 1), [ROWS, VOCABULARY]);
const reference = tensor(numbers(ROWS * VOCABULARY, 2), [ROWS, VOCABULARY]);
const targets = new Int32Array(ROWS).fill(7);
const upstream = new Float32Array(ROWS).fill(1);
const kind = divergences.kl();

const gradPolicy = (): Tensor => divergenceSync({ policy, reference, kind, upstream: 1 }).gradPolicy as Tensor;

function emptyPool(): void {
  for (let size = 2 ** 20; size <= 2 ** 31; size *= 1.9) while (takeKept(size) !== undefined);
}

beforeAll(() => useBackend("cpu"));
beforeEach(emptyPool);

describe("the memory of a large result", () => {
  it("is kept when the result is disposed of, and goes to the next of its size", () => {
    const first = gradPolicy();
    expect(bytesKept()).toBe(0);
    first.dispose();
    expect(bytesKept()).toBe(BYTES);
    const second = gradPolicy();
    expect(bytesKept()).toBe(0);
    const { data } = second;
    expect(data.length).toBe(ROWS * VOCABULARY);
    second.dispose();
    expect(bytesKept()).toBe(BYTES);
    expect(data.length).toBe(0);
  });

  it("is the same buffer while no array over it has been given out", () => {
    gradPolicy().dispose();
    const kept = takeKept(BYTES);
    expect(kept?.byteLength).toBe(BYTES);
    const memory = resultMemory(new Float32Array(kept as ArrayBuffer));
    if (memory === undefined) throw new Error("too small");
    memory.users = 1;
    releaseResult(memory);
    expect(takeKept(BYTES)).toBe(kept);
  });

  it("leaves arrays over it empty, and is given back once", () => {
    const result = gradPolicy();
    const { data } = result;
    result.dispose();
    result.dispose();
    expect(data.length).toBe(0);
    expect(() => result.data).toThrow(DisposedError);
    expect(bytesKept()).toBe(BYTES);
  });

  it("stays while another tensor is over it", () => {
    const result = gradPolicy();
    const row = result.rows(1, 2);
    const shaped = result.reshape([ROWS * VOCABULARY]);
    const before = Float32Array.from(row.data);
    result.dispose();
    row.dispose();
    expect(bytesKept()).toBe(0);
    expect(Float32Array.from(shaped.data.subarray(VOCABULARY, 2 * VOCABULARY))).toEqual(before);
    shaped.dispose();
    expect(bytesKept()).toBe(BYTES);
  });

  it("is not that of the caller: of a tensor over the caller's array, or one given as out", () => {
    const mine = new Float32Array(ROWS * VOCABULARY);
    const out = tensor(mine, [ROWS, VOCABULARY]);
    divergenceSync({ policy, reference, kind, upstream: 1 }, { out: { gradPolicy: out } });
    out.dispose();
    expect(mine.length).toBe(ROWS * VOCABULARY);
    expect(bytesKept()).toBe(0);
  });

  it("is not taken by results that it does not fit", () => {
    gradPolicy().dispose();
    const half = tensor(numbers(ROWS * VOCABULARY * 4, 1), [ROWS * 4, VOCABULARY]);
    tokenLogProbsVjpSync({ logits: half, targets: new Int32Array(ROWS * 4), upstream: new Float32Array(ROWS * 4) });
    expect(bytesKept()).toBe(BYTES);
    expect(takeKept(BYTES / 2)).toBeUndefined();
    expect(takeKept(BYTES + 1)).toBeUndefined();
    expect(takeKept(BYTES - 4)?.byteLength).toBe(BYTES);
  });

  it("stays where it is once an asynchronous call has used it, and while one does", async () => {
    const logits = gradPolicy();
    const running = tokenLogProbsVjp({ logits, targets, upstream, logSumExp: new Float32Array(ROWS).fill(10) });
    logits.dispose();
    expect(bytesKept()).toBe(0);
    expect((await running).logits.data.every(Number.isFinite)).toBe(true);
  });

  it("stays where it is when it is disposed of between two native calls of an asynchronous one", async () => {
    const logits = gradPolicy();
    const running = tokenLogProbsVjp({ logits, targets, upstream });
    logits.dispose();
    expect(bytesKept()).toBe(0);
    await expect(running).rejects.toThrow(DisposedError);
  });

  it("of an asynchronous call is kept like that of another", async () => {
    const { gradPolicy: result } = await divergence({ policy, reference, kind, upstream: 1 });
    result?.dispose();
    expect(bytesKept()).toBe(BYTES);
  });

  it("is left to the caller who has transferred it away", () => {
    const transferred = gradPolicy();
    structuredClone(transferred.data.buffer, { transfer: [transferred.data.buffer as ArrayBuffer] });
    transferred.dispose();
    expect(bytesKept()).toBe(0);
  });

  it("is kept up to 1 GiB, the newest", () => {
    for (let i = 0; i < 9; i++) {
      const memory = resultMemory(new Uint8Array(2 ** 27 + i));
      if (memory === undefined) throw new Error("too small");
      memory.users = 1;
      releaseResult(memory);
    }
    expect(bytesKept()).toBeLessThanOrEqual(2 ** 30);
    expect(bytesKept()).toBeGreaterThan(2 ** 30 - 2 ** 28);
    expect(takeKept(2 ** 27 + 1)?.byteLength).toBe(2 ** 27 + 2);
  });
});

describe("a result in memory that held another", () => {
  const hidden = tensor(numbers(ROWS * 512, 3), [ROWS, 512]);
  const weight = tensor(numbers(VOCABULARY * 512, 4), [VOCABULARY, 512]);
  const points = tensor(numbers(600 * 3, 5), [600, 3]);
  const bf16 = tensor(
    Uint16Array.from(numbers(2 * ROWS * VOCABULARY, 6), (x) => (new Uint32Array(new Float32Array([x]).buffer)[0] ?? 0) >>> 16),
    [2 * ROWS, VOCABULARY],
    "bf16",
  );

  it.each<[string, () => Tensor]>([
    ["divergence kl", gradPolicy],
    ["divergence js", () => divergenceSync({ policy, reference, kind: divergences.js(), upstream: 1 }).gradPolicy as Tensor],
    ["tokenLogProbsVjp", () => tokenLogProbsVjpSync({ logits: policy, targets, upstream }).logits],
    ["tokenLogProbsVjp, ignored rows", () => tokenLogProbsVjpSync({ logits: policy, targets: new Int32Array(ROWS).fill(-100), upstream }).logits],
    [
      "tokenLogProbsVjp bf16",
      () => tokenLogProbsVjpSync({ logits: bf16, targets: new Int32Array(2 * ROWS), upstream: new Float32Array(2 * ROWS).fill(1) }).logits,
    ],
    ["linearTokenLogProbsVjp", () => linearTokenLogProbsVjpSync({ hidden, weight, targets, upstream }).weight],
    ["gram", () => gramSync({ x: points, kernel: kernels.rbf({ gamma: 1 }) })],
  ])("is the same: %s", (_, run) => {
    const fresh = run();
    const expected = fresh.data.slice();
    fresh.data.fill(fresh.dtype === "bf16" ? 0x7fc0 : Number.NaN);
    fresh.dispose();
    expect(bytesKept()).toBeGreaterThan(0);
    const reused = run();
    expect(bytesKept()).toBe(0);
    expect(Buffer.compare(Buffer.from(reused.data.buffer, 0, reused.data.byteLength), Buffer.from(expected.buffer))).toBe(0);
  });

  it("of a call that fails is nobody's", () => {
    gradPolicy().dispose();
    const bad = tensor(Float32Array.from(policy.data), [ROWS, VOCABULARY]);
    bad.data[5 * VOCABULARY + 3] = Number.NaN;
    expect(() => tokenLogProbsVjpSync({ logits: bad, targets, upstream, logSumExp: new Float32Array(ROWS).fill(12) })).toThrow(/logits/);
    expect(() => divergenceSync({ policy: bad, reference, kind, upstream: 1 })).toThrow(/policy/);
    expect(gradPolicy().data.every(Number.isFinite)).toBe(true);
  });
});
