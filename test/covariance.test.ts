import {
  type CovarianceArgs,
  covariance,
  covarianceSync,
  eighSync,
  gaussianNoiseScale,
  gaussianNoiseScaleSync,
  kernels,
  type PrivacyOptions,
  pairKernelSync,
  type Tensor,
  tensor,
} from "dpo-kernels";
import { describe, expect, it } from "vitest";
import { describeBackends } from "./support/backends.js";
import { expectBitwiseEqual, expectValue, expectValues } from "./support/bounds.js";
import { combinations, resultOf, STORAGES, tensorOf, valuesOf } from "./support/cases.js";
import { createRandom } from "./support/random.js";
import { loadFixture } from "./support/truth/fixtures.js";

const faces = { sync: covarianceSync, async: covariance };
const PRIVACY: PrivacyOptions = { epsilon: 1, delta: 1e-6, clip: 1, seed: 1 };
const { cases, noiseScales } = loadFixture("covariance");

function normals(rows: number, width: number, seed = 1, scale = 1): Float64Array {
  return createRandom(seed).normals(rows * width, 0, scale);
}

function eigenvaluesOf({ covariance: a }: { covariance: Tensor<"f64"> }): Float64Array {
  return Float64Array.from(eighSync({ a }).values.data);
}

/** Φ, by Simpson's rule. */
function normalShare(x: number): number {
  const steps = 400;
  const [from, to] = [-9, Math.max(-9, Math.min(9, x))];
  const h = (to - from) / steps;
  let sum = 0;
  for (let i = 0; i <= steps; i++) sum += (i === 0 || i === steps ? 1 : i % 2 === 1 ? 4 : 2) * Math.exp(-((from + i * h) ** 2) / 2);
  return (sum * h) / 3 / Math.sqrt(2 * Math.PI);
}

/** Largest distance of the sample's distribution from the standard normal one, times √n: above 1.95 with a chance of 1 in 1000 (Kolmogorov). */
function kolmogorovSmirnov(sample: readonly number[]): number {
  const sorted = [...sample].sort((a, b) => a - b);
  const distances = sorted.map((x, i) => Math.max(Math.abs(normalShare(x) - i / sorted.length), Math.abs(normalShare(x) - (i + 1) / sorted.length)));
  return Math.max(...distances) * Math.sqrt(sorted.length);
}

function expectThrows(run: () => unknown, { code, message = /./ }: { code: string; message?: RegExp }): void {
  expect(run).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
}

function frobenius(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Math.sqrt(Array.from(a).reduce((sum, value, i) => sum + (value - (b[i] ?? 0)) ** 2, 0));
}

