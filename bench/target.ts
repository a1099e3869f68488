import { type Backend, BackendError, backends, useBackend, zeros } from "dpo-kernels";

/** What keeps the benchmarks from running, for whoever started them. */
export class Refusal extends Error {}

/** The backend that runs the benchmarks, and where their tensors belong: "cpu", or the backend's device. */
export interface Target {
  backend: Backend;
  device: string;
}

export function selectTarget(name: string): Target {
  try {
    useBackend(name);
    const backend = backends().find(({ selected }) => selected) as Backend;
    const fullName = [backend.name, backend.variant].filter((part) => part !== "").join(":");
    const probe = zeros([1], "f32").toSync(fullName);
    probe.dispose();
    return { backend, device: probe.device };
  } catch (error) {
    if (error instanceof BackendError) throw new Refusal(error.message, { cause: error });
    throw error;
  }
}
