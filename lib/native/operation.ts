import { markAsUntransferable } from "node:worker_threads";
import { AbortedError, errorOf, MemoryError } from "../errors.js";
import { withholdBuffer } from "../result-memory.js";
import { addon } from "./addon.js";
import { claimMemory, withholdMemory } from "./claim.js";
import { Frame } from "./frame.js";

/** A computation that hands out native calls one after the other and is told when each has succeeded (or is thrown its error). */
export type Steps<Result> = Generator<Frame, Result, void>;

/** Options of an asynchronous call. */
export interface AsyncOptions {
  /**
   * Aborts the call between chunks of its work, with AbortedError. Results given as `out` are never left half written: from the first write
   * to them on, the call runs to its end.
   */
  signal?: AbortSignal;
}

/** How the memory that others can reach is kept safe: by each native call for itself, or under one claim for all of them. */
type Claimed = boolean;

function runSteps<Result>(steps: Steps<Result>, claimed: Claimed): Result {
  let next = steps.next();
  while (!next.done) {
    const failure = addon.run(next.value.operation, Frame.values, claimed, ...next.value.memory);
    next = failure === undefined ? steps.next() : steps.throw(errorOf(failure));
  }
  return next.value;
}

async function startSteps<Result>(steps: Steps<Result>, claimed: Claimed, signal: AbortSignal | undefined): Promise<Result> {
  const cancel = new Int32Array(1);
  const onAbort = () => Atomics.store(cancel, 0, 1);
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    throwIfAborted(signal);
    let next = steps.next();
    let written = false; // once a result of the caller's is, the rest must be too
    while (!next.done) {
      const frame = next.value;
      frame.reachable.forEach(pin);
      const failure = await addon.start(frame.operation, Frame.values, claimed, written ? new Int32Array(1) : cancel, ...frame.memory);
      written ||= frame.writesToCaller && failure === undefined;
      next = failure === undefined ? steps.next() : steps.throw(errorOf(failure, signal?.reason));
    }
    return next.value;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new AbortedError("the call was aborted", { cause: signal.reason });
}

/** Keeps a buffer where it is while another thread works on it: transferred away or shrunk, its memory could be freed under the call. */
function pin({ buffer }: ArrayBufferView): void {
  if (!(buffer instanceof ArrayBuffer)) return;
  if ((buffer as ArrayBuffer & { resizable?: boolean }).resizable) {
    throw new MemoryError("a resizable ArrayBuffer cannot be used by an asynchronous call: it could shrink meanwhile");
  }
  markAsUntransferable(buffer);
  withholdBuffer(buffer);
}

interface Faces<Args, Options, Result> {
  async: (args: Args, options?: Options & AsyncOptions) => Promise<Result>;
  sync: (args: Args, options?: Options) => Result;
}

/** The two faces of a computation of one native call: off the event loop, and on this thread. */
export function operation<Args, Options extends object, Result>(
  steps: (args: Args, options: Options) => Steps<Result>,
): Faces<Args, Options, Result> {
  return {
    async: async (args, options = {} as Options) => startSteps(steps(args, options), false, (options as AsyncOptions).signal),
    sync: (args, options = {} as Options) => runSteps(steps(args, options), false),
  };
}

/** The same for a computation of several: the memory in `args` and `options.out` stays claimed from the first call to the last. */
export function compound<Args, Options extends { out?: unknown }, Result>(
  steps: (args: Args, options: Options) => Steps<Result>,
): Faces<Args, Options, Result> {
  return {
    async: async (args, options = {} as Options) => {
      const { signal } = options as AsyncOptions;
      throwIfAborted(signal);
      const release = claimMemory(args, options.out);
      withholdMemory([args, options.out]);
      try {
        return await startSteps(steps(args, options), true, signal);
      } finally {
        release();
      }
    },
    sync: (args, options = {} as Options) => {
      const release = claimMemory(args, options.out);
      try {
        return runSteps(steps(args, options), true);
      } finally {
        release();
      }
    },
  };
}
