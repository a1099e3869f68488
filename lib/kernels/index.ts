import { DataError, OutOfRangeError } from "../errors.js";
import { Tensor } from "../tensor.js";

/** A kernel of pairs of embeddings with its parameters. */
export interface Kernel {
  readonly name: KernelName;
  /** L2-normalise the embeddings first. */
  readonly normalize: boolean;
  /** Named f64 tensors; writing to their data changes the kernel. */
  readonly parameters: Readonly<Record<string, Tensor<"f64">>>;
}

/** In the order of LogKernel in native/math/log_kernels.h. */
export const KERNEL_NAMES = ["rbf"] as const;
export type KernelName = (typeof KERNEL_NAMES)[number];

export interface RbfOptions {
  /** Bandwidth σ. Give it or gamma; default σ = 1. */
  sigma?: number;
  /** γ = 1/(2σ²), as in scikit-learn. */
  gamma?: number;
  /** Default true. */
  normalize?: boolean;
}

/** Gaussian kernel: log k(u, v) = −‖u − v‖²/(2σ²). Trainable parameter: sigma. */
function rbf({ sigma, gamma, normalize = true }: RbfOptions = {}): Kernel {
  if (sigma !== undefined && gamma !== undefined) throw new OutOfRangeError("rbf: give sigma or gamma, not both");
  const width = sigma ?? (gamma === undefined ? 1 : Math.sqrt(1 / (2 * gamma)));
  if (!Number.isFinite(width) || width <= 0) throw new OutOfRangeError("rbf: sigma and gamma must be finite numbers greater than 0");
  return { name: "rbf", normalize, parameters: { sigma: new Tensor(Float64Array.of(width), [1], "f64") } };
}

/** A kernel as plain JSON. */
export interface KernelState {
  name: KernelName;
  normalize: boolean;
  parameters: Record<string, { readonly shape: readonly number[]; readonly data: readonly number[] }>;
}

export function kernelState({ name, normalize, parameters }: Kernel): KernelState {
  const entries = Object.entries(parameters).map(([key, { shape, data }]) => [key, { shape: [...shape], data: [...data] }] as const);
  return { name, normalize, parameters: Object.fromEntries(entries) };
}

/** @throws DataError when this is not what kernelState returned. */
export function kernelFromState({ name, normalize, parameters }: KernelState): Kernel {
  if (!KERNEL_NAMES.includes(name)) throw new DataError(`unknown kernel ${JSON.stringify(name)}`);
  const entries = Object.entries(parameters).map(([key, { shape, data }]) => [key, new Tensor(Float64Array.from(data), shape, "f64")] as const);
  return { name, normalize, parameters: Object.fromEntries(entries) };
}

/** Makers of kernels. */
export const kernels = { rbf };
