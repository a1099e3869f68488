import { type Backend, BackendError, backends, threads, useBackend } from "../index.js";
import { addonFile } from "../native/addon.js";
import { backendName } from "./backend-name.js";

/** What the addon found. */
export interface NativeReport {
  addon: string;
  backends: Backend[];
  /** The instruction set of the best backend for the CPU; missing where none runs. */
  cpuLevel?: string;
  threads: number;
  /** Missing where none can run, or not the one asked for; `problem` says why. */
  selected?: string;
  problem?: string;
}

/** Selects the backend of that name, or the one that calls go to without one, and looks around. */
export function nativeReport(wanted: string = process.env.DPO_KERNELS_BACKEND || "auto"): NativeReport {
  const problem = problemOf(wanted);
  const found = backends();
  const selected = problem === undefined ? found.find((backend) => backend.selected) : undefined;
  const cpu = found.find(({ name, score }) => name === "cpu" && score > 0);
  return {
    addon: addonFile(),
    backends: found,
    ...(cpu && { cpuLevel: cpu.variant }),
    threads: threads(),
    ...(selected && { selected: backendName(selected) }),
    ...(problem !== undefined && { problem }),
  };
}

function problemOf(wanted: string): string | undefined {
  try {
    useBackend(wanted);
    return undefined;
  } catch (error) {
    if (error instanceof BackendError) return error.message;
    throw error;
  }
}
