import { BackendError, OutOfRangeError } from "./errors.js";
import { addon } from "./native/addon.js";

/** More than any machine has; the addon takes no more either. */
const MAX_THREADS = 1024;

/** A backend found beside the addon. */
export interface Backend {
  /** "cpu", "cuda", or the file's name when it cannot be opened. */
  name: string;
  /** The instruction set that a CPU backend was built for. */
  variant: string;
  /** How well it runs here; 0: not at all. */
  score: number;
  /** Why it has this score. */
  reason: string;
  /** Whether this thread's calls go to it. */
  selected: boolean;
  /** The operations that it has; others end with a BackendError. */
  operations: string[];
}

/** Every backend found, best first, each with its score and the reason for it. */
export function backends(): Backend[] {
  return addon.backends();
}

/**
 * Sends this thread's further calls to a backend: "auto" (the best that runs), "cpu", "cuda", or one variant as in "cpu:x86-64-v3".
 * The environment variable DPO_KERNELS_BACKEND does the same from the start.
 * @throws BackendError saying what was found and what is needed; the backend in use stays.
 */
export function useBackend(name: string): void {
  const why = addon.useBackend(String(name));
  if (why !== undefined) throw new BackendError(why);
}

/** How many threads of the process work on one call. DPO_KERNELS_THREADS sets it from the start; default: the usable processors. */
export function threads(): number {
  return addon.threads();
}

/** Changes threads(). Results do not depend on it. */
export function useThreads(count: number): void {
  if (!Number.isInteger(count) || count < 1) throw new OutOfRangeError(`expected a whole number of at least 1 threads, got ${count}`);
  addon.useThreads(Math.min(count, MAX_THREADS));
}
