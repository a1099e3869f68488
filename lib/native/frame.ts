import { BackendError, OutOfRangeError } from "../errors.js";
import { asTensor, type DType, emptyOn, memoryOf, ofTensor, type Tensor, type VectorInput } from "../tensor.js";
import { addon, type NativeMemory } from "./addon.js";

/** As dpo_dtype in native/core/tensor.h. */
export const DTYPE_CODES: Record<DType, number> = { f32: 0, f64: 1, f16: 2, bf16: 3, i32: 4 };

/** As Role in native/addon/arguments.cc. */
const ABSENT = 0;
const INPUT = 1;
const FRESH_RESULT = 2;
const CALLERS_RESULT = 3;
/** Added for a tensor on a device. */
const ON_DEVICE = 4;

/**
 * The arguments of one native call, in the order in which native/addon reads them: numbers and descriptions of tensors in one array, so that
 * a call costs a microsecond rather than one crossing per number; the tensors' memory beside it.
 */
export class Frame {
  readonly operation: number;
  readonly memory: NativeMemory[] = [];
  /** The part of the host's memory that others than the call can reach. */
  readonly reachable: ArrayBufferView[] = [];
  /** Whether a result goes to a tensor that the caller supplied. */
  writesToCaller = false;
  // One call's frame is read before the next is written, so all share this. No call has half as many values.
  static readonly values = new Float64Array(1024);
  #length = 0;

  constructor(operation: string) {
    this.operation = addon.operations.indexOf(operation);
    if (this.operation < 0) throw new BackendError(`the addon does not know ${operation}: it was built from other sources`);
  }

  /** A number given by the caller; what may be in it is checked on the other side. */
  number(name: string, value: number): this {
    if (typeof value !== "number") throw new OutOfRangeError(`${name}: expected a number, got ${describe(value)}`);
    return this.#put(value);
  }

  /** A whole number given by the caller; anything else would be cut on the other side. */
  integer(name: string, value: number): this {
    if (!Number.isSafeInteger(value)) throw new OutOfRangeError(`${name}: expected a whole number, got ${describe(value)}`);
    return this.#put(value);
  }

  /** A number of ours: a count, the place of a name in a list, a flag. */
  code(value: number | boolean): this {
    return this.#put(Number(value));
  }

  input(name: string, value: Tensor | VectorInput): this {
    return this.#tensor(name, INPUT, asTensor(name, value));
  }

  optionalInput(name: string, value: Tensor | VectorInput | undefined): this {
    return value === undefined ? this.absent() : this.input(name, value);
  }

  absent(): this {
    return this.#put(ABSENT);
  }

  /** A tensor that the call writes: the caller's `out`, else a new one, which lies where `like` does: the host's memory by default. */
  result<D extends DType>(name: string, dtype: D, shape: readonly number[], out?: Tensor, like?: { device: string }): Tensor<D> {
    const result = out === undefined ? emptyOn(like?.device ?? "cpu", shape, dtype) : ofTensor(name, out);
    this.writesToCaller ||= out !== undefined;
    this.#tensor(name, out === undefined ? FRESH_RESULT : CALLERS_RESULT, result);
    return result as Tensor<D>;
  }

  #put(value: number): this {
    Frame.values[this.#length++] = value;
    return this;
  }

  #tensor(name: string, role: number, tensor: Tensor): this {
    const { at, offset } = memoryOf(name, tensor);
    this.memory.push(at);
    if (role !== FRESH_RESULT && ArrayBuffer.isView(at)) this.reachable.push(at);
    this.#put(offset === undefined ? role : role + ON_DEVICE)
      .#put(DTYPE_CODES[tensor.dtype])
      .#put(tensor.shape.length);
    for (const extent of tensor.shape) this.#put(extent);
    return offset === undefined ? this : this.#put(offset);
  }
}

/** A value that should have been something else, for a message. */
export function describe(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
