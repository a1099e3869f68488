import { type Tensor, tensor } from "dpo-kernels";

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

export function randomTargets(rows: number, vocabulary: number): Int32Array {
  return Int32Array.from({ length: rows }, (_, row) => (row * 7919 + 13) % vocabulary);
}
