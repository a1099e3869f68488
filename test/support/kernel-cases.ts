/** Kernels to test with: every kind, and mixtures of them. */

import { FormulaKernel, type Kernel, kernels, type Tensor, tensor } from "dpo-kernels";
import { createRandom, type Random } from "./random.js";

export interface KernelShape {
  readonly depth: number;
  readonly normalize: boolean;
}

export interface KernelCase {
  readonly name: string;
  readonly make: (shape: KernelShape) => Kernel;
}

function matrix(values: ArrayLike<number>, shape: readonly number[]): Tensor<"f64"> {
  return tensor(Float64Array.from(values), shape);
}

/** About the distance of two random rows. */
export function spread({ depth, normalize }: KernelShape): number {
  return normalize ? Math.SQRT2 : Math.sqrt(2 * depth);
}

/** Rows as the kernel would see them. */
export function landmarkRows(random: Random, count: number, { depth, normalize }: KernelShape): Float64Array {
  const rows = random.normals(count * depth);
  if (!normalize) return rows;
  for (let l = 0; l < count; l++) {
    const part = rows.subarray(l * depth, (l + 1) * depth);
    const length = Math.hypot(...part);
    for (const [i, x] of part.entries()) part[i] = x / length;
  }
  return rows;
}

export interface SpectralParts extends KernelShape {
  readonly count?: number;
  readonly rank?: number;
  readonly base?: FormulaKernel;
  readonly unitDiagonal?: boolean;
  readonly floor?: number;
  readonly landmarks?: Float64Array;
}

/** A spectral kernel whose projection is all positive in its first row, so that ⟨φ(u), φ(v)⟩ mostly is; of about the same size for any count. */
export function spectral({ count = 5, rank = 3, base, unitDiagonal, floor, landmarks, ...shape }: SpectralParts): FormulaKernel {
  const random = createRandom(77);
  const rows = landmarks ?? landmarkRows(random, count, shape);
  const scale = 5 / count;
  const projection = Float64Array.from({ length: rank * count }, (_, i) => scale * (i < count ? random.uniform(0.5, 1) : 0.4 * random.normal()));
  return new FormulaKernel({
    name: "spectral",
    normalize: shape.normalize,
    unitDiagonal,
    floor,
    parameters: { lambdas: matrix(random.uniforms(rank, 0.2, 1), [rank]) },
    projection: matrix(projection, [rank, count]),
    landmarks: matrix(rows, [count, shape.depth]),
    base: base ?? kernels.rbf({ sigma: spread(shape), normalize: shape.normalize }),
  });
}

export function randomFourier({ depth, normalize }: KernelShape, count = 6, width = spread({ depth, normalize })): FormulaKernel {
  const frequencies = createRandom(78).normals(count * depth, 0, 1 / width);
  return new FormulaKernel({ name: "random_fourier", normalize, parameters: {}, projection: matrix(frequencies, [count, depth]) });
}

function diagonal(shape: KernelShape): Tensor<"f64"> {
  return matrix(createRandom(79).uniforms(shape.depth, 0.3 / spread(shape), 1.5 / spread(shape)), [shape.depth]);
}

/** Distances of mapped rows are about those of rows over their spread, however many columns there are. */
function factor(shape: KernelShape, columns: number): Tensor<"f64"> {
  const scale = Math.sqrt(3 / columns) / spread(shape);
  return matrix(createRandom(80).normals(shape.depth * columns, 0, scale), [shape.depth, columns]);
}

const { rbf, laplacian, matern, rationalQuadratic, rbfMixture, wavelet, polynomial, mahalanobis, mixture } = kernels;

/** c of a polynomial kernel, in proportion to ⟨u, u⟩. */
function coef0(shape: KernelShape, share: number): number {
  return shape.normalize ? share : share * shape.depth;
}

