/** Truth that is worked out once, whatever the number of backends that are compared with it. */

import { createHash, type Hash } from "node:crypto";
import { Tensor } from "dpo-kernels";

/** Adds everything that a value is to the hash; false for what has no content to compare by, as a function. */
function digest(hash: Hash, value: unknown): boolean {
  if (value instanceof Tensor) {
    hash.update(`T${value.dtype}${value.shape.join()}:`).update(bytesOf(value.data));
    return true;
  }
  if (ArrayBuffer.isView(value)) {
    hash.update(`${value.constructor.name}${value.byteLength}:`).update(bytesOf(value));
    return true;
  }
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value);
    hash.update(`{${entries.length}`);
    return entries.every(([key, part]) => digest(hash.update(`${JSON.stringify(key)}:`), part));
  }
  hash.update(`${typeof value}${Object.is(value, -0) ? "-0" : String(value)};`);
  return typeof value !== "function" && typeof value !== "symbol";
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** The same function, which keeps each result for arguments of the same contents. Results must not be changed. */
export function remembered<Args extends readonly unknown[], Result>(compute: (...args: Args) => Result): (...args: Args) => Result {
  const known = new Map<string, Result>();
  return (...args) => {
    const hash = createHash("sha1");
    if (!digest(hash, args)) return compute(...args);
    const key = hash.digest("base64");
    const before = known.get(key);
    if (before !== undefined) return before;
    const result = compute(...args);
    known.set(key, result);
    return result;
  };
}
