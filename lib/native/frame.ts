import { BackendError, ShapeError } from "../errors.js";
import { asTensor, type DType, type Tensor, type VectorInput, zeros } from "../tensor.js";
import { addon } from "./addon.js";

/** As dpo_dtype in native/core/tensor.h. */
const DTYPE_CODES: Record<DType, number> = { f32: 0, f64: 1, f16: 2, bf16: 3, i32: 4 };

/** As Role in native/addon/arguments.cc. */
const ABSENT = 0;
const INPUT = 1;
const FRESH_RESULT = 2;
const CALLERS_RESULT = 3;

/**
 * The arguments of one native call, in the order in which native/addon reads them: numbers and descriptions of tensors in one array, so that
 * a call costs a microsecond rather than one crossing per number; the tensors' memory beside it.
 */
export class Frame {
  readonly operation: number;
  readonly memory: ArrayBufferView[] = [];
  /** Whether a result goes to a tensor that the caller supplied. */
  writesToCaller = false;
  // One call's frame is read before the next is written, so all share this.
  static readonly values = new Float64Array(512);
  #length = 0;

  constructor(operation: string) {
    this.operation = addon.operations.indexOf(operation);
    if (this.operation < 0) throw new BackendError(`the addon does not know ${operation}: it was built from other sources`);
  }

  number(value: number): this {
    Frame.values[this.#length++] = value;
    return this;
  }

  /** A whole number; anything else would be cut on the other side. */
  integer(name: string, value: number): this {
    if (!Number.isSafeInteger(value)) throw new ShapeError(`${name}: expected a whole number, got ${value}`);
    return this.number(value);
  }

  flag(value: boolean): this {
    return this.number(value ? 1 : 0);
  }

  input(name: string, value: Tensor | VectorInput): this {
    return this.#tensor(INPUT, asTensor(name, value));
  }

  optionalInput(name: string, value: Tensor | VectorInput | undefined): this {
    return value === undefined ? this.absent() : this.input(name, value);
  }

  absent(): this {
    return this.number(ABSENT);
  }

  /** A tensor that the call writes: the caller's `out`, else a new one. */
  result<D extends DType>(dtype: D, shape: readonly number[], out?: Tensor): Tensor<D> {
    const result = out ?? zeros(shape, dtype);
    this.writesToCaller ||= out !== undefined;
    this.#tensor(out === undefined ? FRESH_RESULT : CALLERS_RESULT, result);
    return result as Tensor<D>;
  }

  #tensor(role: number, tensor: Tensor): this {
    this.memory.push(tensor.data);
    this.number(role).number(DTYPE_CODES[tensor.dtype]).number(tensor.shape.length);
    for (const extent of tensor.shape) this.number(extent);
    return this;
  }
}
