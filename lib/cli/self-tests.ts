import {
  backends,
  choleskySync,
  choleskyVjpSync,
  covarianceSync,
  DpoKernels,
  divergenceSync,
  divergences,
  eighSync,
  eighVjpSync,
  gaussianNoiseScaleSync,
  gramReduceSync,
  gramReduceVjpSync,
  gramSync,
  gramVjpSync,
  type HeadGradients,
  IGNORED_TARGET,
  type Kernel,
  kernels,
  linearDivergenceSync,
  linearTokenLogProbsSync,
  linearTokenLogProbsVjpSync,
  mmdSync,
  nystromSync,
  pairKernelSync,
  preferenceLossSync,
  RandomFeatures,
  randomFeaturesSync,
  sequenceLogProbsSync,
  sequenceLogProbsVjpSync,
  solveTriangularSync,
  solveTriangularVjpSync,
  Tensor,
  tokenLogProbsSync,
  tokenLogProbsVjpSync,
} from "../index.js";
import { backendName } from "./backend-name.js";
import type { Check, Precision } from "./check.js";

/** Runs an operation on inputs so small that its results are known by hand. */
export type SelfTest = (precision: Precision) => Check[];

const { LN2, SQRT1_2, SQRT2, E, PI } = Math;
const LN3 = Math.log(3);
const LN5 = Math.log(5);

function numbers(values: readonly number[], precision: Precision): Tensor {
  return matrix([values], precision).reshape([values.length]);
}

function matrix(rows: readonly (readonly number[])[], precision: Precision): Tensor {
  const shape = [rows.length, rows[0]?.length ?? 0];
  return precision === "f64" ? new Tensor(Float64Array.from(rows.flat()), shape, "f64") : new Tensor(Float32Array.from(rows.flat()), shape, "f32");
}

function check(what: string, seen: Tensor | number | undefined, expected: readonly number[]): Check {
  return { what, seen: seen instanceof Tensor ? [...seen.readSync()] : [seen ?? Number.NaN], expected };
}

const scaled = (factor: number, values: readonly number[]) => values.map((value) => factor * value);

// p = (1, 2, 1, 1)/5 of the head's logits (1, 1 + ln 2, 1, 1), and Σ p·weight = (1.8, −0.4).
const HIDDEN = [1, 2];
const WEIGHT = [
  [3, -1],
  [1, 0],
  [-1, 1],
  [5, -2],
];

function head(rows: number, precision: Precision) {
  const hidden = matrix(
    Array.from({ length: rows }, () => HIDDEN),
    precision,
  );
  return { hidden, weight: matrix(WEIGHT, precision), bias: numbers([0, LN2, 0, 0], precision) };
}

function headChecks({ hidden, weight, bias }: HeadGradients, expected: { hidden: number[]; weight: number[]; bias: number[] }): Check[] {
  return [
    check("gradient in the hidden states", hidden, expected.hidden),
    check("gradient in the weights", weight, expected.weight),
    check("gradient in the bias", bias, expected.bias),
  ];
}

// An rbf kernel that is ½ at a distance of 5: σ² = 25/(2·ln 2).
const HALF_AT_5 = 5 / Math.sqrt(2 * LN2);
const POINTS = [
  [0, 0],
  [3, 4],
];
/** Of ½ = k(POINTS[0], POINTS[1]) in POINTS[0]: ½·(3, 4)/σ². */
const SLOPE = scaled(LN2 / 25, [3, 4]);
const OPPOSITE_SLOPES = [...SLOPE, ...scaled(-1, SLOPE)];

function rbf(sigma: number): Kernel {
  return kernels.rbf({ sigma, normalize: false });
}

const halfAt5 = () => rbf(HALF_AT_5);

function copy(precision: Precision): Check[] {
  const values = [1.5, -2, 0.25, 8];
  const from = numbers(values, precision);
  const [selected] = backends().filter((backend) => backend.selected);
  // On a backend that works in the host's memory, the full name makes a copy where "cpu" would not.
  const copied = from.toSync(selected === undefined ? "auto" : backendName(selected));
  return [check("numbers carried there and back", copied, values), check("copies made", copied === from ? 0 : 1, [1])];
}

