/** The host's memory of a result, and how many tensors that are not disposed of share it. */
export interface ResultMemory {
  readonly buffer: ArrayBuffer;
  users: number;
  /** Whether the caller has been given an array over it. */
  seen: boolean;
}

/** Smaller results are made anew faster than they are handed on. */
const LEAST_BYTES = 2 ** 20;
const MOST_BYTES_KEPT = 2 ** 30;

/** Memory of results that were disposed of, the oldest first. */
const kept: ArrayBuffer[] = [];
/** Buffers that an asynchronous call was given: it may still be working on them. */
const withheld = new WeakSet<ArrayBuffer>();

export function withholdBuffer(buffer: ArrayBuffer): void {
  withheld.add(buffer);
}

/** Memory of a result that was disposed of, with what was in it: the smallest that holds `bytes` and not twice as much. Undefined if there is none. */
export function takeKept(bytes: number): ArrayBuffer | undefined {
  if (bytes < LEAST_BYTES) return undefined;
  let best = -1;
  for (const [i, { byteLength }] of kept.entries()) {
    if (byteLength < bytes || byteLength >= 2 * bytes) continue;
    if (best < 0 || byteLength < (kept[best] as ArrayBuffer).byteLength) best = i;
  }
  return best < 0 ? undefined : kept.splice(best, 1)[0];
}

export function bytesKept(): number {
  return kept.reduce((sum, { byteLength }) => sum + byteLength, 0);
}

/** What tensors over a new result share; undefined where it is not worth while. */
export function resultMemory(elements: ArrayBufferView): ResultMemory | undefined {
  if (elements.byteLength < LEAST_BYTES) return undefined; // before the engine has to make a buffer of a small array
  const { buffer } = elements;
  return buffer instanceof ArrayBuffer ? { buffer, users: 0, seen: false } : undefined;
}

/**
 * One tensor fewer uses it. After the last the memory is kept for results to come: the system takes longer to clear fresh pages than most
 * operations take. Arrays over it that the caller has are detached, so that nobody sees what is written there next.
 */
export function releaseResult(memory: ResultMemory): void {
  if (--memory.users > 0 || withheld.has(memory.buffer) || memory.buffer.byteLength === 0) return;
  const buffer = memory.seen ? detached(memory.buffer) : memory.buffer;
  if (buffer === undefined) return;
  kept.push(buffer);
  while (bytesKept() > MOST_BYTES_KEPT) kept.shift();
}

/** The buffer's memory in another one, which looks to the engine like so much memory more; undefined where the caller has marked it as untransferable. */
function detached(buffer: ArrayBuffer): ArrayBuffer | undefined {
  try {
    const moved = structuredClone(buffer, { transfer: [buffer] });
    return buffer.byteLength === 0 ? moved : undefined;
  } catch {
    return undefined;
  }
}
