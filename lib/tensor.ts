import { allocateMemory, type DeviceMemory, elementsOf, elementsOfSync, moveTo, moveToSync, releaseMemory } from "./device.js";
import { BackendError, DisposedError, DTypeError, MemoryError, ShapeError } from "./errors.js";
import type { NativeMemory } from "./native/addon.js";
import type { AsyncOptions } from "./native/operation.js";
import { type ResultMemory, releaseResult, resultMemory, takeKept } from "./result-memory.js";

/** Element types. f16 and bf16 are storage only: arithmetic on them is in f32. */
export type DType = "f32" | "f64" | "f16" | "bf16" | "i32";

export type TensorData = Float32Array | Float64Array | Uint16Array | Int32Array;

const ARRAYS = { f32: Float32Array, f64: Float64Array, f16: Uint16Array, bf16: Uint16Array, i32: Int32Array } as const;

/** The typed array that holds each dtype. */
interface ArrayOf {
  f32: Float32Array;
  f64: Float64Array;
  f16: Uint16Array;
  bf16: Uint16Array;
  i32: Int32Array;
}

export type DataOf<D extends DType> = ArrayOf[D];

const MAX_RANK = 4;
/** Elements of the largest typed array that V8 makes of any element size. */
const MAX_SIZE = 2 ** 32;

/**
 * A dense row-major array of rank 1 to 4, in the host's memory or a device's. It does not copy: a tensor made from a typed array shares its
 * memory, byte offset and SharedArrayBuffer included.
 */