/** Every kind, each in its own ways. */
export const KERNEL_CASES: readonly KernelCase[] = [
  { name: "rbf", make: (shape) => rbf({ sigma: 0.7 * spread(shape), normalize: shape.normalize }) },
  { name: "laplacian", make: (shape) => laplacian({ sigma: spread(shape) * Math.sqrt(shape.depth), normalize: shape.normalize }) },
  ...([0.5, 1.5, 2.5, Infinity] as const).map(
    (nu): KernelCase => ({ name: `matern ${nu}`, make: (shape) => matern({ nu, sigma: 0.8 * spread(shape), normalize: shape.normalize }) }),
  ),
  { name: "rational_quadratic", make: (shape) => rationalQuadratic({ sigma: 0.6 * spread(shape), alpha: 1.7, normalize: shape.normalize }) },
  ...[false, true].map(
    (unitDiagonal): KernelCase => ({
      name: `rbf_mixture, unitDiagonal ${unitDiagonal}`,
      make: (shape) =>
        rbfMixture({
          lambdas: [0.3, 1.5, 0.2],
          rates: [0.3, 1, 4].map((rate) => rate / spread(shape) ** 2),
          normalize: shape.normalize,
          unitDiagonal,
        }),
    }),
  ),
  { name: "wavelet", make: (shape) => wavelet({ sigma: 0.9 * spread(shape), normalize: shape.normalize }) },
  { name: "wavelet beyond its first zero", make: (shape) => wavelet({ sigma: 0.4 * spread(shape), normalize: shape.normalize, floor: 0.05 }) },
  ...[false, true].flatMap((unitDiagonal): KernelCase[] => [
    {
      name: `polynomial, unitDiagonal ${unitDiagonal}`,
      make: (shape) => polynomial({ degree: 3, coef0: coef0(shape, 1.1), normalize: shape.normalize, unitDiagonal }),
    },
    {
      name: `polynomial of a base of both signs, unitDiagonal ${unitDiagonal}`,
      make: (shape) => polynomial({ degree: 1.5, coef0: coef0(shape, 0.01), normalize: shape.normalize, unitDiagonal, floor: 0.01 }),
    },
    { name: `spectral, unitDiagonal ${unitDiagonal}`, make: (shape) => spectral({ ...shape, unitDiagonal }) },
  ]),
  {
    name: "spectral of polynomial",
    make: (shape) => spectral({ ...shape, base: polynomial({ coef0: coef0(shape, 1), normalize: shape.normalize }) }),
  },
  { name: "spectral of matern", make: (shape) => spectral({ ...shape, base: matern({ sigma: spread(shape), normalize: shape.normalize }) }) },
  { name: "mahalanobis, diagonal", make: (shape) => mahalanobis({ factor: diagonal(shape), normalize: shape.normalize }) },
  { name: "mahalanobis, factor", make: (shape) => mahalanobis({ factor: factor(shape, 3), normalize: shape.normalize }) },
  {
    name: "mahalanobis, square factor",
    make: (shape) => mahalanobis({ factor: factor(shape, Math.min(shape.depth, 20)), normalize: shape.normalize }),
  },
  { name: "random_fourier", make: (shape) => randomFourier(shape) },
  // Maps to many numbers go another way than those to few.
  { name: "mahalanobis, wide factor", make: (shape) => mahalanobis({ factor: factor(shape, 70), normalize: shape.normalize }) },
  { name: "random_fourier of many frequencies", make: (shape) => randomFourier(shape, 70) },
  { name: "spectral of many landmarks", make: (shape) => spectral({ ...shape, count: 70, rank: 9 }) },
];

/** The tree of the paper with one kernel of each group's kind, and others. */
export const MIXTURE_CASES: readonly KernelCase[] = [
  {
    name: "hmk",
    make: (shape) =>
      kernels.hmk({
        normalize: shape.normalize,
        local: {
          rbf: rbf({ sigma: spread(shape), normalize: shape.normalize }),
          polynomial: polynomial({ coef0: coef0(shape, 1), normalize: shape.normalize }),
        },
        global: { spectral: spectral(shape), mahalanobis: mahalanobis({ factor: diagonal(shape), normalize: shape.normalize }) },
      }),
  },
  {
    name: "of every kind",
    make: (shape) => mixture(everyKind(shape), { weights: Object.keys(everyKind(shape)).map((_, m) => 1 + (m % 3)) }),
  },
  {
    name: "uneven tree",
    make: (shape) =>
      mixture(
        {
          wide: rbf({ sigma: 2 * spread(shape), normalize: shape.normalize }),
          near: mixture(
            {
              laplacian: laplacian({ sigma: spread(shape) * Math.sqrt(shape.depth), normalize: shape.normalize }),
              inner: mixture({ only: matern({ sigma: spread(shape), normalize: shape.normalize }) }),
              fourier: randomFourier(shape),
            },
            { weights: [5, 1, 2] },
          ),
          factor: mahalanobis({ factor: factor(shape, 2), normalize: shape.normalize }),
        },
        { weights: [1, 3, 2] },
      ),
  },
];

function everyKind(shape: KernelShape): Record<string, Kernel> {
  const { normalize } = shape;
  return {
    rbf: rbf({ sigma: spread(shape), normalize }),
    laplacian: laplacian({ sigma: spread(shape) * Math.sqrt(shape.depth), normalize }),
    matern: matern({ sigma: spread(shape), nu: 2.5, normalize }),
    quadratic: rationalQuadratic({ sigma: spread(shape), normalize }),
    rbfs: rbfMixture({ rates: [0.5, 2].map((rate) => rate / spread(shape) ** 2), normalize }),
    wavelet: wavelet({ sigma: spread(shape), normalize }),
    polynomial: polynomial({ coef0: coef0(shape, 0.5), normalize, unitDiagonal: false }),
    spectral: spectral(shape),
    spectrum: spectral({ ...shape, count: 3, rank: 2, unitDiagonal: false, base: polynomial({ coef0: coef0(shape, 1), normalize }) }),
    diagonal: mahalanobis({ factor: diagonal(shape), normalize }),
    factor: mahalanobis({ factor: factor(shape, 2), normalize }),
    fourier: randomFourier(shape),
  };
}
