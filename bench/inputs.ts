import { type Tensor, tensor, zeros } from "dpo-kernels";

/** The shape that SPEC's bounds are stated for. */
export interface HeadShape {
  rows: number;
  depth: number;
  vocabulary: number;
}

/** Roughly normal numbers of a fixed seed. */
export function randomArray(count: number, scale: number, seed = 1): Float32Array {
  const values = new Float32Array(count);
  let state = seed;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state / 2 ** 31;
  };
  for (let i = 0; i < count; i++) values[i] = scale * (uniform() + uniform() + uniform());
  return values;
}

export function randomTensor(shape: readonly number[], scale = 1, seed = 1): Tensor<"f32"> {
  return tensor(
    randomArray(
      shape.reduce((a, b) => a * b, 1),
      scale,
      seed,
    ),
    shape,
  );
}

/** `tensor` with noise, made without memory for anything else, so that a measured peak is not hidden under it. */
export function noisy({ data, shape }: Tensor<"f32">, scale: number, seed = 2): Tensor<"f32"> {
  const result = randomTensor(shape, scale, seed);
  for (let i = 0; i < data.length; i++) result.data[i] = (result.data[i] as number) + (data[i] as number);
  return result;
}

/** The upper halves of the numbers. */
export function bf16Of(values: Tensor<"f32">): Tensor<"bf16"> {
  const result = zeros(values.shape, "bf16");
  const bits = new Uint32Array(values.data.buffer, values.data.byteOffset, values.size);
  result.data.set(bits.map((b) => b >>> 16));
  return result;
}

export function randomTargets(rows: number, vocabulary: number): Int32Array {
  return Int32Array.from({ length: rows }, (_, row) => (row * 7919 + 13) % vocabulary);
}
