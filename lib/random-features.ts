import { OutOfRangeError } from "./errors.js";
import { checkFitted, type FormulaKernel, type Kernel } from "./kernels/kernel.js";
import { describe, Frame } from "./native/frame.js";
import { type AsyncOptions, operation, type Steps } from "./native/operation.js";
import { matrixShape } from "./native/shared-arguments.js";
import type { FeaturesOut, FeaturesVjpArgs } from "./nystrom.js";
import { resultDType, type Tensor } from "./tensor.js";

export interface RandomFeaturesArgs {
  /** rbf, laplacian or matern. */
  kernel: Kernel;
  /** R: how many frequencies; there are twice as many features. */
  frequencies: number;
  /** D: width of the rows. */
  depth: number;
  /** Frequencies at right angles to each other, D at a time, which lowers the error (Yu et al. 2016); of rbf only. Default false. */
  orthogonal?: boolean;
  /** Default 0. */
  seed?: number;
}

export interface RandomFeaturesGradients {
  /** [N, D], dtype of x. */
  x: Tensor;
  /** [R, D] f64. */
  frequencies: Tensor<"f64">;
  /** In the kernel's sigma, with which all frequencies shrink. */
  sigma: number;
}

export interface RandomFeaturesVjpOut {
  out?: { x?: Tensor; frequencies?: Tensor };
}

function* transformSteps({ features, x }: { features: RandomFeatures; x: Tensor }, { out = {} }: FeaturesOut): Steps<Tensor> {
  const [rows] = matrixShape("x", x);
  const frame = new Frame("randomFeatures");
  frame.input("x", x).input("frequencies", features.frequencies).code(features.normalize);
  const result = frame.result("out.features", resultDType(x.dtype), [rows, features.width], out.features, x);
  yield frame;
  return result;
}

function* transformVjpSteps(
  { features, x, upstream }: FeaturesVjpArgs & { features: RandomFeatures },
  { out = {} }: RandomFeaturesVjpOut,
): Steps<RandomFeaturesGradients> {
  matrixShape("x", x);
  const { frequencies: given, normalize, sigma } = features;
  const frame = new Frame("randomFeaturesVjp");
  frame.input("x", x).input("frequencies", given).input("upstream", upstream).code(normalize);
  const gradX = frame.result("out.x", x.dtype, x.shape, out.x, x);
  const frequencies = frame.result("out.frequencies", "f64", given.shape, out.frequencies);
  yield frame;
  // W = W₁/σ.
  const along = frequencies.readSync().reduce((sum, grad, i) => sum + grad * (given.data[i] ?? 0), 0);
  return { x: gradX, frequencies, sigma: -along / sigma };
}

const transformFaces = operation(transformSteps);
const transformVjpFaces = operation(transformVjpSteps);

/** Features φ(x) = [cos(W·x), sin(W·x)]/√R [2R] of a kernel, φ(x)·φ(y) ≈ k(x, y) with an error that falls as 1/√R; φ(x)·φ(x) = 1. */
export class RandomFeatures {
  readonly kernel: FormulaKernel;
  /** W, [R, D] f64. */
  readonly frequencies: Tensor<"f64">;

  constructor(parts: { kernel: FormulaKernel; frequencies: Tensor<"f64"> }) {
    this.kernel = parts.kernel;
    this.frequencies = parts.frequencies;
  }

  /** Whether rows are L2-normalised first, as by the kernel. */
  get normalize(): boolean {
    return this.kernel.normalize;
  }

  get sigma(): number {
    return this.kernel.parameters.sigma?.data[0] ?? Number.NaN;
  }

  /** How many features a row has. */
  get width(): number {
    return 2 * (this.frequencies.shape[0] ?? 0);
  }

  /** [N, 2R] features of rows [N, D] f32 f64 f16 bf16: f64 for f64 rows, else f32. */
  transform(x: Tensor, options: FeaturesOut & AsyncOptions = {}): Promise<Tensor> {
    return transformFaces.async({ features: this, x }, options);
  }

  /** transform on this thread. */
  transformSync(x: Tensor, options: FeaturesOut = {}): Tensor {
    return transformFaces.sync({ features: this, x }, options);
  }

  /** Gradients in x, the frequencies and sigma. */
  transformVjp(args: FeaturesVjpArgs, options: RandomFeaturesVjpOut & AsyncOptions = {}): Promise<RandomFeaturesGradients> {
    return transformVjpFaces.async({ ...args, features: this }, options);
  }

  /** transformVjp on this thread. */
  transformVjpSync(args: FeaturesVjpArgs, options: RandomFeaturesVjpOut = {}): RandomFeaturesGradients {
    return transformVjpFaces.sync({ ...args, features: this }, options);
  }
}

const [NORMAL, CAUCHY, STUDENT] = [0, 1, 2];

/** Of the kernel's spectral density: which it is, and its degrees of freedom. */
function densityOf(kernel: Kernel): [number, number] {
  if (kernel.name === "rbf") return [NORMAL, 0];
  if (kernel.name === "laplacian") return [CAUCHY, 0];
  if (kernel.name === "matern") return kernel.nu === Infinity ? [NORMAL, 0] : [STUDENT, 2 * (kernel.nu ?? 1.5)];
  throw new OutOfRangeError(`kernel: random features of ${kernel.name} are not supported; those of rbf, laplacian and matern are`);
}

function checkCount(name: string, value: number): number {
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new OutOfRangeError(`${name}: expected a whole number of at least 1, got ${describe(value)}`);
}

export function* randomFeaturesSteps(args: RandomFeaturesArgs, _: { out?: never }): Steps<RandomFeatures> {
  const { kernel, orthogonal = false, seed = 0 } = args;
  checkFitted(kernel);
  const [density, freedom] = densityOf(kernel);
  if (typeof orthogonal !== "boolean") throw new OutOfRangeError(`orthogonal: expected true or false, got ${describe(orthogonal)}`);
  if (orthogonal && density !== NORMAL) throw new OutOfRangeError(`orthogonal: not supported for ${kernel.name}, only for rbf`);
  const frame = new Frame("randomFrequencies");
  frame.code(density).code(freedom).code(orthogonal);
  frame.number("sigma", kernel.parameters.sigma?.data[0] ?? Number.NaN).integer("seed", seed);
  const frequencies = frame.result("frequencies", "f64", [checkCount("frequencies", args.frequencies), checkCount("depth", args.depth)]);
  yield frame;
  return new RandomFeatures({ kernel: kernel as FormulaKernel, frequencies });
}

const both = operation(randomFeaturesSteps);

/**
 * Random Fourier features of a kernel of the difference u − v (Rahimi & Recht 2007): rows of its spectral density, divided by sigma. The same for the same
 * seed on every backend.
 * @throws OutOfRangeError for other kernels, and options out of range.
 */
export const randomFeatures = both.async;
/** randomFeatures on this thread. */
export const randomFeaturesSync = both.sync;