function tokenLogProbs(precision: Precision): Check[] {
  const logits = matrix(
    [
      [7, 7, 7, 7],
      [0, LN2, 0, 0],
    ],
    precision,
  );
  const { logProbs, logSumExp, entropy } = tokenLogProbsSync({ logits, targets: Int32Array.of(2, 1), entropy: true });
  return [
    check("log-softmax of 4 equal logits, and of 2/5", logProbs, [-2 * LN2, LN2 - LN5]),
    check("log-sum-exp", logSumExp, [7 + 2 * LN2, LN5]),
    check("entropy", entropy, [2 * LN2, LN5 - 0.4 * LN2]),
  ];
}

function tokenLogProbsVjp(precision: Precision): Check[] {
  const logits = matrix([[7, 7, 7, 7]], precision);
  const grads = tokenLogProbsVjpSync({ logits, targets: Int32Array.of(2), upstream: numbers([2], precision) });
  return [check("gradient of 4 equal logits", grads.logits, [-0.5, -0.5, 1.5, -0.5])];
}

function linearTokenLogProbs(precision: Precision): Check[] {
  const { logProbs } = linearTokenLogProbsSync({ ...head(2, precision), targets: Int32Array.of(1, 3) });
  return [check("log-softmax of 2/5 and 1/5", logProbs, [LN2 - LN5, -LN5])];
}

function linearTokenLogProbsVjp(precision: Precision): Check[] {
  const grads = linearTokenLogProbsVjpSync({ ...head(1, precision), targets: Int32Array.of(1), upstream: numbers([1], precision) });
  return headChecks(grads, {
    hidden: [-0.8, 0.4],
    weight: [-0.2, -0.4, 0.6, 1.2, -0.2, -0.4, -0.2, -0.4],
    bias: [-0.2, 0.6, -0.2, -0.2],
  });
}

const TARGETS = Int32Array.of(0, IGNORED_TARGET, 1, 2, 3);
const OFFSETS = Int32Array.of(0, 3, 5);

function sequenceLogProbs(precision: Precision): Check[] {
  const tokens = numbers([-1, -2, -4, -8, -16], precision);
  const { logProbs, tokenCounts } = sequenceLogProbsSync({ logProbs: tokens, targets: TARGETS, offsets: OFFSETS });
  return [check("sums of two sequences, one token ignored", logProbs, [-5, -24]), check("counted tokens", tokenCounts, [2, 2])];
}

function sequenceLogProbsVjp(precision: Precision): Check[] {
  const { logProbs } = sequenceLogProbsVjpSync({ targets: TARGETS, offsets: OFFSETS, upstream: numbers([3, 5], precision) });
  return [check("gradient in the tokens, one of them ignored", logProbs, [3, 0, 3, 5, 5])];
}

/** DPO of a pair that is as likely as under the reference, and of one with a margin of ln 3. */
function preference(precision: Precision): Check[] {
  const reference = numbers([-3, -3, -4, -4], precision);
  const policy = numbers([-3, -3 + 2 * LN3, -4, -4], precision);
  const { losses, grads } = preferenceLossSync({ policy, reference, beta: 0.5 });
  return [
    check("DPO loss at margins of 0 and ln 3", losses, [LN2, 2 * LN2 - LN3]),
    check("its gradient", grads.policy, [-0.125, -0.0625, 0.125, 0.0625]),
  ];
}

function linearPreference(precision: Precision): Check[] {
  const objective = new DpoKernels({ loss: "sigmoid", beta: 0.1 });
  const policy = { ...head(2, precision), targets: Int32Array.of(1, 0), offsets: Int32Array.of(0, 1, 2) };
  const { loss, grads } = objective.lossAndGradSync({ policy, reference: { logProbs: numbers([LN2 - LN5, -LN5], precision) } });
  const expected = { hidden: [0.04, -0.02, 0.06, -0.03], weight: [0.05, 0.1, -0.05, -0.1, 0, 0, 0, 0], bias: [0.05, -0.05, 0, 0] };
  return [check("DPO loss of the reference itself", loss, [LN2]), ...headChecks(grads.policy as HeadGradients, expected)];
}

function rows(precision: Precision) {
  return { u: matrix([[0, 0]], precision), v: matrix([[3, 4]], precision) };
}

function pairKernel(precision: Precision): Check[] {
  return [
    check("log k of rbf, σ = 2, at a distance of 5", pairKernelSync({ ...rows(precision), kernel: rbf(2) }).logK, [-25 / 8]),
    check(
      "log k of laplacian, σ = 2",
      pairKernelSync({ ...rows(precision), kernel: kernels.laplacian({ sigma: 2, normalize: false }) }).logK,
      [-3.5],
    ),
  ];
}

