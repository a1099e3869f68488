/**
 * What holds for a call of any operation: the same bits run to run, on any number of threads, from views of any memory and into supplied
 * memory; inputs stay as they were, and so does supplied memory when the call is refused.
 */

import { DpoKernelsError, type DType, FormulaKernel, MixtureKernel, Tensor, tensor, threads, useThreads, type VectorInput, zeros } from "dpo-kernels";
import { afterEach, describe, expect, it } from "vitest";
import { isSimulating } from "./backends.js";
import { expectBitwiseEqual } from "./bounds.js";
import { expectSameResults, type Faces } from "./cases.js";

type Out = Readonly<Record<string, Tensor | undefined>>;

export interface Call<Args extends object, O extends Out, Result extends object> {
  readonly name: string;
  readonly faces: Faces<Args, { out?: O }, Result>;
  readonly args: () => Args;
  /** The parts of a result that may be supplied. */
  readonly outOf: (result: Result) => O;
}

/** Declares the tests of one call. Its arguments should be of a size that several threads share. */
export function describeCall<Args extends object, O extends Out, Result extends object>({ name, faces, args, outOf }: Call<Args, O, Result>): void {
  const { sync, async } = faces;

  describe(name, () => {
    const usual = threads();
    afterEach(() => useThreads(usual));

    it("gives the same bits run to run, on 1, 2 and 3 threads", async () => {
      const first = sync(args());
      for (const count of isSimulating() ? [2] : [1, 2, 3, 1]) {
        useThreads(count);
        expectSameResults(sync(args()), first, `${count} threads`);
        expectSameResults(await async(args()), first, `${count} threads, async`);
      }
    });

    it("gives the same bits when many calls run at once", async () => {
      const first = sync(args());
      for (const result of await Promise.all(Array.from({ length: 4 }, () => async(args())))) expectSameResults(result, first);
    });

    it("leaves its inputs as they were", async () => {
      const [mine, untouched] = [args(), mapTensors(args(), copyOf)];
      sync(mine);
      expectSameResults(tensorsOf(mine), tensorsOf(untouched), "sync");
      await async(mine);
      expectSameResults(tensorsOf(mine), tensorsOf(untouched), "async");
    });

    it("takes views with a byte offset and shared memory", async () => {
      const first = sync(args());
      for (const buffer of [ArrayBuffer, SharedArrayBuffer]) {
        const viewed = mapTensors(args(), (original) => viewOf(original, buffer).tensor);
        expectSameResults(sync(viewed), first, buffer.name);
        expectSameResults(await async(viewed), first, `${buffer.name}, async`);
      }
    });

    it("writes into supplied tensors what it would return, and returns them", async () => {
      const fresh = sync(args());
      for (const buffer of [ArrayBuffer, SharedArrayBuffer]) {
        for (const face of [sync, async]) {
          const views: View[] = [];
          const out = mapTensors(outOf(fresh), (result) => {
            const view = viewOf(filled(result, GARBAGE), buffer);
            views.push(view);
            return view.tensor;
          });
          const result = await face(args(), { out });
          expectSameResults(result, fresh, buffer.name);
          expectReturned(outOf(result), out);
          expect(views.every(({ surroundingsIntact }) => surroundingsIntact())).toBe(true);
        }
      }
    });

    it("takes each supplied tensor without the others", () => {
      const fresh = sync(args());
      for (const [key, result] of given(outOf(fresh))) {
        const out = { [key]: filled(result, GARBAGE) } as O;
        const mine = sync(args(), { out });
        expectSameResults(mine, fresh, key);
        expectReturned(outOf(mine), out);
      }
    });

    it("refuses supplied tensors that do not fit, and leaves the others as they were", async () => {
      const fresh = sync(args());
      for (const [key, result] of given(outOf(fresh))) {
        const misfits = [
          { code: "ERR_SHAPE", misfit: zeros([result.size + 1], result.dtype) },
          { code: "ERR_DTYPE", misfit: zeros(result.shape, otherDType(result.dtype)) },
        ];
        for (const { code, misfit } of misfits) {
          const others = mapTensors(outOf(fresh), (other) => filled(other, 7));
          const out = { ...others, [key]: misfit };
          expect(() => sync(args(), { out }), key).toThrow(expect.objectContaining({ code, message: expect.stringContaining(key) }));
          await expect(async(args(), { out }), key).rejects.toThrow(DpoKernelsError);
          for (const [name, other] of given(others)) {
            if (name !== key) expectBitwiseEqual(other.data, filled(other, 7).data, { label: name });
          }
        }
      }
    });
  });
}

