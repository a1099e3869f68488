import { BackendError, DTypeError, MemoryError } from "./errors.js";
import { addon, type ExternalMemory } from "./native/addon.js";
import { DTYPE_CODES, Frame } from "./native/frame.js";
import { type AsyncOptions, operation, type Steps } from "./native/operation.js";
import { bytesPerElement, type DataOf, type DType, Tensor } from "./tensor.js";

/** Part of some memory of a device. */
export interface DeviceMemory {
  /** What all tensors over the same memory share. */
  readonly shared: { readonly external: ExternalMemory; readonly backend: string; users: number };
  /** In bytes. */
  readonly offset: number;
}

/**
 * Memory of the backend's device; undefined where it works in the host's.
 * @throws BackendError when the backend cannot run here, MemoryError when there is no memory.
 */
export function allocateMemory(backend: string, bytes: number): DeviceMemory | undefined {
  const allocated = addon.allocate(backend, bytes);
  if (typeof allocated === "string") throw allocated.startsWith("no memory") ? new MemoryError(allocated) : new BackendError(allocated);
  return allocated && { shared: { external: allocated.memory, backend: allocated.backend, users: 0 }, offset: 0 };
}

/** One tensor fewer uses it. */
export function releaseMemory({ shared }: DeviceMemory): void {
  if (--shared.users === 0) addon.free(shared.external);
}

/** A copy, in `to` where that is given. */
function* copySteps<D extends DType>({ from, device, to }: { from: Tensor<D>; device: string; to?: Tensor<D> }): Steps<Tensor<D>> {
  const frame = new Frame("copy").input("from", from);
  const copied = frame.result("to", from.dtype, from.shape, to, { device });
  yield frame;
  return copied;
}

function copyFaces<D extends DType>() {
  return operation((args: { from: Tensor<D>; device: string }, _: object) => copySteps(args));
}

const copyAsync = <D extends DType>(from: Tensor<D>, device: string, options: AsyncOptions) => copyFaces<D>().async({ from, device }, options);
const copySync = <D extends DType>(from: Tensor<D>, device: string) => copyFaces<D>().sync({ from, device });

/** The result, in the memory of `out` where one was given and has passed checkOut. */
export function* copyToOut(out: Tensor | undefined, result: Tensor): Steps<Tensor> {
  return out === undefined ? result : yield* copySteps({ from: result, device: out.device, to: out });
}

export async function elementsOf<D extends DType>(tensor: Tensor<D>, options: AsyncOptions): Promise<DataOf<D>> {
  return (tensor.device === "cpu" ? tensor : await copyAsync(tensor, "cpu", options)).data;
}

export function elementsOfSync<D extends DType>(tensor: Tensor<D>): DataOf<D> {
  return (tensor.device === "cpu" ? tensor : copySync(tensor, "cpu")).data;
}

export async function moveTo<D extends DType>(tensor: Tensor<D>, device: string, options: AsyncOptions): Promise<Tensor<D>> {
  if (tensor.device === device) return tensor;
  // Devices of two backends do not know each other's memory.
  const from = device === "cpu" || tensor.device === "cpu" ? tensor : await copyAsync(tensor, "cpu", options);
  return copyAsync(from, device, options);
}

export function moveToSync<D extends DType>(tensor: Tensor<D>, device: string): Tensor<D> {
  if (tensor.device === device) return tensor;
  const from = device === "cpu" || tensor.device === "cpu" ? tensor : copySync(tensor, "cpu");
  return copySync(from, device);
}

/**
 * An External of Node-API whose pointer is a DLPack `DLManagedTensor*` (version 0.8) that shares the memory of a tensor on a CUDA device,
 * for other addons. The External owns the struct: whoever uses it keeps the External, and does not call the deleter.
 * @throws BackendError for a tensor in the host's memory.
 */
export function toDLPack(tensor: Tensor): object {
  const { memory } = tensor;
  const external = ArrayBuffer.isView(memory)
    ? undefined
    : addon.exportDlpack(memory.shared.external, memory.offset, DTYPE_CODES[tensor.dtype], ...tensor.shape);
  if (external === undefined) throw new BackendError("the tensor is in the host's memory; only one on a device is exported");
  return external;
}

/**
 * A tensor over the memory of another addon on a CUDA device, without copying, from an External whose pointer is a DLPack
 * `DLManagedTensor*` (version 0.8) of dense rows. The External is kept as long as the tensor is; its deleter is left to it. Work of others
 * on that memory must have ended before a call uses it: calls run on streams of their own.
 * @throws DTypeError for anything else than an External, and for what cannot be taken, saying why; BackendError when the backend cannot run here.
 */
export function fromDLPack(external: object, backend = "cuda"): Tensor {
  const imported = addon.importDlpack(external, backend);
  if (typeof imported === "string") {
    if (imported.startsWith("it")) throw new DTypeError(`the DLPack tensor cannot be used: ${imported}`);
    throw new BackendError(imported);
  }
  const { memory, offset, dtype, shape } = imported;
  const name = (Object.keys(DTYPE_CODES) as DType[]).find((key) => DTYPE_CODES[key] === dtype);
  if (name === undefined || offset % bytesPerElement(name) !== 0)
    throw new DTypeError("the DLPack tensor cannot be used: its offset is not a whole number of elements");
  return new Tensor({ shared: { external: memory, backend: imported.backend, users: 0 }, offset }, shape, name);
}
