/** The backends that can run here: what an operation's test is repeated over. */

import { type Backend, BackendError, backends, divergenceSync, divergences, tensor, useBackend } from "dpo-kernels";
import { afterAll, beforeAll, describe } from "vitest";
import { backendName as nameOf } from "../../lib/cli/backend-name.js";

export { nameOf };

export function runnableBackends(): string[] {
  return backends()
    .filter(({ score }) => score > 0)
    .map(nameOf);
}

/** Whether a backend executes for a device on the host, which takes long. */
export function isSimulated(name: string): boolean {
  return name.startsWith("cuda-sim");
}

/** Whether a backend has these operations; without a list, whether it has all that there are. */
export function hasOperations(name: string, needed?: readonly string[]): boolean {
  const all = new Set(backends().flatMap(({ operations }) => operations));
  const had = new Set(backends().find((backend) => nameOf(backend) === name)?.operations);
  return [...(needed ?? all)].every((operation) => had.has(operation));
}

let simulating = false;
/** Whether the tests that run now are those of a simulated device, which takes long over large inputs. */
export const isSimulating = (): boolean => simulating;

/** Calls compute with the best CPU backend selected; afterwards the one selected before is again. */
export function onCpu<Result>(compute: () => Result): Result {
  const before = backends().find(({ selected }) => selected);
  useBackend("cpu");
  try {
    return compute();
  } finally {
    if (before !== undefined) useBackend(nameOf(before));
  }
}

/** Whether a backend takes exact transport on a cost; one that does not says so by a BackendError. */
export function takesExactTransport(name: string): boolean {
  const before = backends().find(({ selected }) => selected);
  const row = () => tensor(Float64Array.of(0, 1), [1, 2]);
  const kind = divergences.wasserstein({ cost: tensor(Float64Array.of(0, 1, 1, 0), [2, 2]), method: "exact" });
  useBackend(name);
  try {
    divergenceSync({ policy: row(), reference: row(), kind });
    return true;
  } catch (error) {
    if (error instanceof BackendError) return false;
    throw error;
  } finally {
    if (before !== undefined) useBackend(nameOf(before));
  }
}

/**
 * Declares the tests once for every backend that can run and has the operations they need (default: all), with that one selected; afterwards the one selected
 * before is again.
 */
export function describeBackends(declare: (backend: string) => void, needed?: readonly string[]): void {
  const names = runnableBackends().filter((name) => hasOperations(name, needed));
  if (names.length === 0) throw new Error(`no backend can run here: ${backends().map(({ name, reason }) => `${name}: ${reason}`)}`);
  describe.each(names)("%s", (name) => {
    let before: Backend | undefined;
    beforeAll(() => {
      before = backends().find(({ selected }) => selected);
      useBackend(name);
      simulating = isSimulated(name);
    });
    afterAll(() => {
      simulating = false;
      if (before !== undefined) useBackend(nameOf(before));
    });
    declare(name);
  });
}