describeBackends(() => {
  describe("estimates", () => {
    it.each(combinations(cases, ["f32", "f64"] as const))("equal scikit-learn's: $name, assumeCentered $assumeCentered, $storage", async (given) => {
      const x = tensorOf(given.x, [given.n, given.d], given.storage);
      for (const method of ["sample", "ledoit_wolf", "oas"] as const) {
        const expected = given.expected[method];
        const result = await resultOf(faces, { x, method, assumeCentered: given.assumeCentered });
        const largest = expected.covariance.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        expectValues(result.covariance.data, expected.covariance, { abs: 1e-13 * Math.max(1, largest), rel: 1e-11, label: method });
        expectValue(result.shrinkage, expected.shrinkage, { abs: 1e-11, rel: 1e-11, label: `${method}: shrinkage` });
        expect(result.spent).toBeUndefined();
      }
    });

    it.each(STORAGES)("are those of the definition, over several blocks of rows and columns, %s", async (storage) => {
      const [n, d] = [1100, 130];
      const x = tensorOf(normals(n, d), [n, d], storage);
      const values = valuesOf(x);
      const mean = Float64Array.from({ length: d }, (_, c) => {
        let sum = 0;
        for (let r = 0; r < n; r++) sum += values[r * d + c] ?? 0;
        return sum / n;
      });
      const truth = new Float64Array(d * d);
      for (let r = 0; r < n; r++) {
        for (let i = 0; i < d; i++) {
          for (let j = 0; j < d; j++)
            truth[i * d + j] =
              (truth[i * d + j] ?? 0) + (((values[r * d + i] ?? 0) - (mean[i] ?? 0)) * ((values[r * d + j] ?? 0) - (mean[j] ?? 0))) / n;
        }
      }
      const result = await resultOf(faces, { x });
      expectValues(result.covariance.data, truth, { abs: 1e-12, rel: 0 });
      expectValues(result.mean.data, mean, { abs: 1e-14, rel: 1e-12 });
    });

    it("of one sample are 0, and shrunk ones stay it", () => {
      const x = tensor(Float64Array.of(1, -2, 3), [1, 3]);
      for (const method of ["sample", "ledoit_wolf", "oas"] as const) {
        expect([...covarianceSync({ x, method }).covariance.data]).toEqual(new Array(9).fill(0));
      }
    });

    it("are symmetric and positive semidefinite", () => {
      const x = tensor(normals(6, 20), [6, 20]);
      for (const method of ["sample", "ledoit_wolf", "oas"] as const) {
        const result = covarianceSync({ x, method });
        for (let i = 0; i < 20; i++) for (let j = 0; j < i; j++) expect(result.covariance.data[i * 20 + j]).toBe(result.covariance.data[j * 20 + i]);
        expect(eigenvaluesOf(result)[0]).toBeGreaterThan(-1e-12);
      }
    });
  });

  describe("gaussianNoiseScale", () => {
    it.each(noiseScales)("is the calibration of 60 digits, and never below it: epsilon $epsilon, delta $delta", async ({ epsilon, delta, scale }) => {
      for (const sensitivity of [1, 0.25, 1e6]) {
        const actual = gaussianNoiseScaleSync({ epsilon, delta, sensitivity });
        expectValue(actual, scale * sensitivity, { abs: 0, rel: 1e-9 });
        expect(actual).toBeGreaterThanOrEqual(scale * sensitivity * (1 - 1e-10));
        expect(await gaussianNoiseScale({ epsilon, delta, sensitivity })).toBe(actual);
      }
    });

    it("falls with epsilon and with delta", () => {
      const of = (epsilon: number, delta: number): number => gaussianNoiseScaleSync({ epsilon, delta, sensitivity: 1 });
      for (const epsilon of [1e-3, 0.1, 1, 20]) expect(of(epsilon, 1e-6)).toBeGreaterThan(of(epsilon * 1.1, 1e-6));
      for (const delta of [1e-15, 1e-9, 1e-3, 0.5]) expect(of(1, delta)).toBeGreaterThan(of(1, delta * 1.5));
    });

    it("refuses what is out of range", () => {
      const good = { epsilon: 1, delta: 1e-6, sensitivity: 1 };
      const wrong = { epsilon: [0, -1, Number.NaN, Infinity], delta: [0, 1, -1, 2, Number.NaN], sensitivity: [0, -1, Number.NaN, Infinity] };
      for (const [name, values] of Object.entries(wrong)) {
        for (const value of values)
          expectThrows(() => gaussianNoiseScaleSync({ ...good, [name]: value }), { code: "ERR_RANGE", message: new RegExp(name) });
      }
    });
  });

  describe("private", () => {
    const privately = (x: Tensor, privacy: Partial<PrivacyOptions> = {}) =>
      covarianceSync({ x, method: "private", privacy: { ...PRIVACY, ...privacy } });

    it("states what was spent: sensitivity C² when a row is added or removed, √2·C² when one is replaced", () => {
      const x = tensor(normals(10, 3), [10, 3]);
      const replaced = privately(x, { clip: 3 }).spent;
      expect(replaced).toMatchObject({ epsilon: 1, delta: 1e-6, neighbours: "replace", sensitivity: 9 * Math.SQRT2 });
      expect(replaced?.noiseScale).toBe(gaussianNoiseScaleSync({ epsilon: 1, delta: 1e-6, sensitivity: 9 * Math.SQRT2 }));
      const added = privately(x, { clip: 3, neighbours: "add_or_remove", count: 12 }).spent;
      expect(added).toMatchObject({ neighbours: "add_or_remove", sensitivity: 9 });
      expect(added?.noiseScale).toBe(gaussianNoiseScaleSync({ epsilon: 1, delta: 1e-6, sensitivity: 9 }));
    });

    it("no pair of neighbours is farther apart than the stated sensitivity, and the worst is that far", () => {
      const sumOf = (rows: Float64Array, d: number): Float64Array => {
        // With ε this large the noise is far below what is looked at.
        const x = tensor(rows, [rows.length / d, d]);
        return privately(x, { clip: 2, epsilon: 1e24, delta: 0.5, count: 1 }).covariance.data;
      };
      let [farthestAdded, farthestReplaced] = [0, 0];
      for (let seed = 0; seed < 30; seed++) {
        const rows = normals(6, 3, seed, 3);
        const other = rows.slice();
        other.set(normals(1, 3, seed + 100, 3), 15);
        farthestAdded = Math.max(farthestAdded, frobenius(sumOf(rows, 3), sumOf(rows.slice(0, 15), 3)));
        farthestReplaced = Math.max(farthestReplaced, frobenius(sumOf(rows, 3), sumOf(other, 3)));
      }
      expect(farthestAdded).toBeLessThanOrEqual(4 * (1 + 1e-9));
      expect(farthestAdded).toBeGreaterThan(3.9);
      expect(farthestReplaced).toBeLessThanOrEqual(4 * Math.SQRT2 * (1 + 1e-9));
      const orthogonal = [Float64Array.of(9, 0), Float64Array.of(0, 9)].map((row) => sumOf(row, 2)) as [Float64Array, Float64Array];
      expectValue(frobenius(...orthogonal), 4 * Math.SQRT2, { abs: 0, rel: 1e-9 });
    });

    it("cuts rows to the length C, whatever their size, and leaves shorter ones", () => {
      const options = { clip: 1, epsilon: 1e24, delta: 0.5, count: 1 };
      for (const length of [1, 10, 1e160, 1e300]) {
        const { covariance: cut } = privately(tensor(Float64Array.of(0.6 * length, 0.8 * length), [1, 2]), options);
        expectValues(cut.data, [0.36, 0.48, 0.48, 0.64], { abs: 1e-9, rel: 0 });
      }
      const { covariance: kept } = privately(tensor(Float64Array.of(0.3, 0.4), [1, 2]), options);
      expectValues(kept.data, [0.09, 0.12, 0.12, 0.16], { abs: 1e-9, rel: 0 });
    });

    it("adds normal noise: σ on the diagonal, σ/√2 beside it, mirrored, uncorrelated", () => {
      // The data's own part keeps every eigenvalue above 0, so that none is cut and the noise is all that differs from it.
      const d = 12;
      const shift = 1e4;
      const rows = new Float64Array(d * d);
      for (let i = 0; i < d; i++) rows[i * d + i] = 1e9;
      const [diagonal, beside]: [number[], number[]] = [[], []];
      let product = 0;
      for (let seed = 0; seed < 120; seed++) {
        const { covariance: released, spent } = privately(tensor(rows, [d, d]), {
          clip: Math.sqrt(shift),
          epsilon: 1000,
          delta: 1e-5,
          count: 1,
          seed,
        });
        const sigma = spent?.noiseScale ?? Number.NaN;
        for (let i = 0; i < d; i++) {
          diagonal.push(((released.data[i * d + i] ?? 0) - shift) / sigma);
          for (let j = 0; j < i; j++) {
            expect(released.data[i * d + j]).toBe(released.data[j * d + i]);
            beside.push(((released.data[i * d + j] ?? 0) / sigma) * Math.SQRT2);
          }
        }
        product += (diagonal.at(-1) ?? 0) * (beside.at(-1) ?? 0);
      }
      expect(kolmogorovSmirnov(diagonal)).toBeLessThan(1.95);
      expect(kolmogorovSmirnov(beside)).toBeLessThan(1.95);
      expect(Math.abs(product) / Math.sqrt(120)).toBeLessThan(4);
    });

    it("is positive semidefinite where the noise is larger than the data", () => {
      const result = privately(tensor(normals(20, 15), [20, 15]), { epsilon: 0.1 });
      const values = eigenvaluesOf(result);
      expect(values[0]).toBeGreaterThanOrEqual(-1e-10 * (values.at(-1) ?? 0));
      expect(values.filter((value) => Math.abs(value) < 1e-9 * (values.at(-1) ?? 0)).length).toBeGreaterThan(3);
    });

    it("draws other noise with every call, and the same for a seed", () => {
      const x = tensor(normals(50, 4), [50, 4]);
      const secret = () => covarianceSync({ x, method: "private", privacy: { epsilon: 1, delta: 1e-6, clip: 1 } }).covariance.data;
      expect([...secret()]).not.toEqual([...secret()]);
      expectBitwiseEqual(privately(x, { seed: 7 }).covariance.data, privately(x, { seed: 7 }).covariance.data);
      expect([...privately(x, { seed: 7 }).covariance.data]).not.toEqual([...privately(x, { seed: 8 }).covariance.data]);
    });

    it("refuses options that promise nothing", () => {
      const x = tensor(normals(5, 2), [5, 2]);
      const refused = (args: Partial<CovarianceArgs>, message: RegExp) =>
        expectThrows(() => covarianceSync({ x, ...args }), { code: "ERR_RANGE", message });
      refused({ method: "private" }, /privacy/);
      refused({ method: "sample", privacy: PRIVACY }, /privacy/);
      refused({ method: "private", privacy: { ...PRIVACY, neighbours: "add_or_remove" } }, /count/);
      refused({ method: "private", privacy: { ...PRIVACY, neighbours: "any" as "replace" } }, /neighbours/);
      refused({ method: "private", privacy: { ...PRIVACY, clip: 0 } }, /clip/);
      refused({ method: "private", privacy: { ...PRIVACY, epsilon: -1 } }, /epsilon/);
      refused({ method: "private", privacy: { ...PRIVACY, delta: 1 } }, /delta/);
      refused({ method: "private", privacy: { ...PRIVACY, seed: -1 } }, /seed/);
      refused({ method: "private", privacy: { ...PRIVACY, count: Number.NaN } }, /count/);
    });
  });
}, ["covariance", "gaussianNoiseScale", "eigh"]);