function pairKernelVjp(precision: Precision): Check[] {
  const { grads } = pairKernelSync({ ...rows(precision), kernel: rbf(2), upstream: numbers([1], precision) });
  return [
    check("gradient of log k of rbf, σ = 2, in u", grads?.u, [0.75, 1]),
    check("in v", grads?.v, [-0.75, -1]),
    check("in σ", grads?.params.sigma, [25 / 8]),
  ];
}

/** p = (½, ½), q = (¼, ¾). */
function twoDistributions(precision: Precision) {
  return { policy: matrix([[1, 1]], precision), reference: matrix([[0, LN3]], precision) };
}

function divergence(precision: Precision): Check[] {
  const both = twoDistributions(precision);
  const kind = divergences.kl();
  const { values, gradPolicy } = divergenceSync({ ...both, kind, upstream: 1 });
  const disjoint = { policy: matrix([[0, -Infinity]], precision), reference: matrix([[-Infinity, 0]], precision) };
  return [
    check("KL of (½, ½) and (¼, ¾)", values, [LN2 - LN3 / 2]),
    check("its gradient", gradPolicy, [LN3 / 4, -LN3 / 4]),
    check("KL(p‖p)", divergenceSync({ policy: both.reference, reference: both.reference, kind }).values, [0]),
    check("JS without a common token", divergenceSync({ ...disjoint, kind: divergences.js() }).values, [LN2]),
    check("TV without a common token", divergenceSync({ ...disjoint, kind: divergences.tv() }).values, [1]),
  ];
}

/** The ratios p/q are 2 and ⅔, which a generator of the caller's own is given: Σ q·(p/q − 1)². */
function densityRatios(precision: Precision): Check[] {
  const kind = divergences.f({ f: (ratio) => (ratio - 1) ** 2, derivative: (ratio) => 2 * (ratio - 1) });
  return [check("χ² of (½, ½) and (¼, ¾) by a generator of our own", divergenceSync({ ...twoDistributions(precision), kind }).values, [1 / 3])];
}

function linearDivergence(precision: Precision): Check[] {
  const policy = { hidden: matrix([HIDDEN], precision), weight: matrix(WEIGHT.slice(0, 2), precision) };
  const reference = { hidden: matrix([[LN3]], precision), weight: matrix([[0], [1]], precision) };
  const { values, grads } = linearDivergenceSync({ policy, reference, kind: divergences.kl(), upstream: 1 });
  return [
    check("KL of (½, ½) and (¼, ¾)", values, [LN2 - LN3 / 2]),
    check("gradient in the hidden states", grads?.hidden, scaled(LN3 / 4, [2, -1])),
    check("gradient in the weights", grads?.weight, scaled(LN3 / 4, [1, 2, -1, -2])),
  ];
}

/** Four frequencies at right angles, and as many of a kernel twice as wide. */
function randomFrequencies(): Check[] {
  const draw = (sigma: number) =>
    randomFeaturesSync({ kernel: rbf(sigma), frequencies: 4, depth: 4, orthogonal: true, seed: 7 }).frequencies.readSync();
  const [narrow, wide] = [draw(1), draw(2)];
  const rowOf = (i: number) => narrow.subarray(4 * i, 4 * i + 4);
  const inner = (i: number, j: number) => rowOf(i).reduce((sum, value, k) => sum + value * (rowOf(j)[k] ?? Number.NaN), 0);
  const products = [inner(0, 1), inner(0, 2), inner(0, 3), inner(1, 2), inner(1, 3), inner(2, 3)];
  const many = randomFeaturesSync({ kernel: rbf(1), frequencies: 4096, depth: 1, seed: 7 }).frequencies.readSync();
  const meanSquare = many.reduce((sum, value) => sum + value * value, 0) / many.length;
  return [
    { what: "inner products of orthogonal frequencies", seen: products, expected: [0, 0, 0, 0, 0, 0] },
    { what: "frequencies of a kernel twice as wide, doubled", seen: scaled(2, [...wide]), expected: [...narrow] },
    { what: "mean square of 4096 normal numbers", seen: [meanSquare], expected: [1], within: 0.1 },
  ];
}

