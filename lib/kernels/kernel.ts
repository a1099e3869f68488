import { DTypeError, OutOfRangeError, ShapeError } from "../errors.js";
import { describe } from "../native/frame.js";
import { checkOut, type Tensor } from "../tensor.js";
import type { KernelFit } from "./kernel-fit.js";

/** In the order of LogKernel in native/math/log_kernels.h. */
export const FORMULA_NAMES = [
  "rbf",
  "laplacian",
  "matern",
  "rational_quadratic",
  "rbf_mixture",
  "wavelet",
  "polynomial",
  "mahalanobis",
  "spectral",
  "random_fourier",
] as const;
export type FormulaName = (typeof FORMULA_NAMES)[number];
export type KernelName = FormulaName | "mixture";

/** Named f64 tensors; writing to their data changes the kernel. */
export type KernelParameters = Readonly<Record<string, Tensor<"f64">>>;

/** The parameters of each formula, in the order of native/math/log_kernels.h. */
const PARAMETER_NAMES: Record<FormulaName, readonly string[]> = {
  rbf: ["sigma"],
  laplacian: ["sigma"],
  matern: ["sigma"],
  rational_quadratic: ["sigma", "alpha"],
  rbf_mixture: ["lambdas", "rates"],
  wavelet: ["sigma"],
  polynomial: ["degree", "coef0"],
  mahalanobis: ["factor"],
  spectral: ["lambdas"],
  random_fourier: [],
};
const LISTS = ["lambdas", "rates", "factor"];

export interface FormulaParts {
  readonly name: FormulaName;
  readonly normalize: boolean;
  readonly parameters: KernelParameters;
  readonly unitDiagonal?: boolean | undefined;
  readonly floor?: number | undefined;
  readonly nu?: number | undefined;
  readonly projection?: Tensor<"f64"> | undefined;
  readonly landmarks?: Tensor<"f64"> | undefined;
  readonly base?: FormulaKernel | undefined;
  readonly fit?: KernelFit | undefined;
}

/** A kernel of one formula, as the makers of `kernels` return it. */
export class FormulaKernel {
  readonly name: FormulaName;
  /** L2-normalise the embeddings first, gradient included. */
  readonly normalize: boolean;
  /** The trainable parameters. */
  readonly parameters: KernelParameters;
  /** log k(u, v) − ½ log k(u, u) − ½ log k(v, v) instead. Undefined: in mixtures only. */
  readonly unitDiagonal: boolean | undefined;
  /** τ: where the argument of a logarithm is less than this share of its value at u = v, the logarithm goes on as its tangent. */
  readonly floor: number;
  /** Smoothness of matern. */
  readonly nu: number;
  /** spectral: φ(u) = projection·base(u, landmarks); random_fourier: the frequencies. */
  readonly projection: Tensor<"f64"> | undefined;
  readonly landmarks: Tensor<"f64"> | undefined;
  readonly base: FormulaKernel | undefined;
  /** What is still to be taken from data, by fitKernel or an objective's first batch. */
  readonly fit: KernelFit | undefined;

  constructor(parts: FormulaParts) {
    this.name = parts.name;
    this.normalize = checkBoolean("normalize", parts.normalize);
    this.parameters = Object.freeze(orderedParameters(parts));
    this.unitDiagonal = parts.unitDiagonal === undefined ? undefined : checkBoolean("unitDiagonal", parts.unitDiagonal);
    this.floor = checkFloor(parts.floor ?? DEFAULT_FLOOR);
    this.nu = parts.nu ?? 0;
    this.projection = parts.projection;
    this.landmarks = parts.landmarks;
    this.base = parts.base;
    this.fit = parts.fit && Object.freeze({ ...parts.fit });
    Object.freeze(this);
  }

  get fitted(): boolean {
    return this.fit === undefined && (this.base?.fitted ?? true);
  }

  /** D of the embeddings that it is for; undefined where any will do. */
  get width(): number | undefined {
    return this.landmarks?.shape[1] ?? this.projection?.shape[1] ?? this.parameters.factor?.shape[0];
  }
}