/** Bits that no result has. */
const GARBAGE = Number.NaN;

function given(out: Out): [string, Tensor][] {
  const entries = Object.entries(out).flatMap(([key, value]): [string, Tensor][] => (value === undefined ? [] : [[key, value]]));
  expect(entries.length).toBeGreaterThan(0);
  return entries;
}

function expectReturned(result: Out, out: Out): void {
  for (const [key, supplied] of given(out)) expect(result[key] === supplied, `${key} is the supplied tensor`).toBe(true);
}

function otherDType(dtype: DType): DType {
  return dtype === "f32" ? "f64" : "f32";
}

function filled(like: Tensor, value: number): Tensor {
  const result = zeros(like.shape, like.dtype);
  result.data.fill(result.data instanceof Uint16Array && Number.isNaN(value) ? 0x7fff : value);
  return result;
}

/** The value with every tensor and typed array in it replaced, but for those of kernels. */
function mapTensors<T>(value: T, replace: (tensor: Tensor) => Tensor): T {
  return mapped(value, replace) as T;
}

function mapped(value: unknown, replace: (tensor: Tensor) => Tensor): unknown {
  if (value instanceof Tensor) return replace(value);
  if (isVector(value)) return replace(new Tensor(value, [value.length], vectorDType(value))).data;
  if (Array.isArray(value)) return value.map((member) => mapped(member, replace));
  if (typeof value !== "object" || value === null || value instanceof FormulaKernel || value instanceof MixtureKernel) return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, mapped(member, replace)]));
}

function tensorsOf(value: object): Tensor[] {
  const found: Tensor[] = [];
  mapTensors(value, (tensor) => {
    found.push(tensor);
    return tensor;
  });
  return found;
}

function isVector(value: unknown): value is Exclude<VectorInput, Tensor> {
  return value instanceof Float32Array || value instanceof Float64Array || value instanceof Int32Array;
}

function vectorDType(data: Exclude<VectorInput, Tensor>): "f32" | "f64" | "i32" {
  if (data instanceof Float32Array) return "f32";
  return data instanceof Float64Array ? "f64" : "i32";
}

function copyOf({ data, shape, dtype }: Tensor): Tensor {
  return tensor(data.slice(), shape, dtype);
}

interface View {
  readonly tensor: Tensor;
  readonly surroundingsIntact: () => boolean;
}

/** A copy that starts one element into a larger buffer, and ends two before its end. */
function viewOf({ data, shape, dtype, size }: Tensor, Buffer: ArrayBufferConstructor | SharedArrayBufferConstructor): View {
  const width = data.BYTES_PER_ELEMENT;
  const buffer = new Buffer((size + 3) * width);
  const surroundings = () => [new Uint8Array(buffer, 0, width), new Uint8Array(buffer, (size + 1) * width)];
  for (const bytes of surroundings()) bytes.fill(0xa5);
  const ArrayClass = data.constructor as new (buffer: ArrayBufferLike, offset: number, length: number) => typeof data;
  const view = new ArrayClass(buffer, width, size);
  view.set(data);
  return {
    tensor: tensor(view, shape, dtype),
    surroundingsIntact: () => surroundings().every((bytes) => bytes.every((byte) => byte === 0xa5)),
  };
}
