import { errorOf } from "../errors.js";
import { withholdBuffer } from "../result-memory.js";
import { memoryOf, Tensor } from "../tensor.js";
import { addon, type NativeMemory } from "./addon.js";

/** The memory of every live tensor and typed array within plain objects and arrays. */
function memoryWithin(value: unknown, found: NativeMemory[] = []): NativeMemory[] {
  if (value instanceof Tensor) {
    if (value.usable) found.push(memoryOf("tensor", value).at);
  } else if (ArrayBuffer.isView(value)) {
    found.push(value);
  } else if (typeof value === "object" && value !== null) {
    for (const part of Object.values(value)) memoryWithin(part, found);
  }
  return found;
}

/** Keeps the memory of tensors and typed arrays in `value` out of new results, for a call that may outlive what is disposed of meanwhile. */
export function withholdMemory(value: unknown): void {
  for (const memory of memoryWithin(value)) {
    if (ArrayBuffer.isView(memory) && memory.buffer instanceof ArrayBuffer) withholdBuffer(memory.buffer);
  }
}

/**
 * Claims the memory of a computation of several native calls for its whole length, as each single call does for its own: nobody else may write
 * what is in `inputs`, nor use what is in `results`, and the two may not overlap. Returns what releases it.
 * @throws MemoryError when the memory is in use.
 */
export function claimMemory(inputs: unknown, results: unknown): () => void {
  const read = memoryWithin(inputs);
  const claim = addon.claim(read.length, ...read, ...memoryWithin(results));
  if (typeof claim !== "number") throw errorOf(claim);
  return () => addon.release(claim);
}
