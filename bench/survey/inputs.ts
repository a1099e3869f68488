import { type Tensor, tensor, zeros } from "dpo-kernels";
import { bf16Of, randomArray } from "../inputs.js";
import type { Storage } from "./case.js";

/**
 * Numbers repeat after so many, a prime: making GiBs of different ones would take longer than the timing, and what the memory for them leaves behind would
 * hide a measured peak.
 */
const PERIOD = 65_537;

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

function repeated(shape: readonly number[], dtype: Storage, block: Float32Array): Tensor {
  const values = tensor(block, [block.length]);
  const source = dtype === "bf16" ? bf16Of(values).data : values.data;
  const result = zeros(shape, dtype);
  for (let begin = 0; begin < result.size; begin += source.length) {
    result.data.set(source.subarray(0, Math.min(source.length, result.size - begin)), begin);
  }
  return result;
}

/** Roughly normal numbers of a fixed seed. */
export function numbers(shape: readonly number[], dtype: Storage, scale = 1, seed = 1): Tensor {
  return repeated(shape, dtype, randomArray(Math.min(PERIOD, sizeOf(shape)), scale, seed));
}

/** The numbers of the same scale and seed with noise. */
export function nearby(shape: readonly number[], dtype: Storage, noise: number, scale = 1, seed = 1): Tensor {
  const count = Math.min(PERIOD, sizeOf(shape));
  const more = randomArray(count, noise, seed + 1);
  return repeated(
    shape,
    dtype,
    randomArray(count, scale, seed).map((value, i) => value + (more[i] as number)),
  );
}

/** Memory for a result that the process already holds. */
export function touched<D extends "f32" | "f64" | "bf16">(shape: readonly number[], dtype: D): Tensor<D> {
  const result = zeros(shape, dtype);
  result.data.fill(1);
  return result;
}

export function ones(count: number): Float32Array {
  return new Float32Array(count).fill(1);
}

/** Where `sequences` sequences of about equal length begin and end among so many rows. */
export function evenOffsets(rows: number, sequences: number): Int32Array {
  return Int32Array.from({ length: sequences + 1 }, (_, s) => Math.floor((s * rows) / sequences));
}
