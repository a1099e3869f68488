import { OutOfRangeError, ShapeError } from "../errors.js";
import { choleskySync, solveTriangularSync } from "../linear-algebra.js";
import { describe } from "../native/frame.js";
import { checkPositive, matrixShape } from "../native/shared-arguments.js";
import { asTensor, Tensor, type VectorInput } from "../tensor.js";
import { checkKernel, FormulaKernel, type FormulaParts, type Kernel, MixtureKernel } from "./kernel.js";
import { LANDMARK_METHODS, type LandmarkMethod } from "./kernel-fit.js";

export { FormulaKernel, type FormulaName, type Kernel, type KernelName, type KernelParameters, MixtureKernel } from "./kernel.js";
export type { KernelFit, LandmarkMethod } from "./kernel-fit.js";

/** Options of every kernel. */
export interface KernelOptions {
  /** L2-normalise the embeddings first, gradient included. Default true. */
  normalize?: boolean;
}

/** Options of kernels whose value at u = v is not 1. */
export interface DiagonalOptions extends KernelOptions {
  /** log k(u, v) − ½ log k(u, u) − ½ log k(v, v) instead, so that no member of a mixture dominates by scale alone. Default: in mixtures. */
  unitDiagonal?: boolean;
}

/** Options of kernels with a logarithm whose argument can reach 0. */
export interface FloorOptions {
  /** Share of the argument's value at u = v below which ln goes on as its tangent, so that value and gradient stay finite. Default 1e-3. */
  floor?: number;
}

/** A bandwidth: σ, or "median", which an objective's first batch or fitKernel turns into the median distance of the embeddings. */
export type Bandwidth = number | "median";

export interface RbfOptions extends KernelOptions {
  /** Bandwidth σ. Give it or gamma; default σ = 1. */
  sigma?: Bandwidth;
  /** γ = 1/(2σ²), as in scikit-learn. */
  gamma?: number;
}

export interface LaplacianOptions extends KernelOptions {
  /** Scale σ. Give it or gamma; default σ = 1. */
  sigma?: number;
  /** γ = 1/σ, as in scikit-learn. */
  gamma?: number;
}

export interface MaternOptions extends KernelOptions {
  /** Length scale. Default 1. */
  sigma?: Bandwidth;
  /** Smoothness: 0.5, 1.5 (default), 2.5, or Infinity, which is rbf. */
  nu?: 0.5 | 1.5 | 2.5 | typeof Infinity;
}

export interface RationalQuadraticOptions extends KernelOptions {
  /** Length scale. Default 1. */
  sigma?: Bandwidth;
  /** Default 1. */
  alpha?: number;
}

export interface RbfMixtureOptions extends DiagonalOptions {
  /** Weights λ, all positive. Default: equal ones of sum 1. */
  lambdas?: VectorInput | readonly number[];
  /** Rates a, as many. Default ¼, ½, 1, 2, 4. */
  rates?: VectorInput | readonly number[];
}

export interface WaveletOptions extends KernelOptions, FloorOptions {
  /** Default 1. */
  sigma?: Bandwidth;
}

export interface PolynomialOptions extends DiagonalOptions, FloorOptions {
  /** Default 2. */
  degree?: number;
  /** Default 1. */
  coef0?: number;
}

export interface MahalanobisOptions extends KernelOptions {
  /** A of Σ⁻¹ = A·Aᵀ: [D, R] f64, or [D], the diagonal of one. Default: the diagonal is taken from the first batch. */
  factor?: Tensor<"f64">;
  /** Σ, [D, D] f64, instead: A = L⁻ᵀ of its Cholesky factor Σ = L·Lᵀ, with jitter as cholesky adds it where Σ is singular. */
  covariance?: Tensor<"f64">;
}

export interface SpectralOptions extends DiagonalOptions, FloorOptions {
  /** How many rows of the first batch become landmarks. Default 16, or as many as there are. */
  landmarks?: number;
  /** How many eigenfunctions are kept. Default: 8. */
  rank?: number;
  /** Kernel whose eigenfunctions are taken: of the squared distance, or polynomial. Default rbf with the median distance. */
  base?: Kernel;
  /** How landmarks are chosen. Default "kmeans++". */
  method?: LandmarkMethod;
  /** Default 0. */
  seed?: number;
}

