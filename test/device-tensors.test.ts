/** Tensors on a backend's device: what they are, and that every operation gives the same there as from the host's memory. */

import {
  BackendError,
  cholesky,
  DisposedError,
  DpoKernels,
  DTypeError,
  divergence,
  divergences,
  fromDLPack,
  MemoryError,
  NonFiniteError,
  ShapeError,
  Tensor,
  tensor,
  toDLPack,
  tokenLogProbs,
  tokenLogProbsSync,
  tokenLogProbsVjp,
  useBackend,
} from "dpo-kernels";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hasOperations, runnableBackends } from "./support/backends.js";
import { nested, OPERATIONS } from "./support/operation-table.js";
import { createRandom } from "./support/random.js";
import { floats, integers } from "./support/tensors.js";

/** The backends that have a device: a tensor sent there is no longer in the host's memory. */
const DEVICES = runnableBackends().filter((name) => tensor(Float32Array.of(0), [1]).toSync(name).device !== "cpu");
const DTYPES = ["f32", "f64", "f16", "bf16"] as const;

/** The same with every tensor on the device. */
function onDevice<T>(value: T, device: string): T {
  if (value instanceof Tensor) return value.toSync(device) as T;
  if (ArrayBuffer.isView(value) || typeof value !== "object" || value === null) return value;
  const prototype = Object.getPrototypeOf(value);
  if (Array.isArray(value)) return value.map((part) => onDevice(part, device)) as T;
  if (prototype !== Object.prototype) return value; // kernels and other objects that keep parameters of their own
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, onDevice(part, device)])) as T;
}

/** The same with every tensor as its elements. */
function inWords(value: unknown): unknown {
  if (value instanceof Tensor) return { dtype: value.dtype, shape: [...value.shape], elements: value.readSync() };
  if (ArrayBuffer.isView(value) || typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(inWords);
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, inWords(part)]));
}

function tensorsWithin(value: unknown): Tensor[] {
  if (value instanceof Tensor) return [value];
  if (ArrayBuffer.isView(value) || typeof value !== "object" || value === null) return [];
  return Object.values(value).flatMap(tensorsWithin);
}

it("every backend that can run but the CPU's has a device", () => {
  expect(DEVICES).toEqual(runnableBackends().filter((name) => !name.startsWith("cpu")));
});

it("a tensor stays where it is on backends without a device", async () => {
  const x = tensor(Float32Array.of(1, 2), [2]);
  expect(await x.to("cpu")).toBe(x);
  expect(await x.read()).toBe(x.data);
  for (const name of runnableBackends().filter((name) => !DEVICES.includes(name))) expect((await x.to(name)).device).toBe("cpu");
  await expect(x.to("abacus")).rejects.toThrow(BackendError);
  expect(() => toDLPack(x)).toThrow(BackendError);
  expect(() => fromDLPack({}, runnableBackends()[0])).toThrow(DTypeError);
});

