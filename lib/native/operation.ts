import { AbortedError, errorOf } from "../errors.js";
import { addon } from "./addon.js";
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

/** Runs the steps on this thread. */
export function runSteps<Result>(steps: Steps<Result>): Result {
  let next = steps.next();
  while (!next.done) {
    const failure = addon.run(next.value.operation, Frame.values, ...next.value.memory);
    next = failure === undefined ? steps.next() : steps.throw(errorOf(failure));
  }
  return next.value;
}

/** Runs the steps off the event loop. */
export async function startSteps<Result>(steps: Steps<Result>, { signal }: AsyncOptions): Promise<Result> {
  const cancel = new Int32Array(1);
  const onAbort = () => Atomics.store(cancel, 0, 1);
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    throwIfAborted(signal);
    let next = steps.next();
    let written = false; // once a result of the caller's is, the rest must be too
    while (!next.done) {
      const { operation: index, memory, writesToCaller } = next.value;
      const failure = await addon.start(index, Frame.values, written ? new Int32Array(1) : cancel, ...memory);
      written ||= writesToCaller;
      const error = failure === undefined ? undefined : errorOf(failure, signal?.reason);
      next = error === undefined ? steps.next() : steps.throw(error);
    }
    return next.value;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new AbortedError("the call was aborted", { cause: signal.reason });
}

/** The two faces of a computation: off the event loop, and on this thread. */
export function operation<Args, Options extends object, Result>(
  steps: (args: Args, options: Options) => Steps<Result>,
): {
  async: (args: Args, options?: Options & AsyncOptions) => Promise<Result>;
  sync: (args: Args, options?: Options) => Result;
} {
  const none = {} as Options & AsyncOptions;
  return {
    async: async (args, options = none) => startSteps(steps(args, options), options),
    sync: (args, options = none as Options) => runSteps(steps(args, options)),
  };
}