export interface MixtureOptions {
  /** Starting weights of the members, in their order; they are scaled to a sum of 1. Default: equal. */
  weights?: readonly number[];
}

export interface HmkOptions extends KernelOptions {
  /** The local group. Default rbf (bandwidth: median) and polynomial. */
  local?: Readonly<Record<string, Kernel>>;
  /** The global group. Default spectral and mahalanobis (diagonal), both taken from the first batch. */
  global?: Readonly<Record<string, Kernel>>;
}

const MEDIAN = { sigma: "median" } as const;

function vector(values: readonly number[]): Tensor<"f64"> {
  return new Tensor(Float64Array.from(values), [values.length], "f64");
}

/** A kernel with the parameter sigma, given or still to be fitted, and others. */
function withBandwidth(parts: Omit<FormulaParts, "parameters">, sigma: Bandwidth, others: Record<string, Tensor<"f64">> = {}): FormulaKernel {
  if (sigma === "median") return new FormulaKernel({ ...parts, parameters: { sigma: vector([1]), ...others }, fit: MEDIAN });
  return new FormulaKernel({ ...parts, parameters: { sigma: vector([checkPositive(`${parts.name}: sigma`, sigma)]), ...others } });
}

function checkOneOf(name: string, sigma: unknown, gamma: unknown): void {
  if (sigma !== undefined && gamma !== undefined) throw new OutOfRangeError(`${name}: give sigma or gamma, not both`);
}

/** Gaussian: log k(u, v) = −‖u − v‖²/(2σ²). Trainable: sigma. */
function rbf({ sigma, gamma, normalize = true }: RbfOptions = {}): FormulaKernel {
  checkOneOf("rbf", sigma, gamma);
  const ofGamma = gamma === undefined ? 1 : Math.sqrt(0.5 / checkPositive("rbf: gamma, which is 1/(2·sigma²)", gamma));
  return withBandwidth({ name: "rbf", normalize }, sigma ?? ofGamma);
}

/** log k(u, v) = −‖u − v‖₁/σ, as scikit-learn's laplacian_kernel. At u = v its gradient counts as 0. Trainable: sigma. */
function laplacian({ sigma, gamma, normalize = true }: LaplacianOptions = {}): FormulaKernel {
  checkOneOf("laplacian", sigma, gamma);
  const ofGamma = gamma === undefined ? 1 : 1 / checkPositive("laplacian: gamma, which is 1/sigma", gamma);
  const width = checkPositive("laplacian: sigma", sigma ?? ofGamma);
  return new FormulaKernel({ name: "laplacian", normalize, parameters: { sigma: vector([width]) } });
}

/** Matérn of ν = ½, 3/2, 5/2 or ∞, s = √(2ν)·‖u − v‖/σ: −s; ln(1 + s) − s; ln(1 + s + s²/3) − s. Trainable: sigma. */
function matern({ sigma = 1, nu = 1.5, normalize = true }: MaternOptions = {}): FormulaKernel {
  if (![0.5, 1.5, 2.5, Infinity].includes(nu))
    throw new OutOfRangeError(`matern: nu ${describe(nu)} is not supported; 0.5, 1.5, 2.5 and Infinity are`);
  return withBandwidth({ name: "matern", normalize, nu }, sigma);
}

/** log k(u, v) = −α·ln(1 + ‖u − v‖²/(2ασ²)). Trainable: sigma, alpha. */
function rationalQuadratic({ sigma = 1, alpha = 1, normalize = true }: RationalQuadraticOptions = {}): FormulaKernel {
  return withBandwidth({ name: "rational_quadratic", normalize }, sigma, { alpha: vector([checkPositive("rational_quadratic: alpha", alpha)]) });
}

