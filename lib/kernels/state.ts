import { DataError } from "../errors.js";
import { Tensor } from "../tensor.js";
import { FORMULA_NAMES, FormulaKernel, type FormulaName, type Kernel, MixtureKernel } from "./kernel.js";
import type { KernelFit } from "./kernel-fit.js";

interface TensorState {
  readonly shape: readonly number[];
  readonly data: readonly number[];
}

interface FormulaState {
  readonly name: FormulaName;
  readonly normalize: boolean;
  readonly parameters: Readonly<Record<string, TensorState>>;
  readonly unitDiagonal?: boolean;
  readonly floor: number;
  /** A number, or "Infinity", which JSON has no number for. */
  readonly nu?: number | "Infinity";
  readonly projection?: TensorState;
  readonly landmarks?: TensorState;
  readonly base?: FormulaState;
  readonly fit?: KernelFit;
}

interface MixtureState {
  readonly name: "mixture";
  readonly logits: TensorState;
  readonly members: Readonly<Record<string, KernelState>>;
}

/** A kernel as plain JSON. */
export type KernelState = FormulaState | MixtureState;

export function kernelState(kernel: Kernel): KernelState {
  if (kernel.name !== "mixture") return formulaState(kernel);
  return { name: "mixture", logits: tensorState(kernel.logits), members: mapValues(kernel.members, kernelState) };
}

function formulaState({ name, normalize, parameters, unitDiagonal, floor, nu, projection, landmarks, base, fit }: FormulaKernel): FormulaState {
  return {
    name,
    normalize,
    parameters: mapValues(parameters, tensorState),
    ...(unitDiagonal !== undefined && { unitDiagonal }),
    floor,
    ...(name === "matern" && { nu: nu === Infinity ? "Infinity" : nu }),
    ...(projection && { projection: tensorState(projection) }),
    ...(landmarks && { landmarks: tensorState(landmarks) }),
    ...(base && { base: formulaState(base) }),
    ...(fit && { fit }),
  };
}

/** @throws a DpoKernelsError or TypeError when this is not what kernelState returned. */
export function kernelFromState(state: KernelState): Kernel {
  if (state.name !== "mixture") return formulaFromState(state);
  return new MixtureKernel(mapValues(state.members, kernelFromState), tensorFromState(state.logits));
}

function formulaFromState({ parameters, nu, projection, landmarks, base, ...plain }: FormulaState): FormulaKernel {
  if (!FORMULA_NAMES.includes(plain.name)) throw new DataError(`kernel: unknown name ${String(plain.name)}`);
  return new FormulaKernel({
    ...plain,
    parameters: parametersFromState(parameters),
    nu: nu === "Infinity" ? Infinity : nu,
    projection: projection && tensorFromState(projection),
    landmarks: landmarks && tensorFromState(landmarks),
    base: base && formulaFromState(base),
  });
}

function parametersFromState(states: FormulaState["parameters"]): Record<string, Tensor<"f64">> {
  const parameters = mapValues(states, tensorFromState);
  for (const [name, { data }] of Object.entries(parameters)) {
    if (name === "factor") continue;
    const least = name === "coef0" ? 0 : Number.MIN_VALUE;
    if (!data.every((value) => value >= least)) throw new DataError(`kernel: ${name} is out of range`);
  }
  return parameters;
}

function tensorState({ shape, data }: Tensor<"f64">): TensorState {
  return { shape: [...shape], data: [...data] };
}

function tensorFromState({ shape, data }: TensorState): Tensor<"f64"> {
  if (!Array.isArray(data) || !data.every(Number.isFinite)) throw new DataError("kernel: expected lists of finite numbers");
  return new Tensor(Float64Array.from(data), shape, "f64");
}

function mapValues<From, To>(record: Readonly<Record<string, From>>, map: (value: From) => To): Record<string, To> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, map(value)]));
}
