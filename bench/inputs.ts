import { Tensor, tensor, zeros } from "dpo-kernels";

/** The shape that SPEC's bounds are stated for. */
export interface HeadShape {
  rows: number;
  depth: number;
  vocabulary: number;
}

/**
 * Where the inputs and results of a benchmark are while it is timed: in the host's memory, or on the device of the backend, so that the way there
 * is not timed.
 */
export class Placement {
  readonly #device: string;
  readonly #there = new Map<Tensor, Tensor>();

  /** @param device as Tensor.device */
  constructor(device: string) {
    this.#device = device;
  }

  /** The same with every tensor where it belongs. Typed arrays are what operations take from the host's memory, and stay there. */
  readonly placed = <T>(value: T): T => {
    if (value instanceof Tensor) return this.#moved(value) as T;
    if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return value;
    if (Array.isArray(value)) return value.map((part) => this.placed(part)) as T;
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, this.placed(part)])) as T;
  };

  #moved(tensor: Tensor): Tensor {
    const there = this.#there.get(tensor) ?? tensor.toSync(this.#device);
    this.#there.set(tensor, there);
    return there;
  }

  /** Lets go of the device's memory. */
  dispose(): void {
    for (const there of this.#there.values()) there.dispose();
    this.#there.clear();
  }
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
