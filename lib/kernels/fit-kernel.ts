import { gramSteps } from "../gram.js";
import { compound, type Steps } from "../native/operation.js";
import { nystromSteps } from "../nystrom.js";
import { checkEmbeddings, type Embeddings } from "../objective/inputs.js";
import { Tensor } from "../tensor.js";
import { kernels } from "./index.js";
import { FormulaKernel, type FormulaParts, type Kernel, MixtureKernel } from "./kernel.js";
import { float64Rows, spacedRows, stacked, unitRows } from "./rows.js";

export interface FitKernelArgs {
  kernel: Kernel;
  /** [N, D], or the embeddings of a batch, whose rows are taken together. */
  embeddings: Tensor | Embeddings;
}

/** As many rows, evenly spaced, stand for all: medians of their distances hardly move beyond. */
const MOST_ROWS = 256;

/** The rows that a kernel is fitted to, as it sees them. */
type Rows = Tensor<"f64">;

export function* fitKernelSteps({ kernel, embeddings }: FitKernelArgs, _: { out?: never }): Steps<Kernel> {
  if (kernel.fitted) return kernel;
  const rows = sampledRows(embeddings);
  return yield* fitted(kernel, kernel.normalize ? unitRows("embeddings", rows) : rows);
}

function* fitted(kernel: Kernel, rows: Rows): Steps<Kernel> {
  if (kernel.fitted) return kernel;
  if (kernel.name !== "mixture") return yield* fittedFormula(kernel, rows);
  const members: Record<string, Kernel> = {};
  for (const [name, member] of Object.entries(kernel.members)) members[name] = yield* fitted(member, rows);
  return new MixtureKernel(members, kernel.logits);
}

function* fittedFormula(kernel: FormulaKernel, rows: Rows): Steps<FormulaKernel> {
  if (kernel.name === "spectral") return yield* fittedSpectral(kernel, rows);
  if (kernel.name === "mahalanobis") return withParts(kernel, { parameters: { factor: yield* diagonalFactor(rows) } });
  const sigma = Math.sqrt(yield* medianSquaredDistance(rows)) || 1;
  return withParts(kernel, { parameters: { ...kernel.parameters, sigma: new Tensor(Float64Array.of(sigma), [1], "f64") } });
}

function withParts(kernel: FormulaKernel, parts: Partial<FormulaParts>): FormulaKernel {
  return new FormulaKernel({ ...kernel, ...parts, fit: undefined });
}

/** λ_k = μ_k/M and φ_k = √M/μ_k·Σ_j U_jk·base(·, z_j) of the landmarks' Gram matrix U·diag(μ)·Uᵀ (Williams & Seeger 2001). */
function* fittedSpectral(kernel: FormulaKernel, rows: Rows): Steps<FormulaKernel> {
  const base = (yield* fitted(kernel.base as FormulaKernel, rows)) as FormulaKernel;
  const { landmarks: wanted = 1, rank = 1, method = "kmeans++", seed = 0 } = kernel.fit ?? {};
  const count = Math.min(wanted, rows.shape[0] ?? 1);
  const map = yield* nystromSteps({ x: rows, kernel: base, landmarks: count, rank: Math.min(rank, count), method, seed }, {});
  const { landmarks, eigenvalues } = map;
  const projection = new Tensor(Float64Array.from(map.projection.data), map.projection.shape, "f64");
  // Nyström features are √λ_k·φ_k.
  const lambdas = eigenvalues.data.map((mu) => mu / count);
  projection.data.forEach((value, at) => {
    projection.data[at] = value / Math.sqrt(lambdas[Math.floor(at / count)] ?? 1);
  });
  return withParts(kernel, { base, landmarks, projection, parameters: { lambdas: new Tensor(lambdas, [lambdas.length], "f64") } });
}

/** Inverse standard deviations of the columns, their variances shrunk half-way to the mean, scaled to a median of ‖A(u − v)‖² of 1. */
function* diagonalFactor(rows: Rows): Steps<Tensor<"f64">> {
  const [count = 1, width = 1] = rows.shape;
  const variances = columnVariances(rows);
  const mean = variances.reduce((sum, value) => sum + value, 0) / width;
  if (mean === 0) return new Tensor(new Float64Array(width).fill(1), [width], "f64");
  const factor = variances.map((variance) => 1 / Math.sqrt((variance + mean) / 2));
  const scaled = new Tensor(
    Float64Array.from(rows.data, (value, at) => value * (factor[at % width] ?? 0)),
    [count, width],
    "f64",
  );
  const scale = 1 / (Math.sqrt(yield* medianSquaredDistance(scaled)) || 1);
  return new Tensor(
    factor.map((value) => value * scale),
    [width],
    "f64",
  );
}

function columnVariances(rows: Rows): Float64Array {
  const [count = 1, width = 1] = rows.shape;
  const means = new Float64Array(width);
  const variances = new Float64Array(width);
  rows.data.forEach((value, at) => {
    means[at % width] = (means[at % width] ?? 0) + value / count;
  });
  rows.data.forEach((value, at) => {
    variances[at % width] = (variances[at % width] ?? 0) + (value - (means[at % width] ?? 0)) ** 2 / count;
  });
  return variances;
}

/** Of all pairs of different rows; 0 when there is one row only. k = 1/(1 + r²/(2σ²)) loses no digits of a distance when σ is small beside it. */
function* medianSquaredDistance(rows: Rows): Steps<number> {
  const [count = 1] = rows.shape;
  if (count === 1) return 0;
  const sigma = 1e-3;
  const kernel = kernels.rationalQuadratic({ sigma, alpha: 1, normalize: false });
  const { data } = yield* gramSteps({ x: rows, kernel, accuracy: "exact" }, {});
  const distances = new Float64Array((count * (count - 1)) / 2);
  let at = 0;
  for (let i = 1; i < count; i++) {
    for (let j = 0; j < i; j++) distances[at++] = 2 * sigma * sigma * (1 / (data[i * count + j] ?? 1) - 1);
  }
  return distances.sort()[distances.length >> 1] ?? 0;
}

/** Evenly spaced rows of a matrix, or of a batch's three. */
function sampledRows(embeddings: Tensor | Embeddings): Rows {
  if (!(embeddings instanceof Tensor)) checkEmbeddings(embeddings);
  const sides = embeddings instanceof Tensor ? { embeddings } : embeddings;
  const most = Math.ceil(MOST_ROWS / Object.keys(sides).length);
  return stacked(Object.entries(sides).map(([name, side]: [string, Tensor]) => float64Rows(name, side, spacedRows(side.shape[0] ?? 0, most))));
}

const both = compound(fitKernelSteps);

/**
 * The kernel with the parts that it takes from data: `sigma: "median"`, the landmarks of spectral, the diagonal of mahalanobis; from 256 evenly spaced
 * rows where there are more. A kernel that needs nothing is returned as it is. Weights of mixtures stay shared with the kernel given.
 * @throws ShapeError; NonFiniteError; OutOfRangeError for a zero row when the kernel normalises.
 */
export const fitKernel = both.async;
/** fitKernel on this thread. */
export const fitKernelSync = both.sync;
