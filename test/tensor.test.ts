/** Tensors: what they hold, what they share, and when they say no. */

import {
  DisposedError,
  type DType,
  DTypeError,
  ShapeError,
  Tensor,
  type TensorData,
  tensor,
  tokenLogProbs,
  tokenLogProbsSync,
  zeros,
} from "dpo-kernels";
import { describe, expect, it } from "vitest";
import { expectSameResults } from "./support/cases.js";
import { detach, integers } from "./support/tensors.js";

const ARRAYS: readonly (readonly [DType, () => TensorData])[] = [
  ["f32", () => Float32Array.of(1, 2, 3, 4, 5, 6)],
  ["f64", () => Float64Array.of(1, 2, 3, 4, 5, 6)],
  ["i32", () => Int32Array.of(1, 2, 3, 4, 5, 6)],
  ["f16", () => Uint16Array.of(1, 2, 3, 4, 5, 6)],
  ["bf16", () => Uint16Array.of(1, 2, 3, 4, 5, 6)],
];

/** A tensor for which no overload of the types fits. */
const anyTensor = tensor as (data: unknown, shape: unknown, dtype?: unknown) => Tensor;

describe.each(ARRAYS)("%s", (dtype, make) => {
  it("holds the array it was made of", () => {
    const data = make();
    const made = anyTensor(data, [2, 3], dtype);
    expect(made.data).toBe(data);
    expect([made.dtype, [...made.shape], made.size]).toEqual([dtype, [2, 3], 6]);
  });

  it("shares memory with its reshapes and rows", () => {
    const made = anyTensor(make(), [3, 2], dtype);
    const flat = made.reshape([6]);
    const middle = made.rows(1, 2);
    expect([...middle.data]).toEqual([3, 4]);
    expect([middle.dtype, [...middle.shape]]).toEqual([dtype, [1, 2]]);
    middle.data[0] = 9;
    expect(flat.data[2]).toBe(9);
    expect(middle.data.byteOffset).toBe(2 * made.data.BYTES_PER_ELEMENT);
    expect([...made.rows(0, 3).data]).toEqual([...made.data]);
    expect([...made.reshape([1, 6]).rows(0, 1).reshape([2, 3, 1, 1]).rows(1, 2).data]).toEqual([4, 5, 6]);
  });

  it("starts at zero", () => {
    const made = zeros([2, 3], dtype);
    expect([made.dtype, [...made.shape], [...made.data]]).toEqual([dtype, [2, 3], [0, 0, 0, 0, 0, 0]]);
    expect(made.data.constructor).toBe(make().constructor);
  });

  it("is let go of by dispose", () => {
    const made = anyTensor(make(), [6], dtype);
    const view = made.reshape([2, 3]);
    expect(made.disposed).toBe(false);
    made.dispose();
    expect(made.disposed).toBe(true);
    made.dispose();
    for (const use of [() => made.data, () => made.reshape([6]), () => made.rows(0, 1)]) expect(use).toThrow(DisposedError);
    expect(made.shape).toEqual([6]);
    expect([...view.data]).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("is let go of by using", () => {
    const made = anyTensor(make(), [6], dtype);
    made[Symbol.dispose]();
    expect(made.disposed).toBe(true);
    expect(() => made.data).toThrow(expect.objectContaining({ code: "ERR_DISPOSED" }));
  });

  it("notices that its buffer was transferred away", () => {
    const made = anyTensor(make(), [6], dtype);
    const view = made.rows(1, 3);
    detach(made);
    for (const each of [made, view]) {
      expect(() => each.data).toThrow(DisposedError);
      expect(() => each.data).toThrow(/detached/);
    }
    expect(made.disposed).toBe(false);
  });
});

describe("a tensor's dtype", () => {
  it("follows from its array", () => {
    expect(tensor(new Float32Array(2), [2]).dtype).toBe("f32");
    expect(tensor(new Float64Array(2), [2]).dtype).toBe("f64");
    expect(tensor(new Int32Array(2), [2]).dtype).toBe("i32");
  });

  it("must be said of 16 bits", () => {
    expect(() => anyTensor(new Uint16Array(2), [2])).toThrow(DTypeError);
    expect(() => anyTensor(new Uint16Array(2), [2])).toThrow(/f16.*bf16/);
  });

  it.each([
    [Float32Array, "f64"],
    [Float32Array, "i32"],
    [Float32Array, "bf16"],
    [Float64Array, "f32"],
    [Int32Array, "f32"],
    [Uint16Array, "f32"],
    [Uint16Array, "i32"],
    [Float32Array, "f8"],
    [Float32Array, "toString"],
    [Float32Array, ""],
    [Float32Array, null],
    [Float32Array, 32],
  ])("refuses a %o as %s", (ArrayClass, dtype) => {
    expect(() => anyTensor(new ArrayClass(2), [2], dtype)).toThrow(DTypeError);
  });

  it.each([
    ["an array", [1, 2]],
    ["a number", 2],
    ["null", null],
    ["undefined", undefined],
    ["a buffer", new ArrayBuffer(8)],
    ["bytes", new Uint8Array(2)],
    ["clamped bytes", new Uint8ClampedArray(2)],
    ["unsigned integers", new Uint32Array(2)],
    ["big integers", new BigInt64Array(2)],
    ["a DataView", new DataView(new ArrayBuffer(8))],
  ])("refuses %s for data", (_, data) => {
    expect(() => anyTensor(data, [2])).toThrow(DTypeError);
    expect(() => anyTensor(data, [2], "f32")).toThrow(DTypeError);
  });

  it.each(["f8", "toString", "", null, undefined, 32])("of zeros cannot be %s", (dtype) => {
    expect(() => (zeros as (shape: number[], dtype: unknown) => Tensor)([2], dtype)).toThrow(DTypeError);
  });
});

describe("a tensor's shape", () => {
  it.each([
    ["no extent", []],
    ["rank 5", [1, 1, 1, 1, 6]],
    ["an extent of 0", [6, 0]],
    ["an extent below 0", [-2, -3]],
    ["a fraction", [1.5, 4]],
    ["NaN", [Number.NaN]],
    ["infinity", [Infinity]],
    ["too many elements", [7]],
    ["too few elements", [5]],
    ["words", ["6"]],
    ["a hole", [6, undefined]],
    ["a size past 2^53", [2 ** 30, 2 ** 30, 2 ** 30]],
    ["no array", 6],
    ["null", null],
    ["undefined", undefined],
  ])("cannot have %s", (_, shape) => {
    const make = [
      () => anyTensor(new Float32Array(6), shape),
      () => tensor(new Float32Array(6), [6]).reshape(shape as number[]),
      () => new Tensor(new Float32Array(6), shape as number[], "f32"),
    ];
    for (const each of make) expect(each).toThrow(ShapeError);
  });

  it("cannot be empty", () => {
    expect(() => tensor(new Float32Array(0), [0])).toThrow(ShapeError);
    expect(() => zeros([0], "f32")).toThrow(ShapeError);
  });

  it("says what it holds and what it was given", () => {
    expect(() => tensor(new Float32Array(6), [2, 4])).toThrow(/\[2, 4\].*8.*6/);
  });

  it("is its own, and cannot be written to", () => {
    const shape = [2, 3];
    const made = tensor(new Float32Array(6), shape);
    shape[0] = 5;
    expect(made.shape).toEqual([2, 3]);
    expect(() => {
      (made.shape as number[])[0] = 5;
    }).toThrow(TypeError);
  });

  it.each([
    [-1, 2],
    [0, 0],
    [2, 1],
    [0, 4],
    [0.5, 2],
    [0, Number.NaN],
  ])("has no rows %d to %d of 3", (begin, end) => {
    expect(() => zeros([3, 2], "f32").rows(begin, end)).toThrow(ShapeError);
  });

  it("of rows of a vector is a vector", () => {
    const part = tensor(Int32Array.of(1, 2, 3, 4), [4]).rows(1, 3);
    expect([[...part.shape], [...part.data]]).toEqual([[2], [2, 3]]);
  });

  it("too large for memory is refused by this package's error", () => {
    expect(() => zeros([2 ** 26, 2 ** 26], "f64")).toThrow(expect.objectContaining({ code: expect.stringMatching(/^ERR_(MEMORY|SHAPE)$/) }));
  });
});

describe("an operation's arguments", () => {
  const [rows, words] = [3, 5];
  const values = Float32Array.from({ length: rows * words }, (_, i) => Math.sin(i));
  const targets = integers([4, 0, 2]);
  const expected = tokenLogProbsSync({ logits: tensor(values, [rows, words]), targets });

  it.each([
    ["ArrayBuffer", (bytes: number) => new ArrayBuffer(bytes)],
    ["SharedArrayBuffer", (bytes: number) => new SharedArrayBuffer(bytes)],
  ])("may lie anywhere in a %s", async (_, allocate) => {
    for (const offset of [0, 4, 60]) {
      const view = new Float32Array(allocate(offset + values.byteLength + 12), offset, values.length);
      view.set(values);
      const given = { logits: tensor(view, [rows, words]), targets };
      expectSameResults(tokenLogProbsSync(given), expected, "sync");
      expectSameResults(await tokenLogProbs(given), expected, "async");
    }
  });

  it("may be rows of a larger tensor", () => {
    const larger = new Float32Array(5 * words);
    larger.set(values, words);
    expectSameResults(tokenLogProbsSync({ logits: tensor(larger, [5, words]).rows(1, 4), targets }), expected, "rows");
  });

  it("see writes made through any view", () => {
    const data = values.slice();
    const logits = tensor(data, [rows, words]);
    data.fill(0);
    const { logProbs } = tokenLogProbsSync({ logits, targets });
    for (const value of logProbs.data) expect(value).toBeCloseTo(-Math.log(words), 6);
  });

  it("may be a tensor whose array subclasses its kind", () => {
    class Mine extends Float32Array {}
    const mine = Mine.from(values) as Float32Array<ArrayBuffer>;
    expectSameResults(tokenLogProbsSync({ logits: tensor(mine, [rows, words]), targets }), expected, "subclass");
  });

  it("cannot reach past their memory, whatever dtype the constructor was told", () => {
    const lying = new Tensor(values.slice(0, 2 * words) as never, [2, words], "f64") as Tensor;
    expect(() => tokenLogProbsSync({ logits: lying, targets: integers([0, 1]) })).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }),
    );
  });

  it("may be taken from a resizable buffer until it shrinks", () => {
    const Resizable = ArrayBuffer as unknown as new (
      bytes: number,
      options: { maxByteLength: number },
    ) => ArrayBuffer & { resize(bytes: number): void };
    const buffer = new Resizable(values.byteLength, { maxByteLength: 2 * values.byteLength });
    const view = new Float32Array(buffer, 0, values.length);
    view.set(values);
    const logits = tensor(view, [rows, words]);
    expectSameResults(tokenLogProbsSync({ logits, targets }), expected, "resizable");
    buffer.resize(8);
    expect(() => tokenLogProbsSync({ logits, targets })).toThrow(DisposedError);
  });
});
