/** Small tensors for tests: random, sentinel-filled, or standing in one another's memory. */

import { type DType, Tensor, type TensorData, tensor, zeros } from "dpo-kernels";
import { is16, tensorOf } from "./cases.js";
import type { Random } from "./random.js";
import { type Storage, toBits16 } from "./storage.js";

const BYTES: Readonly<Record<DType, number>> = { f32: 4, f64: 8, f16: 2, bf16: 2, i32: 4 };
const ARRAYS = { f32: Float32Array, f64: Float64Array, f16: Uint16Array, bf16: Uint16Array, i32: Int32Array } as const;

/** Uniform in [low, high). */
export function floats(random: Random, shape: readonly number[], dtype: Storage, low = -2, high = 2): Tensor {
  return tensorOf(random.uniforms(product(shape), low, high), shape, dtype);
}

export function integers(values: readonly number[], shape: readonly number[] = [values.length]): Tensor<"i32"> {
  return tensor(Int32Array.from(values), shape);
}

/** A tensor of recognisable numbers, so that a write to it shows. */
export function filled(shape: readonly number[], dtype: DType): Tensor {
  const made = zeros(shape, dtype);
  for (let i = 0; i < made.size; i++) made.data[i] = 1000 + (i % 97);
  return made;
}

export function writeElement(target: Tensor, index: number, value: number): void {
  const { dtype } = target;
  target.data[index] = is16(dtype) ? toBits16(value, dtype) : value;
}

/** A tensor of the same contents as `source`, as far as they go, in another shape or dtype. */
export function reshaped(source: Tensor, shape: readonly number[], dtype: DType = source.dtype): Tensor {
  const made = zeros(shape, dtype);
  const values = source.data;
  for (let i = 0; i < made.size; i++) made.data[i] = values[i % values.length] ?? 0;
  return made;
}

/** A view of `dtype` and `shape` into a buffer. */
export function viewOf(buffer: ArrayBuffer, byteOffset: number, shape: readonly number[], dtype: DType): Tensor {
  return new Tensor(new ARRAYS[dtype](buffer, byteOffset, product(shape)) as TensorData, shape, dtype) as Tensor;
}

export function byteLength({ size, dtype }: Tensor): number {
  return size * BYTES[dtype];
}

/** Two tensors like these, with first's contents, the second beginning where the first does, or in its last bytes. */
export function overlapping(first: Tensor, second: Tensor, where: "start" | "end"): [Tensor, Tensor] {
  const begin = where === "start" ? 0 : Math.floor((byteLength(first) - 1) / 8) * 8;
  const buffer = new ArrayBuffer(Math.max(byteLength(first), begin + byteLength(second)));
  const under = viewOf(buffer, 0, first.shape, first.dtype);
  under.data.set(first.data);
  return [under, viewOf(buffer, begin, second.shape, second.dtype)];
}

/** Transfers the tensor's buffer away, as postMessage does. */
export function detach(victim: Tensor): void {
  const { buffer } = victim.data;
  structuredClone(buffer, { transfer: [buffer as ArrayBuffer] });
}

/** Every byte of the buffer behind a tensor or typed array. */
export function bytesBehind(data: ArrayBufferView): Uint8Array {
  return new Uint8Array(data.buffer).slice();
}

function product(shape: readonly number[]): number {
  return shape.reduce((size, extent) => size * extent, 1);
}