/** cos and sin of π/3. */
function sixthOfACircle(precision: Precision) {
  const frequencies = new Tensor(Float64Array.of(1, 1), [1, 2], "f64");
  return { features: new RandomFeatures({ kernel: kernels.rbf({ normalize: false }), frequencies }), x: matrix([[PI / 6, PI / 6]], precision) };
}

const SIN = Math.sqrt(3) / 2;

function randomFeatures(precision: Precision): Check[] {
  const { features, x } = sixthOfACircle(precision);
  return [check("features cos(π/3) and sin(π/3)", features.transformSync(x), [0.5, SIN])];
}

function randomFeaturesVjp(precision: Precision): Check[] {
  const { features, x } = sixthOfACircle(precision);
  const grads = features.transformVjpSync({ x, upstream: matrix([[1, 0]], precision) });
  return [
    check("gradient of cos(π/3) in the row", grads.x, [-SIN, -SIN]),
    check("in the frequency", grads.frequencies, scaled(-SIN, [PI / 6, PI / 6])),
  ];
}

function covariance(precision: Precision): Check[] {
  const x = matrix(
    [
      [1, 2],
      [3, 6],
    ],
    precision,
  );
  const result = covarianceSync({ x });
  return [check("covariance of (1, 2) and (3, 6)", result.covariance, [1, 2, 2, 4]), check("their mean", result.mean, [2, 4])];
}

/** For δ = ½ − e·Φ(−√2), Φ the normal distribution, ε = 1 takes σ = 1/√2. It is found by iteration. */
function gaussianNoiseScale(): Check[] {
  const delta = 0.5 - E * 0.07864960352514257;
  const scaleOf = (sensitivity: number) => gaussianNoiseScaleSync({ epsilon: 1, delta, sensitivity });
  return [{ what: "noise of sensitivities 1 and 2", seen: [scaleOf(1), scaleOf(2)], expected: [SQRT1_2, SQRT2], within: 1e-9 }];
}

function cholesky(precision: Precision): Check[] {
  const a = matrix(
    [
      [4, 12, -16],
      [12, 37, -43],
      [-16, -43, 98],
    ],
    precision,
  );
  const { factor, jitter } = choleskySync({ a });
  return [check("factor", factor, [2, 0, 0, 6, 1, 0, -8, 5, 3]), check("jitter added", jitter, [0])];
}

/** The factor of (4, 2; 2, 5). */
function lowerTriangle(precision: Precision): Tensor {
  return matrix(
    [
      [2, 0],
      [1, 2],
    ],
    precision,
  );
}

/** Σ ln L_ii is half the logarithm of the determinant, with half the inverse as gradient. */
function choleskyVjp(precision: Precision): Check[] {
  const upstream = matrix(
    [
      [0.5, 0],
      [0, 0.5],
    ],
    precision,
  );
  const { a } = choleskyVjpSync({ factor: lowerTriangle(precision), upstream });
  return [check("gradient of ½·ln det", a, scaled(1 / 32, [5, -2, -2, 4]))];
}

function solveTriangular(precision: Precision): Check[] {
  const system = { a: lowerTriangle(precision), b: numbers([8, 8], precision) };
  return [
    check("solution", solveTriangularSync(system), [4, 2]),
    check("solution of the transposed system", solveTriangularSync({ ...system, transpose: true }), [2, 4]),
  ];
}

function solveTriangularVjp(precision: Precision): Check[] {
  const grads = solveTriangularVjpSync({ a: lowerTriangle(precision), x: numbers([4, 2], precision), upstream: numbers([8, 8], precision) });
  return [check("gradient in the right-hand side", grads.b, [2, 4]), check("gradient in the triangle", grads.a, [-8, 0, -16, -8])];
}

// (6, 2; 2, 3) = V·diag(2, 7)·Vᵀ.
const EIGENVECTORS = [
  [-1 / Math.sqrt(5), 2 / Math.sqrt(5)],
  [2 / Math.sqrt(5), 1 / Math.sqrt(5)],
];

function eigh(precision: Precision): Check[] {
  const a = matrix(
    [
      [6, 2],
      [2, 3],
    ],
    precision,
  );
  const { values, vectors } = eighSync({ a });
  return [check("eigenvalues of (6, 2; 2, 3)", values, [2, 7]), check("eigenvectors, orthonormal", vectors, EIGENVECTORS.flat())];
}