/** The parameters in the order of their formula, which has all of them unless they are still to be taken from data. */
function orderedParameters({ name, parameters, fit }: FormulaParts): KernelParameters {
  const names = PARAMETER_NAMES[name];
  const missing = names.find((parameter) => parameters[parameter] === undefined);
  if (missing !== undefined && !(fit && Object.keys(parameters).length === 0))
    throw new OutOfRangeError(`${name}: the parameter ${missing} is missing`);
  for (const [parameter, { shape }] of Object.entries(parameters)) {
    if (!names.includes(parameter)) throw new OutOfRangeError(`${name} has no parameter ${parameter}`);
    if (!LISTS.includes(parameter) && (shape.length !== 1 || shape[0] !== 1)) throw new ShapeError(`${name}: ${parameter}: expected shape [1]`);
  }
  return Object.fromEntries(names.flatMap((parameter) => (parameters[parameter] ? [[parameter, parameters[parameter]]] : [])));
}

/** A group of kernels: k = Σ w_m·k_m with w = softmax(logits), members by name. Groups may hold groups. */
export class MixtureKernel {
  readonly name = "mixture" as const;
  readonly normalize: boolean;
  readonly members: Readonly<Record<string, Kernel>>;
  /** [members]: unnormalised logarithms of the weights. */
  readonly logits: Tensor<"f64">;
  /** The trainable parameters of the whole tree: "logits", and those of members under "member/…". */
  readonly parameters: KernelParameters;

  constructor(members: Readonly<Record<string, Kernel>>, logits: Tensor<"f64">) {
    const entries = Object.entries(members);
    const [first] = entries;
    if (first === undefined) throw new OutOfRangeError("mixture: expected at least one kernel");
    for (const [name, kernel] of entries) {
      if (name === "" || name.includes("/") || name === "logits") throw new OutOfRangeError(`mixture: ${describe(name)} cannot be a member's name`);
      checkKernel(kernel);
      if (kernel.normalize !== first[1].normalize) throw new OutOfRangeError("mixture: its kernels must agree about normalize");
    }
    checkOut("mixture: logits", logits, "f64", [entries.length]);
    this.normalize = first[1].normalize;
    this.members = Object.freeze({ ...members });
    this.logits = logits;
    this.parameters = Object.freeze({ logits, ...parametersOf(entries) });
    Object.freeze(this);
  }

  get fitted(): boolean {
    return Object.values(this.members).every((member) => member.fitted);
  }
}

/** A kernel of pairs of embeddings. */
export type Kernel = FormulaKernel | MixtureKernel;

const DEFAULT_FLOOR = 1e-3;

function parametersOf(entries: readonly (readonly [string, Kernel])[]): KernelParameters {
  const nested = entries.flatMap(([member, { parameters }]) => Object.entries(parameters).map(([name, value]) => [`${member}/${name}`, value]));
  return Object.fromEntries(nested);
}

/** Throws unless this is a kernel as the makers return it. */
export function checkKernel(kernel: Kernel): void {
  if (kernel instanceof FormulaKernel || kernel instanceof MixtureKernel) return;
  throw new DTypeError(`kernel: expected a kernel, as kernels.rbf() returns it, got ${describe(kernel)}`);
}

/** Throws unless the kernel can be evaluated. */
export function checkFitted(kernel: Kernel): void {
  checkKernel(kernel);
  if (!kernel.fitted) throw new OutOfRangeError("kernel: has parts that are taken from data; call fitKernel({ kernel, embeddings }) first");
}

function checkBoolean(name: string, value: boolean): boolean {
  if (typeof value === "boolean") return value;
  throw new OutOfRangeError(`${name}: expected true or false, got ${describe(value)}`);
}

function checkFloor(floor: number): number {
  if (floor > 0 && floor < 1) return floor;
  throw new OutOfRangeError(`floor: expected a number between 0 and 1, got ${describe(floor)}`);
}