/** log k(u, v) = ln Σ_k λ_k·e^(−a_k·‖u − v‖²). Trainable: lambdas, rates. */
function rbfMixture({ lambdas, rates = [0.25, 0.5, 1, 2, 4], normalize = true, unitDiagonal }: RbfMixtureOptions = {}): FormulaKernel {
  const numbers = (name: string, values: VectorInput | readonly number[]): Tensor<"f64"> => {
    const list = Array.isArray(values) ? (values as readonly number[]) : [...asTensor(name, values as VectorInput).data];
    return vector(list.map((value) => checkPositive(`rbf_mixture: ${name}`, value)));
  };
  const a = numbers("rates", rates);
  if (a.size === 0) throw new ShapeError("rbf_mixture: expected at least one rate");
  const lambda = numbers("lambdas", lambdas ?? [...a.data].map(() => 1 / a.size));
  if (lambda.size !== a.size) throw new ShapeError(`rbf_mixture: expected as many lambdas as rates, got ${lambda.size} and ${a.size}`);
  return new FormulaKernel({ name: "rbf_mixture", normalize, unitDiagonal, parameters: { lambdas: lambda, rates: a } });
}

/** log k(u, v) = −t + ln cos t, t = ‖u − v‖²/(2σ²) (DETONATE, arXiv 2506.14903). Trainable: sigma. */
function wavelet({ sigma = 1, normalize = true, floor }: WaveletOptions = {}): FormulaKernel {
  return withBandwidth({ name: "wavelet", normalize, floor }, sigma);
}

/** log k(u, v) = d·ln(u·v + c). Trainable: degree, coef0. */
function polynomial({ degree = 2, coef0 = 1, normalize = true, unitDiagonal, floor }: PolynomialOptions = {}): FormulaKernel {
  checkPositive("polynomial: degree", degree);
  if (!Number.isFinite(coef0) || coef0 < 0)
    throw new OutOfRangeError(`polynomial: coef0: expected a finite number of at least 0, got ${describe(coef0)}`);
  return new FormulaKernel({
    name: "polynomial",
    normalize,
    unitDiagonal,
    floor,
    parameters: { degree: vector([degree]), coef0: vector([coef0]) },
  });
}

/** A = L⁻ᵀ, so that A·Aᵀ is the inverse of the covariance L·Lᵀ. */
function whitening(covariance: Tensor<"f64">): Tensor<"f64"> {
  const [rows, columns] = matrixShape("mahalanobis: covariance", covariance);
  if (covariance.dtype !== "f64" || rows !== columns) throw new ShapeError("mahalanobis: covariance: expected an f64 tensor [D, D]");
  const { factor } = choleskySync({ a: covariance });
  const identity = new Float64Array(rows * rows);
  for (let i = 0; i < rows; i++) identity[i * rows + i] = 1;
  return solveTriangularSync({ a: factor, b: new Tensor(identity, [rows, rows], "f64"), transpose: true }) as Tensor<"f64">;
}

/** log k(u, v) = −½(u − v)ᵀΣ⁻¹(u − v), Σ⁻¹ = A·Aᵀ. Trainable: factor, which is A. */
function mahalanobis({ factor: givenFactor, covariance, normalize = true }: MahalanobisOptions = {}): FormulaKernel {
  if (givenFactor !== undefined && covariance !== undefined) throw new OutOfRangeError("mahalanobis: give factor or covariance, not both");
  const factor = covariance === undefined ? givenFactor : whitening(covariance);
  if (factor === undefined) return new FormulaKernel({ name: "mahalanobis", normalize, parameters: {}, fit: { factor: "diagonal" } });
  const given = asTensor("mahalanobis: factor", factor);
  if (given.dtype !== "f64" || given.shape.length > 2) throw new ShapeError("mahalanobis: factor: expected an f64 tensor [D, R] or [D]");
  return new FormulaKernel({ name: "mahalanobis", normalize, parameters: { factor } });
}

function checkBase(base: Kernel): FormulaKernel {
  checkKernel(base);
  if (base.name !== "mixture" && !["laplacian", "mahalanobis", "spectral", "random_fourier"].includes(base.name)) return base;
  throw new OutOfRangeError(`spectral: the base ${base.name} is not supported; expected a kernel of the squared distance, or polynomial`);
}

/**
 * log k(u, v) = ln Σ_k λ_k·φ_k(u)·φ_k(v), the leading eigenfunctions of a base kernel by Nyström extension from landmarks, which are taken from the
 * first batch, or by fitKernel. Trainable: lambdas.
 */