describe.each(DEVICES)("%s", (device) => {
  const random = createRandom(1);

  it.each([...DTYPES, "i32"] as const)("%s goes there and comes back", async (dtype) => {
    const x = dtype === "i32" ? integers([1, -2, 3, 4, 5, 6], [2, 3]) : floats(random, [2, 3], dtype);
    const there = await x.to(device);
    expect([there.device, there.dtype, there.shape]).toEqual([device, dtype, [2, 3]]);
    expect(await there.to(device)).toBe(there);
    const back = await there.to("cpu");
    expect(back.data).not.toBe(x.data);
    for (const elements of [back.data, await there.read(), there.readSync(), there.toSync("cpu").data]) expect(elements).toEqual(x.data);
  });

  it("views share its memory", async () => {
    const x = floats(random, [4, 3], "f32");
    const there = await x.to(device);
    expect(await there.rows(1, 3).read()).toEqual(x.rows(1, 3).data);
    expect(await there.rows(1, 3).rows(1, 2).reshape([3, 1]).read()).toEqual(x.rows(2, 3).data);
    expect(() => there.reshape([5])).toThrow(ShapeError);
    expect(() => there.rows(3, 5)).toThrow(ShapeError);
    const part = there.rows(2, 4);
    there.dispose();
    expect(await part.read()).toEqual(x.rows(2, 4).data);
  });

  it("has no elements at hand", async () => {
    const there = await floats(random, [3], "f32").to(device);
    expect(() => there.data).toThrow(BackendError);
    expect(there.usable).toBe(true);
  });

  it("is of no use once disposed of", async () => {
    const there = await floats(random, [2, 3], "f32").to(device);
    there[Symbol.dispose]();
    expect([there.disposed, there.usable]).toEqual([true, false]);
    await expect(there.read()).rejects.toThrow(DisposedError);
    await expect(there.to("cpu")).rejects.toThrow(DisposedError);
    await expect(tokenLogProbs({ logits: there, targets: Int32Array.of(0, 0) })).rejects.toThrow(DisposedError);
  });

  it("keeps its memory while a call uses it", async () => {
    const logits = floats(random, [3, 50], "f32");
    const targets = Int32Array.of(3, 4, 49);
    const there = await logits.to(device);
    const running = tokenLogProbs({ logits: there, targets });
    there.dispose();
    expect((await running).logProbs.data).toEqual((await tokenLogProbs({ logits: await logits.to(device), targets })).logProbs.data);
  });

  it("tells V8 what it holds, so that tensors nobody disposes of are collected", async () => {
    const x = new Tensor(new Float32Array(2 ** 20), [2 ** 20], "f32");
    const forgotten: WeakRef<Tensor>[] = [];
    for (let i = 0; i < 100; i++) forgotten.push(new WeakRef(await x.to(device)));
    expect(forgotten.some((reference) => reference.deref() === undefined)).toBe(true);
  });

  it("goes out to other addons and comes back without a copy", async () => {
    for (const dtype of DTYPES) {
      const x = floats(random, [4, 3], dtype);
      const there = await x.to(device);
      const external = toDLPack(there.rows(1, 4));
      const shared = fromDLPack(external, device);
      there.dispose();
      expect([shared.device, shared.dtype, shared.shape]).toEqual([device, dtype, [3, 3]]);
      expect(await shared.read()).toEqual(x.rows(1, 4).data);
      shared.dispose();
    }
    expect(() => fromDLPack({}, device)).toThrow(DTypeError);
    expect(() => fromDLPack(5 as never, device)).toThrow(DTypeError);
    await expect(async () => fromDLPack(toDLPack(await floats(random, [1], "f32").to(device)), "abacus")).rejects.toThrow(BackendError);
  });

  it("takes calls to its backend, whichever is selected; a gradient lies where its input does", async () => {
    const logits = floats(random, [3, 7], "f32");
    const there = await logits.to(device);
    const args = { targets: Int32Array.of(3, -100, 6), upstream: Float32Array.of(1, 2, 3) };
    const gradient = await tokenLogProbsVjp({ ...args, logits: there });
    expect(gradient.logits.device).toBe(device);
    const values = await tokenLogProbs({ ...args, logits: there, entropy: true });
    expect(tensorsWithin(values).map((result) => result.device)).toEqual(["cpu", "cpu", "cpu"]);
    const out = { logProbs: new Tensor(new Float32Array(3), [3], "f32").toSync(device) };
    await tokenLogProbs({ ...args, logits }, { out: { logProbs: out.logProbs } });
    expect(await out.logProbs.read()).toEqual(values.logProbs.data);
  });

  it("does not leave a result half written, nor written by a call that fails", async () => {
    const x = floats(random, [3, 7], "f32");
    x.data[9] = Number.NaN;
    const before = floats(random, [3, 7], "f32");
    const gradPolicy = await before.to(device);
    const call = { policy: await x.to(device), reference: await before.to(device), kind: divergences.kl(), upstream: Float32Array.of(1, 1, 1) };
    await expect(divergence(call, { out: { gradPolicy } })).rejects.toThrow(NonFiniteError);
    expect(await gradPolicy.read()).toEqual(before.data);
    await expect(cholesky({ a: await tensor(Float64Array.of(1, Number.NaN, 0, 1), [2, 2]).to(device) })).rejects.toThrow(NonFiniteError);
  });

  it("is not written by two calls at once", async () => {
    const logits = await floats(random, [40, 300], "f32").to(device);
    const args = { logits, targets: new Int32Array(40), upstream: new Float32Array(40).fill(1) };
    const out = { logits: await floats(random, [40, 300], "f32").to(device) };
    const first = tokenLogProbsVjp(args, { out });
    await expect(tokenLogProbsVjp(args, { out })).rejects.toThrow(MemoryError);
    await first;
    expect(() => tokenLogProbsSync({ ...args, logits }, { out: { logProbs: out.logits } })).toThrow(ShapeError);
  });

  it.runIf(DEVICES.length > 1)("does not meet tensors of another device", async () => {
    const other = DEVICES.find((name) => name !== device) ?? "";
    const x = floats(random, [2, 3], "f32");
    const [policy, reference] = [await x.to(device), await x.to(other)];
    await expect(divergence({ policy, reference, kind: divergences.kl() })).rejects.toThrow(BackendError);
    expect(await (await policy.to(other)).read()).toEqual(x.data);
  });

  it("feeds an objective", async () => {
    const inputs = {
      policy: { logits: floats(random, [8, 11], "f32"), targets: random.integers(8, 0, 11), offsets: Int32Array.of(0, 2, 3, 6, 8) },
      reference: { logits: floats(random, [8, 11], "f32") },
    };
    useBackend(device);
    const objective = new DpoKernels({ divergence: divergences.js(), alpha: 0.1 });
    const host = await objective.lossAndGrad(inputs);
    const there = await objective.lossAndGrad(onDevice(inputs, device));
    useBackend("auto");
    expect(there.loss).toBe(host.loss);
    expect(tensorsWithin(there.grads.policy).map((gradient) => gradient.device)).toEqual([device]);
    expect(inWords(there.grads.policy)).toEqual(inWords(host.grads.policy));
  });

  describe("every operation gives the same", () => {
    beforeAll(() => useBackend(device));
    afterAll(() => useBackend("auto"));
    for (const operation of OPERATIONS.filter(({ needs }) => hasOperations(device, needs))) {
      it.each(operation.dtypes)(`${operation.name} %s`, async (dtype) => {
        const host = inWords(await operation.async(operation.args(dtype), {}));
        const there = onDevice(operation.args(dtype), device);
        expect(inWords(operation.sync(there, {}))).toEqual(host);
        const outs = onDevice(operation.outs(dtype), device);
        await operation.async(onDevice(operation.args(dtype), device), nested(outs));
        for (const out of Object.values(outs)) expect(out.usable).toBe(true);
      });
    }
  });
});