function eighVjp(precision: Precision): Check[] {
  const decomposition = { values: numbers([2, 7], precision), vectors: matrix(EIGENVECTORS, precision) };
  // 5 times the first eigenvector, as the gradient in the second.
  const ofVectors = matrix(
    [
      [0, -Math.sqrt(5)],
      [0, 2 * Math.sqrt(5)],
    ],
    precision,
  );
  return [
    check(
      "gradient of the larger eigenvalue",
      eighVjpSync({ ...decomposition, upstream: { values: numbers([0, 1], precision) } }).a,
      [0.8, 0.4, 0.4, 0.2],
    ),
    check("gradient through the eigenvectors", eighVjpSync({ ...decomposition, upstream: { vectors: ofVectors } }).a, [-0.4, 0.3, 0.3, 0.4]),
  ];
}

/** k-means++ does not take a row that it has: of three equal rows and another, one of each. */
function landmarks(precision: Precision): Check[] {
  const x = matrix([[0, 0], ...POINTS, [0, 0]], precision);
  const features = nystromSync({ x, kernel: halfAt5(), landmarks: 2, method: "kmeans++" });
  const [a = 0, b = 0, c = 0, d = 0] = features.landmarks.readSync();
  return [
    { what: "two different rows of four", seen: [a + c, b + d, a * c, b * d], expected: [3, 4, 0, 0] },
    check("eigenvalues of their matrix (1, ½; ½, 1)", features.eigenvalues, [1.5, 0.5]),
  ];
}

function halfAtPoints(precision: Precision) {
  return { x: matrix(POINTS, precision), kernel: halfAt5() };
}

function gram(precision: Precision): Check[] {
  const both = halfAtPoints(precision);
  return [
    check("rbf at distances of 0 and 5", gramSync(both), [1, 0.5, 0.5, 1]),
    check("the same from differences", gramSync({ ...both, accuracy: "exact" }), [1, 0.5, 0.5, 1]),
  ];
}

function gramVjp(precision: Precision): Check[] {
  const upstream = matrix(
    [
      [0, 1],
      [0, 0],
    ],
    precision,
  );
  const grads = gramVjpSync({ ...halfAtPoints(precision), upstream });
  return [check("gradient in the rows", grads.x, OPPOSITE_SLOPES), check("gradient in σ", grads.params.sigma, [LN2 / HALF_AT_5])];
}

function gramReduce(precision: Precision): Check[] {
  return [check("(1, ½; ½, 1)·(1, 2)", gramReduceSync({ ...halfAtPoints(precision), vectors: numbers([1, 2], precision) }), [2, 2.5])];
}

function gramReduceVjp(precision: Precision): Check[] {
  const grads = gramReduceVjpSync({ ...halfAtPoints(precision), vectors: numbers([1, 2], precision), upstream: numbers([1, 0], precision) });
  return [check("gradient in the vector", grads.vectors, [1, 0.5]), check("gradient in the rows", grads.x, scaled(2, OPPOSITE_SLOPES))];
}

function mmd(precision: Precision): Check[] {
  const { u: x, v: y } = rows(precision);
  const { mmd2, grads } = mmdSync({ x, y, kernel: halfAt5(), gradients: true });
  const sample = matrix(POINTS, precision);
  return [
    check("MMD² of two points with k = ½", mmd2, [1]),
    check("its gradient", grads?.x, scaled(-2, SLOPE)),
    check("MMD² of equal samples", mmdSync({ x: sample, y: sample, kernel: halfAt5() }).mmd2, [0]),
  ];
}

/** By the name of the operation. */
export const SELF_TESTS: Readonly<Record<string, SelfTest>> = {
  copy,
  tokenLogProbs,
  tokenLogProbsVjp,
  linearTokenLogProbs,
  linearTokenLogProbsVjp,
  sequenceLogProbs,
  sequenceLogProbsVjp,
  preference,
  linearPreference,
  pairKernel,
  pairKernelVjp,
  divergence,
  densityRatios,
  linearDivergence,
  randomFrequencies,
  randomFeatures,
  randomFeaturesVjp,
  covariance,
  gaussianNoiseScale,
  cholesky,
  choleskyVjp,
  solveTriangular,
  solveTriangularVjp,
  eigh,
  eighVjp,
  landmarks,
  gram,
  gramVjp,
  gramReduce,
  gramReduceVjp,
  mmd,
};