describeBackends(() => {
  describe("as a Mahalanobis kernel", () => {
    const [d, n] = [4, 40];
    const rows = tensor(normals(n, d, 3), [n, d]);
    const [u, v] = [tensor(normals(3, d, 4), [3, d]), tensor(normals(3, d, 5), [3, d])];

    it("log k is −½(u − v)ᵀΣ⁻¹(u − v)", () => {
      const { covariance: sigma } = covarianceSync({ x: rows, method: "ledoit_wolf" });
      const { logK } = pairKernelSync({ u, v, kernel: kernels.mahalanobis({ covariance: sigma, normalize: false }) });
      const { values, vectors } = eighSync({ a: sigma });
      for (let r = 0; r < 3; r++) {
        let sum = 0;
        for (let k = 0; k < d; k++) {
          let along = 0;
          for (let i = 0; i < d; i++) along += (vectors.data[i * d + k] ?? 0) * ((u.data[r * d + i] ?? 0) - (v.data[r * d + i] ?? 0));
          sum += along ** 2 / (values.data[k] ?? 0);
        }
        expectValue(logK.data[r] ?? Number.NaN, -sum / 2, { abs: 1e-12, rel: 1e-11 });
      }
    });

    it("of a rank-deficient covariance is finite, by the jitter of cholesky", () => {
      const few = covarianceSync({ x: tensor(normals(2, d, 6), [2, d]) }).covariance;
      const { logK } = pairKernelSync({ u, v, kernel: kernels.mahalanobis({ covariance: few, normalize: false }) });
      for (const value of logK.data) expect(Number.isFinite(value)).toBe(true);
    });

    it("refuses a matrix that is not positive semidefinite, of another shape or dtype, and a factor beside it", () => {
      const indefinite = tensor(Float64Array.of(1, 2, 2, 1), [2, 2]);
      expectThrows(() => kernels.mahalanobis({ covariance: indefinite }), { code: "ERR_NOT_PSD" });
      expectThrows(() => kernels.mahalanobis({ covariance: tensor(new Float64Array(6), [2, 3]) }), { code: "ERR_SHAPE" });
      expectThrows(() => kernels.mahalanobis({ covariance: tensor(new Float32Array(4), [2, 2]) as unknown as Tensor<"f64"> }), {
        code: "ERR_SHAPE",
      });
      expectThrows(() => kernels.mahalanobis({ covariance: indefinite, factor: indefinite }), { code: "ERR_RANGE" });
    });
  });
});