function spectral({
  landmarks = 16,
  rank = 8,
  base = rbf({ sigma: "median" }),
  method = "kmeans++",
  seed = 0,
  normalize = true,
  unitDiagonal,
  floor,
}: SpectralOptions = {}): FormulaKernel {
  for (const [name, value] of Object.entries({ landmarks, rank })) {
    if (!Number.isSafeInteger(value) || value < 1)
      throw new OutOfRangeError(`spectral: ${name}: expected a whole number of at least 1, got ${describe(value)}`);
  }
  if (!LANDMARK_METHODS.includes(method)) throw new OutOfRangeError(`spectral: unknown method ${describe(method)}`);
  if (!Number.isSafeInteger(seed)) throw new OutOfRangeError(`spectral: seed: expected a whole number, got ${describe(seed)}`);
  if (checkBase(base).normalize !== normalize) throw new OutOfRangeError("spectral: the base must agree about normalize");
  return new FormulaKernel({
    name: "spectral",
    normalize,
    unitDiagonal,
    floor,
    base: checkBase(base),
    parameters: {},
    fit: { landmarks, rank, method, seed },
  });
}

/** What `features` makes a kernel of: random Fourier features, or Nyström features. */
export type KernelFeatures =
  | { readonly frequencies: Tensor<"f64">; readonly normalize: boolean }
  | { readonly kernel: Kernel; readonly landmarks: Tensor<"f64">; readonly projection: Tensor<"f64"> };

/**
 * log k(u, v) = ln φ(u)·φ(v) of approximate features, as a cheap member of a mixture. Trainable: of Nyström features the weights lambdas, all 1 at first, of
 * Σ_k λ_k·φ_k(u)·φ_k(v).
 */
function features(map: KernelFeatures, { unitDiagonal, floor }: Pick<DiagonalOptions & FloorOptions, "unitDiagonal" | "floor"> = {}): FormulaKernel {
  if ("frequencies" in map) {
    return new FormulaKernel({ name: "random_fourier", normalize: map.normalize, unitDiagonal, floor, parameters: {}, projection: map.frequencies });
  }
  const { kernel: base, landmarks, projection } = map;
  const rank = projection.shape[0] ?? 0;
  return new FormulaKernel({
    name: "spectral",
    normalize: base.normalize,
    unitDiagonal,
    floor,
    parameters: { lambdas: vector(new Array<number>(rank).fill(1)) },
    projection,
    landmarks,
    base: checkBase(base),
  });
}

/** k = Σ w_m·k_m, w = softmax(logits): a group of kernels by name. Groups may hold groups. Trainable: logits, and the members' parameters. */
function mixture(members: Readonly<Record<string, Kernel>>, { weights }: MixtureOptions = {}): MixtureKernel {
  if (typeof members !== "object" || members === null) throw new OutOfRangeError(`mixture: expected kernels by name, got ${describe(members)}`);
  const count = Object.keys(members).length;
  const given = weights ?? new Array<number>(count).fill(1);
  if (given.length !== count) throw new ShapeError(`mixture: expected ${count} weights, got ${given.length}`);
  const total = given.reduce((sum, weight) => sum + checkPositive("mixture: weights", weight), 0);
  return new MixtureKernel(members, vector(given.map((weight) => Math.log(weight / total))));
}

/**
 * The Hierarchical Mixture of Kernels of DPO-Kernels: K = τ_L·(w₁·k_rbf + w₂·k_poly) + τ_G·(w₃·k_spectral + w₄·k_mahalanobis), (τ_L, τ_G), (w₁, w₂) and
 * (w₃, w₄) each a softmax of trainable logits. Its data-dependent parts are taken from an objective's first batch, or by fitKernel.
 */
function hmk({ normalize = true, local, global }: HmkOptions = {}): MixtureKernel {
  return mixture({
    local: mixture(local ?? { rbf: rbf({ sigma: "median", normalize }), polynomial: polynomial({ normalize }) }),
    global: mixture(
      global ?? {
        spectral: spectral({ normalize, base: rbf({ sigma: "median", normalize }) }),
        mahalanobis: mahalanobis({ normalize }),
      },
    ),
  });
}

/** Makers of kernels. */
export const kernels = { rbf, laplacian, matern, rationalQuadratic, rbfMixture, wavelet, polynomial, mahalanobis, spectral, features, mixture, hmk };
