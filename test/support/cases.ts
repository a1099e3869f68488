/** What the operations' tests share: tensors of each storage type, the bounds that go with it, and results of both faces. */

import { Tensor, tensor, zeros } from "dpo-kernels";
import { expect } from "vitest";
import { isSimulating } from "./backends.js";
import { expectBitwiseEqual, expectGradient, expectStored16, expectValues } from "./bounds.js";
import { decode16, encode16, type Storage, type Storage16, storedAll } from "./storage.js";

export type Numbers = ArrayLike<number>;

/** The storage types that embeddings, hidden states and logits may have. */
export const STORAGES = ["f32", "f64", "f16", "bf16"] as const satisfies readonly Storage[];
/** Those that sequence log-probabilities may have. */
export const WIDE_STORAGES = ["f32", "f64"] as const satisfies readonly Storage[];

export function is16(storage: string): storage is Storage16 {
  return storage === "f16" || storage === "bf16";
}

/** The numbers, rounded to the storage type. */
export function tensorOf(values: Numbers, shape: readonly number[], storage: Storage): Tensor {
  if (storage === "f64") return tensor(Float64Array.from(values), shape);
  if (storage === "f32") return tensor(Float32Array.from(storedAll(values, "f32")), shape);
  return tensor(encode16(values, storage), shape, storage);
}

/** The elements as numbers. */
export function valuesOf({ data, dtype }: Tensor): Float64Array {
  return is16(dtype) ? decode16(data, dtype) : Float64Array.from(data);
}

/** Log-probabilities, log k and the like, of inputs in `storage`. SPEC 9; of f64 inputs nearly all of double's digits are asked for. */
export function expectValuesOf(actual: Tensor, truth: Numbers, storage: Storage, label: string): void {
  expectValues(actual.data, truth, { ...(storage === "f64" ? { abs: 1e-12, rel: 1e-12 } : {}), label });
}

const FLOAT64_EPSILON = 2 ** -52;

/** A gradient by the bound of the type that it is stored in. `strict`: where no sum cancels, so that 16 bits get no more than their ulp. */
export function expectGradientOf(actual: Tensor, truth: Numbers, termSums: Numbers, label: string, { strict = false } = {}): void {
  const { data, dtype } = actual;
  if (is16(dtype)) expectStored16(data, truth, dtype, strict ? { label } : { label, termSums });
  else if (dtype === "f64") expectGradient(data, truth, { termSums, label, epsilon: FLOAT64_EPSILON, nmse: 1e-24 });
  else expectGradient(data, truth, { termSums, label });
}

/** Every tensor and number within a result, by its path; of a string the path tells what it is. */
function leavesOf(value: unknown, path: string): [string, Numbers][] {
  if (value instanceof Tensor) return [[`${path}:${value.dtype}[${value.shape.join()}]`, value.data]];
  if (typeof value === "number") return [[path, [value]]];
  if (typeof value === "string") return [[`${path}: ${value}`, [0]]];
  if (typeof value !== "object" || value === null) throw new TypeError(`${path}: ${String(value)} is no part of a result`);
  return Object.entries(value).flatMap(([key, member]) => leavesOf(member, `${path}.${key}`));
}

/** The same tensors and numbers to the last bit, under the same names. */
export function expectSameResults(actual: object, other: object, label = "result"): void {
  const [mine, others] = [leavesOf(actual, label), leavesOf(other, label)];
  expect(mine.map(([path]) => path)).toEqual(others.map(([path]) => path));
  expect(mine.length).toBeGreaterThan(0);
  others.forEach(([path, values], i) => {
    expectBitwiseEqual(mine[i]?.[1] ?? [], values, { label: path });
  });
}

/** The two faces of an operation. */
export interface Faces<Args, Options, Result> {
  readonly sync: (args: Args, options?: Options) => Result;
  readonly async: (args: Args, options?: Options) => Promise<Result>;
}

/** The result of an operation, once both its faces have been seen to agree to the last bit; a slow backend shows that in the laws alone. */
export async function resultOf<Args, Options, Result extends object>(faces: Faces<Args, Options, Result>, args: Args): Promise<Result> {
  const result = faces.sync(args);
  if (isSimulating()) return result;
  expectSameResults(await faces.async(args), result, "async");
  return result;
}

/** Runs both faces and checks that each fails with this code and a message that says this. */
export async function expectRefusal<Args, Options>(
  { sync, async }: Faces<Args, Options, unknown>,
  args: Args,
  error: { readonly code: string; readonly message?: RegExp; readonly index?: number },
): Promise<void> {
  const expected: Record<string, unknown> = { code: error.code };
  if (error.message !== undefined) expected.message = expect.stringMatching(error.message);
  if (error.index !== undefined) expected.index = error.index;
  expect(() => sync(args)).toThrow(expect.objectContaining(expected));
  await expect(async(args)).rejects.toThrow(expect.objectContaining(expected));
}

/** Every case in every storage type, for it.each. */
export function combinations<Case, S extends Storage>(cases: readonly Case[], storages: readonly S[]): (Case & { readonly storage: S })[] {
  return cases.flatMap((one) => storages.map((storage) => ({ ...one, storage })));
}

/** A copy of these rows, in this order. */
export function rowsAt(values: Tensor, rows: Iterable<number>): Tensor {
  const order = [...rows];
  const width = values.size / (values.shape[0] ?? 1);
  const result = zeros([order.length, ...values.shape.slice(1)], values.dtype);
  for (const [to, from] of order.entries()) result.data.set(values.data.subarray(from * width, (from + 1) * width), to * width);
  return result;
}

/** Shuffles 0 … count − 1 (Fisher–Yates). */
export function permutation(count: number, integer: (low: number, high: number) => number): Int32Array {
  const order = Int32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = integer(0, i + 1);
    [order[i], order[j]] = [order[j] ?? 0, order[i] ?? 0];
  }
  return order;
}