export class Tensor<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: readonly number[];
  readonly size: number;
  /** Where the elements are: "cpu", the host's memory, or the backend on whose device they are, such as "cuda". */
  readonly device: string;
  #elements: DataOf<D> | DeviceMemory | undefined;
  readonly #result: ResultMemory | undefined;

  /** @param result of elements in the host's memory that the library itself has allocated */
  constructor(elements: DataOf<D> | DeviceMemory, shape: readonly number[], dtype: D, result?: ResultMemory) {
    this.dtype = dtype;
    this.size = sizeOf(shape);
    this.shape = Object.freeze([...shape]);
    if (ArrayBuffer.isView(elements)) {
      this.device = "cpu";
      if (elements.length !== this.size) {
        throw new ShapeError(`shape [${shape.join(", ")}] holds ${this.size} elements, the data ${elements.length}`);
      }
    } else {
      this.device = elements.shared.backend;
      elements.shared.users++;
    }
    if (result !== undefined) result.users++;
    this.#result = result;
    this.#elements = elements;
  }

  /**
   * The elements; of bf16 and f16 their bits. Throws DisposedError after dispose() or when the buffer was transferred away, and BackendError
   * when they are on a device.
   */
  get data(): DataOf<D> {
    const elements = this.#live();
    if (this.#result !== undefined) this.#result.seen = true;
    if (ArrayBuffer.isView(elements)) return elements;
    throw new BackendError(`the tensor is on ${this.device}: await its read() or to("cpu")`);
  }

  /** The elements in the host's memory, wherever they are; those of a tensor in the host's memory are `data` itself. */
  async read(options: AsyncOptions = {}): Promise<DataOf<D>> {
    return elementsOf(this, options);
  }
  /** read() on this thread. */
  readSync(): DataOf<D> {
    return elementsOfSync(this);
  }

  /**
   * The tensor on a backend's device ("cuda"), or in the host's memory ("cpu", or a backend without a device of its own); itself where it is
   * there already. Calls with tensors on a device go to its backend, whatever useBackend says.
   * @throws BackendError when the backend cannot run here; MemoryError when its device's memory does not suffice.
   */
  async to(device: string, options: AsyncOptions = {}): Promise<Tensor<D>> {
    return moveTo(this, device, options);
  }
  /** to() on this thread. */
  toSync(device: string): Tensor<D> {
    return moveToSync(this, device);
  }

  get disposed(): boolean {
    return this.#elements === undefined;
  }

  /** Whether the elements can be had: neither disposed of nor detached. */
  get usable(): boolean {
    return this.#elements !== undefined && (!ArrayBuffer.isView(this.#elements) || this.#elements.length === this.size);
  }

  /** What native calls are given. */
  get memory(): DataOf<D> | DeviceMemory {
    return this.#live();
  }

  /** The same memory under another shape of the same size. */
  reshape(shape: readonly number[]): Tensor<D> {
    const size = sizeOf(shape);
    if (size !== this.size) throw new ShapeError(`shape [${shape.join(", ")}] holds ${size} elements, the data ${this.size}`);
    return new Tensor(this.#live(), shape, this.dtype, this.#result);
  }

  /** Rows `begin` to `end` (excluded) along the first axis, as a view of the same memory. */
  rows(begin: number, end: number): Tensor<D> {
    const [count = 0, ...rest] = this.shape;
    if (!Number.isInteger(begin) || !Number.isInteger(end) || begin < 0 || end <= begin || end > count) {
      throw new ShapeError(`rows ${begin} to ${end} are not within the ${count} rows of the tensor`);
    }
    const width = sizeOf(rest.length === 0 ? [1] : rest);
    const elements = this.#live();
    const part = ArrayBuffer.isView(elements)
      ? (elements.subarray(begin * width, end * width) as DataOf<D>)
      : { ...elements, offset: elements.offset + begin * width * bytesPerElement(this.dtype) };
    return new Tensor(part, [end - begin, ...rest], this.dtype, this.#result);
  }

  /**
   * Lets go of the memory; that of a device is free again when no tensor and no running call uses it. Likewise the memory of a large result
   * in the host's, which then goes to results to come: typed arrays over it become empty. Using the tensor afterwards throws DisposedError.
   */
  dispose(): void {
    if (this.#elements === undefined) return;
    if (!ArrayBuffer.isView(this.#elements)) releaseMemory(this.#elements);
    this.#elements = undefined;
    if (this.#result !== undefined) releaseResult(this.#result);
  }

  #live(): DataOf<D> | DeviceMemory {
    const elements = this.#elements;
    if (elements === undefined) throw new DisposedError("the tensor has been disposed of");
    if (ArrayBuffer.isView(elements) && elements.length !== this.size) throw new DisposedError("the tensor's memory has been detached");
    return elements;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function sizeOf(shape: readonly number[]): number {
  if (!Array.isArray(shape)) throw new ShapeError("shape: expected an array of extents");
  if (shape.length < 1 || shape.length > MAX_RANK) throw new ShapeError(`expected a shape of rank 1 to ${MAX_RANK}, got ${shape.length}`);
  let size = 1;
  for (const extent of shape) {
    if (!Number.isInteger(extent) || extent < 1)
      throw new ShapeError(`shape [${shape.join(", ")}]: every extent must be a whole number of at least 1`);
    size *= extent;
  }
  if (size > MAX_SIZE) throw new ShapeError(`shape [${shape.join(", ")}] has more elements than a typed array can hold`);
  return size;
}

export function bytesPerElement(dtype: DType): number {
  return arrayOf(dtype).BYTES_PER_ELEMENT;
}

function arrayOf<D extends DType>(dtype: D): (typeof ARRAYS)[D] {
  const ArrayClass = Object.hasOwn(ARRAYS, dtype) ? ARRAYS[dtype] : undefined;
  if (ArrayClass === undefined) throw new DTypeError(`unknown dtype ${JSON.stringify(dtype)}; known are ${Object.keys(ARRAYS).join(", ")}`);
  return ArrayClass;
}

function isArrayOf<D extends DType>(data: TensorData, dtype: D): data is DataOf<D> {
  return data instanceof arrayOf(dtype);
}

function dtypeOfArray(data: TensorData): DType {
  if (data instanceof Float32Array) return "f32";
  if (data instanceof Float64Array) return "f64";
  if (data instanceof Int32Array) return "i32";
  if (data instanceof Uint16Array) throw new DTypeError('a Uint16Array may hold f16 or bf16: say which, as in tensor(data, shape, "bf16")');
  throw new DTypeError("expected a Float32Array, Float64Array, Int32Array or Uint16Array");
}

/**
 * A tensor over `data`, without copying. The dtype follows from the typed array; for a Uint16Array it must be given ("f16" or "bf16").
 * @throws ShapeError when the shape does not hold data.length elements; DTypeError for other arrays.
 */
export function tensor(data: Float32Array, shape: readonly number[]): Tensor<"f32">;
export function tensor(data: Float64Array, shape: readonly number[]): Tensor<"f64">;
export function tensor(data: Int32Array, shape: readonly number[]): Tensor<"i32">;
export function tensor<D extends DType>(data: DataOf<D>, shape: readonly number[], dtype: D): Tensor<D>;
export function tensor(data: TensorData, shape: readonly number[], dtype: DType = dtypeOfArray(data)): Tensor {
  if (!isArrayOf(data, dtype)) throw new DTypeError(`dtype ${dtype} does not go with this kind of array`);
  return new Tensor(data, shape, dtype);
}

/** A tensor of zeros. */
export function zeros<D extends DType>(shape: readonly number[], dtype: D): Tensor<D> {
  return new Tensor(allocateArray(sizeOf(shape), dtype), shape, dtype);
}

function allocateArray<D extends DType>(size: number, dtype: D): DataOf<D> {
  const ArrayClass = arrayOf(dtype);
  try {
    return new ArrayClass(size) as DataOf<D>;
  } catch (cause) {
    if (cause instanceof RangeError) throw new MemoryError(`no memory for a tensor of ${size} elements`, { cause });
    throw cause;
  }
}

/** A tensor in the host's memory whose elements are yet to be written. */
function emptyOnHost<D extends DType>(shape: readonly number[], dtype: D): Tensor<D> {
  const size = sizeOf(shape);
  const kept = takeKept(size * bytesPerElement(dtype));
  const elements = kept === undefined ? allocateArray(size, dtype) : (new (arrayOf(dtype))(kept, 0, size) as DataOf<D>);
  return new Tensor(elements, shape, dtype, resultMemory(elements));
}

/** A tensor whose elements are yet to be written, on a device or in the host's memory ("cpu"). */
export function emptyOn<D extends DType>(device: string, shape: readonly number[], dtype: D): Tensor<D> {
  const memory = device === "cpu" ? undefined : allocateMemory(device, sizeOf(shape) * bytesPerElement(dtype));
  return memory === undefined ? emptyOnHost(shape, dtype) : new Tensor(memory, shape, dtype);
}

/** A result that nobody has seen yet in the shape that its caller expects. */
export function inShape<D extends DType>(result: Tensor<D>, shape: readonly number[]): Tensor<D> {
  const shaped = result.reshape(shape);
  result.dispose(); // else the memory would seem to have two users
  return shaped;
}

/** What operations take for a vector: a tensor, or a typed array standing for one of rank 1. */
export type VectorInput = Tensor | Float32Array | Float64Array | Int32Array;

/** The argument as a tensor; throws DTypeError naming the argument otherwise. */
export function asTensor(name: string, value: Tensor | VectorInput): Tensor {
  if (value instanceof Tensor) return value;
  if (value instanceof Float32Array || value instanceof Float64Array || value instanceof Int32Array) {
    if (value.length === 0) throw new ShapeError(`${name}: is empty`);
    return new Tensor(value, [value.length], dtypeOfArray(value));
  }
  throw new DTypeError(`${name}: expected a Tensor, got ${value === null ? "null" : typeof value}`);
}

/** A result given by the caller: a tensor, and no array that would have to be wrapped in one. */
export function ofTensor(name: string, value: Tensor): Tensor {
  if (value instanceof Tensor) return value;
  throw new DTypeError(`${name}: expected a Tensor`);
}

/** The dtype of results that are not stored like their input: f64 for f64, else f32. */
export function resultDType(dtype: DType): "f32" | "f64" {
  return dtype === "f64" ? "f64" : "f32";
}

/** What native calls are given of a tensor, and on a device the byte offset in it; throws DisposedError naming the argument when there is nothing any more. */
export function memoryOf(name: string, tensor: Tensor): { at: NativeMemory; offset?: number } {
  checkUsable(name, tensor);
  const { memory } = tensor;
  return ArrayBuffer.isView(memory) ? { at: memory } : { at: memory.shared.external, offset: memory.offset };
}

export function checkUsable(name: string, tensor: Tensor): void {
  if (!tensor.usable) throw new DisposedError(`${name}: the tensor has been disposed of, or its memory detached`);
}

/** The tensor's elements; throws DisposedError naming the argument when there are none any more, BackendError when they are on a device. */
export function dataOf<D extends DType>(name: string, tensor: Tensor<D>): ArrayOf[D] {
  checkUsable(name, tensor);
  if (tensor.device !== "cpu") throw new BackendError(`${name}: is on ${tensor.device}, and is needed in the host's memory; await its to("cpu")`);
  return tensor.data;
}

/** Throws ShapeError or DTypeError unless the tensor given for a result fits it. */
export function checkOut(name: string, out: Tensor | undefined, dtype: DType, shape: readonly number[]): void {
  if (out === undefined) return;
  checkUsable(name, ofTensor(name, out));
  if (out.dtype !== dtype) throw new DTypeError(`${name}: expected ${dtype}, got ${out.dtype}`);
  checkShape(name, out, shape);
}

/** Throws ShapeError unless the tensor has this shape. */
export function checkShape(name: string, { shape }: Tensor, wanted: readonly number[]): void {
  if (shape.join() !== wanted.join()) throw new ShapeError(`${name}: expected shape [${wanted.join(", ")}], got [${shape.join(", ")}]`);
}

/** The elements as numbers, those of f16 and bf16 too. */
export function float64Values(dtype: DType, data: TensorData): Float64Array {
  if (dtype === "f16") return Float64Array.from(data, float16Value);
  if (dtype !== "bf16") return Float64Array.from(data);
  return Float64Array.from(new Float32Array(Uint32Array.from(data, (bits) => bits << 16).buffer));
}

/** The number that 16 bits of IEEE 754 binary16 stand for. */
function float16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(bits >> 10) & 0x1f, bits & 0x3ff];
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : Number.NaN;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}
