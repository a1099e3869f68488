import { DataError, DTypeError, OutOfRangeError, ShapeError } from "../errors.js";
import { describe } from "../native/frame.js";
import { checkOut, Tensor } from "../tensor.js";

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
  checkPositive("rbf: sigma", sigma ?? 1);
  checkPositive("rbf: gamma, which is 1/(2·sigma²)", gamma ?? 1);
  if (typeof normalize !== "boolean") throw new OutOfRangeError("normalize: expected true or false");
  const width = sigma ?? (gamma === undefined ? 1 : Math.sqrt(1 / (2 * gamma)));
  return { name: "rbf", normalize, parameters: { sigma: new Tensor(Float64Array.of(width), [1], "f64") } };
}

function checkPositive(name: string, value: number): void {
  if (!Number.isFinite(value) || value <= 0) throw new OutOfRangeError(`${name}: expected a finite number greater than 0, got ${describe(value)}`);
}

/** Throws unless this is a kernel as the makers return it. */
export function checkKernel(kernel: Kernel): void {
  if (typeof kernel !== "object" || kernel === null) throw new DTypeError("kernel: expected a kernel, as kernels.rbf() returns it");
  if (!KERNEL_NAMES.includes(kernel.name)) throw new OutOfRangeError(`kernel: unknown name ${describe(kernel.name)}`);
  if (typeof kernel.normalize !== "boolean") throw new OutOfRangeError("kernel: normalize must be true or false");
  const { sigma, ...others } = kernel.parameters ?? {};
  if (!(sigma instanceof Tensor) || Object.keys(others).length > 0) throw new ShapeError("kernel: expected the parameter sigma, and no other");
  checkOut("kernel parameter sigma", sigma, "f64", [1]);
}

/** A kernel as plain JSON. */
export interface KernelState {
  name: KernelName;
  normalize: boolean;
  parameters: Record<string, ParameterState>;
}

interface ParameterState {
  readonly shape: readonly number[];
  readonly data: readonly number[];
}

export function kernelState({ name, normalize, parameters }: Kernel): KernelState {
  return { name, normalize, parameters: mapValues(parameters, (_, { shape, data }) => ({ shape: [...shape], data: [...data] })) };
}

/** @throws a DpoKernelsError or TypeError when this is not what kernelState returned. */
export function kernelFromState({ name, normalize, parameters }: KernelState): Kernel {
  const kernel = { name, normalize, parameters: mapValues(parameters, tensorFromState) };
  checkKernel(kernel);
  for (const value of kernel.parameters.sigma?.data ?? []) checkPositive("rbf: sigma", value);
  return kernel;
}

function tensorFromState(name: string, { shape, data }: ParameterState): Tensor<"f64"> {
  if (!Array.isArray(data) || !data.every(Number.isFinite)) throw new DataError(`${name}: expected a list of finite numbers`);
  return new Tensor(Float64Array.from(data), shape, "f64");
}

function mapValues<From, To>(record: Readonly<Record<string, From>>, map: (name: string, value: From) => To): Record<string, To> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, map(name, value)]));
}

/** Makers of kernels. */
export const kernels = { rbf };
