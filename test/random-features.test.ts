import {
  covarianceSync,
  featureError,
  featureErrorSync,
  gramSync,
  type Kernel,
  kernels,
  nystromSync,
  pairKernelSync,
  type RandomFeaturesArgs,
  randomFeatures,
  randomFeaturesSync,
  type Tensor,
  tensor,
} from "dpo-kernels";
import { describe, expect, it } from "vitest";
import { describeBackends, isSimulated } from "./support/backends.js";
import { expectBitwiseEqual, expectValue, expectValues } from "./support/bounds.js";
import { combinations, expectGradientOf, expectRefusal, expectValuesOf, resultOf, STORAGES, tensorOf, valuesOf } from "./support/cases.js";
import { expectFiniteDifferences } from "./support/finite-differences.js";
import { createRandom } from "./support/random.js";
import { loadFixture } from "./support/truth/fixtures.js";

const faces = { sync: randomFeaturesSync, async: randomFeatures };
const KINDS: Record<string, Partial<RandomFeaturesArgs> & { kernel: Kernel }> = {
  rbf: { kernel: kernels.rbf({ sigma: 1.5, normalize: false }) },
  "rbf, orthogonal": { kernel: kernels.rbf({ sigma: 1.5, normalize: false }), orthogonal: true },
  laplacian: { kernel: kernels.laplacian({ sigma: 2.5, normalize: false }) },
  "matern 0.5": { kernel: kernels.matern({ sigma: 2, nu: 0.5, normalize: false }) },
  "matern 1.5": { kernel: kernels.matern({ sigma: 2, nu: 1.5, normalize: false }) },
  "matern 2.5": { kernel: kernels.matern({ sigma: 2, nu: 2.5, normalize: false }) },
  "matern Infinity": { kernel: kernels.matern({ sigma: 2, nu: Infinity, normalize: false }) },
};
const SHAPES = [
  { n: 1, d: 1, r: 1 },
  { n: 5, d: 7, r: 3 },
  { n: 65, d: 6, r: 70 },
  { n: 130, d: 33, r: 5 },
];

/** Where each call takes long, and all sizes go the same way. */
const SMALL_SHAPES = [
  { n: 1, d: 1, r: 1 },
  { n: 9, d: 6, r: 10 },
];
const OWN_OPERATIONS = ["randomFrequencies", "randomFeatures", "randomFeaturesVjp"];

function rowsOf(n: number, d: number, seed = 1): Float64Array {
  return createRandom(seed).normals(n * d);
}

interface Inputs {
  readonly x: Float64Array;
  readonly w: Float64Array;
  readonly d: number;
  readonly normalize: boolean;
}

/** φ(x) from its formula. */
function featuresTruth({ x, w, d, normalize }: Inputs): Float64Array {
  const [n, r] = [x.length / d, w.length / d];
  const features = new Float64Array(n * 2 * r);
  for (let i = 0; i < n; i++) {
    const row = x.subarray(i * d, (i + 1) * d);
    const length = normalize ? Math.hypot(...row) : 1;
    for (let k = 0; k < r; k++) {
      let phase = 0;
      for (let c = 0; c < d; c++) phase += ((w[k * d + c] ?? 0) * (row[c] ?? 0)) / length;
      features[i * 2 * r + k] = Math.cos(phase) / Math.sqrt(r);
      features[i * 2 * r + r + k] = Math.sin(phase) / Math.sqrt(r);
    }
  }
  return features;
}

function inner(a: Float64Array, b: Float64Array): number {
  return a.reduce((sum, value, i) => sum + value * (b[i] ?? 0), 0);
}

/** k(x, y) as the features of this seed have it. */
function approximated(args: RandomFeaturesArgs, x: Tensor, y: Tensor): number {
  const features = randomFeaturesSync(args);
  return inner(features.transformSync(x).data as Float64Array, features.transformSync(y).data as Float64Array);
}

describeBackends((backend) => {
  describe("features", () => {
    it.each(combinations(SHAPES, STORAGES))("are [cos, sin] of the phases: $n x $d, $r, $storage", async ({ n, d, r, storage }) => {
      for (const normalize of [true, false]) {
        const features = randomFeaturesSync({ kernel: kernels.rbf({ sigma: 1.5, normalize }), frequencies: r, depth: d, seed: 3 });
        const x = tensorOf(rowsOf(n, d), [n, d], storage);
        const truth = featuresTruth({ x: valuesOf(x), w: features.frequencies.data, d, normalize });
        const actual = features.transformSync(x);
        expect(actual.shape).toEqual([n, features.width]);
        expectValuesOf(actual, truth, storage, "features");
        expectBitwiseEqual((await features.transform(x)).data, actual.data);
      }
    });

    it.each(isSimulated(backend) ? SMALL_SHAPES : SHAPES.slice(0, 3))(
      "have the gradients of finite differences in x, frequencies and sigma: $n x $d, $r",
      async ({ n, d, r }) => {
        for (const normalize of [true, false]) {
          const features = randomFeaturesSync({ kernel: kernels.rbf({ sigma: 1.5, normalize }), frequencies: r, depth: d, seed: 4 });
          const [x, upstream] = [rowsOf(n, d, 2), rowsOf(n, 2 * r, 3)];
          const given = { x: tensor(x, [n, d]), upstream: tensor(upstream, [n, 2 * r]) };
          const grads = features.transformVjpSync(given);
          const w = Float64Array.from(features.frequencies.data);
          expectFiniteDifferences((at) => inner(featuresTruth({ x: at, w, d, normalize }), upstream), x, grads.x.data as Float64Array);
          expectFiniteDifferences((at) => inner(featuresTruth({ x, w: at, d, normalize }), upstream), w, grads.frequencies.data);
          const ofSigma = (at: Float64Array) =>
            inner(featuresTruth({ x, w: w.map((value) => (value * 1.5) / (at[0] ?? 1)), d, normalize }), upstream);
          expectFiniteDifferences(ofSigma, Float64Array.of(1.5), Float64Array.of(grads.sigma));
          const again = await features.transformVjp(given);
          expectBitwiseEqual(again.x.data, grads.x.data);
          expectBitwiseEqual(again.frequencies.data, grads.frequencies.data);
        }
      },
    );

    it.each(STORAGES)("gradients over many blocks are those of their parts, %s", (storage) => {
      const [n, d, r] = [1100, 9, 80];
      const features = randomFeaturesSync({ kernel: kernels.rbf(), frequencies: r, depth: d });
      const x = tensorOf(rowsOf(n, d), [n, d], storage);
      const upstream = tensor(rowsOf(n, 2 * r, 5), [n, 2 * r]);
      const whole = features.transformVjpSync({ x, upstream });
      const sums = new Float64Array(r * d);
      for (const [begin, end] of [
        [0, 333],
        [333, 1100],
      ] as const) {
        const part = features.transformVjpSync({ x: x.rows(begin, end), upstream: upstream.rows(begin, end) });
        part.frequencies.data.forEach((value, i) => {
          sums[i] = (sums[i] ?? 0) + value;
        });
        expectBitwiseEqual(whole.x.rows(begin, end).data, part.x.data);
      }
      expectValues(whole.frequencies.data, sums, { abs: 1e-11, rel: 1e-11 });
    });

    it("φ(x)·φ(x) is 1", () => {
      const features = randomFeaturesSync({ kernel: kernels.rbf(), frequencies: 37, depth: 5 });
      const mapped = features.transformSync(tensor(rowsOf(20, 5), [20, 5])).data as Float64Array;
      for (let i = 0; i < 20; i++) {
        const row = mapped.subarray(i * 74, (i + 1) * 74);
        expectValue(inner(row, row), 1, { abs: 1e-14, rel: 0 });
      }
    });
  });

  describe("frequencies", () => {
    it.each(loadFixture("random_features").cases)("make what RBFSampler makes on average, with no greater error: $name", (given) => {
      const { n, d, expected, sigma, components } = given;
      const x = tensor(Float64Array.from(given.x), [n, d]);
      const kernel = kernels.rbf({ sigma, normalize: false });
      const seeds = 400;
      const [sums, squares] = [new Float64Array(n * n), new Float64Array(n * n)];
      for (let seed = 0; seed < seeds; seed++) {
        const features = valuesOf(randomFeaturesSync({ kernel, frequencies: components / 2, depth: d, seed }).transformSync(x));
        for (let i = 0; i < n; i++) {
          for (let j = 0; j < n; j++) {
            const product = inner(features.subarray(i * components, (i + 1) * components), features.subarray(j * components, (j + 1) * components));
            sums[i * n + j] = (sums[i * n + j] ?? 0) + product;
            squares[i * n + j] = (squares[i * n + j] ?? 0) + (product - (expected.kernel[i * n + j] ?? 0)) ** 2;
          }
        }
      }
      const rms = Math.sqrt(squares.reduce((sum, value) => sum + value, 0) / (seeds * n * n));
      // Of pairs (cos, sin) the variance is (½ + k(2δ)/2 − k²)/R, of cos(w·x + b) at equal width (½ + k(2δ)/4 − k²/2)/R.
      expect(rms).toBeLessThan(1.03 * expected.rms);
      expect(rms).toBeGreaterThan(0.5 * expected.rms);
      const standardError = expected.rms * Math.sqrt(1 / seeds + 1 / given.seeds);
      for (const [at, sum] of sums.entries()) expectValue(sum / seeds, expected.mean[at] ?? 0, { abs: 6 * standardError, rel: 0 });
    });

    it("orthogonal ones are so", () => {
      const [d, r] = [8, 20];
      const { frequencies } = randomFeaturesSync({ kernel: kernels.rbf({ sigma: 1 }), frequencies: r, depth: d, orthogonal: true, seed: 1 });
      const row = (k: number) => frequencies.data.subarray(k * d, (k + 1) * d);
      for (let a = 0; a < r; a++) {
        for (let b = 0; b < a; b++) if (Math.floor(a / d) === Math.floor(b / d)) expectValue(inner(row(a), row(b)), 0, { abs: 1e-12, rel: 0 });
      }
    });

    it("are the same for a seed and others for others, shrink with sigma, and go on where fewer end", async () => {
      const of = (args: Partial<RandomFeaturesArgs>) =>
        randomFeaturesSync({ kernel: kernels.rbf({ sigma: 1 }), frequencies: 6, depth: 4, ...args }).frequencies.data;
      expectBitwiseEqual(of({ seed: 5 }), of({ seed: 5 }));
      const asynchronous = await randomFeatures({ kernel: kernels.rbf({ sigma: 1 }), frequencies: 6, depth: 4, seed: 5 });
      expectBitwiseEqual(asynchronous.frequencies.data, of({ seed: 5 }));
      expect([...of({ seed: 5 })]).not.toEqual([...of({ seed: 6 })]);
      expectValues(
        of({ kernel: kernels.rbf({ sigma: 4 }) }),
        of({}).map((value) => value / 4),
        { abs: 0, rel: 1e-15 },
      );
      expectBitwiseEqual(of({ frequencies: 9 }).subarray(0, 24), of({}));
    });
  });

  it("refuse kernels without them, options out of range, rows of other widths, zeros and overflows", async () => {
    const good: RandomFeaturesArgs = { kernel: kernels.rbf(), frequencies: 4, depth: 3 };
    const wrong: [Partial<RandomFeaturesArgs>, RegExp][] = [
      [{ kernel: kernels.polynomial() }, /polynomial/],
      [{ kernel: kernels.hmk() }, /fit|mixture/],
      [{ kernel: kernels.laplacian(), orthogonal: true }, /orthogonal/],
      [{ frequencies: 0 }, /frequencies/],
      [{ depth: 1.5 }, /depth/],
      [{ seed: -1 }, /seed/],
    ];
    for (const [change, message] of wrong) await expectRefusal(faces, { ...good, ...change }, { code: "ERR_RANGE", message });
    const features = randomFeaturesSync(good);
    const transform = { sync: (x: Tensor) => features.transformSync(x), async: (x: Tensor) => features.transform(x) };
    await expectRefusal(transform, tensor(new Float64Array(8), [2, 4]), { code: "ERR_SHAPE" });
    await expectRefusal(transform, tensor(Float64Array.of(1, 2, 3, 0, 0, 0), [2, 3]), { code: "ERR_RANGE", message: /row 1/ });
    await expectRefusal(transform, tensor(Float64Array.of(1, 2, Number.NaN), [1, 3]), { code: "ERR_NONFINITE", index: 2 });
    const wide = randomFeaturesSync({ ...good, kernel: kernels.rbf({ sigma: 1e-10, normalize: false }) });
    expect(() => wide.transformSync(tensor(Float64Array.of(1e300, 0, 0), [1, 3]))).toThrow(expect.objectContaining({ code: "ERR_RANGE" }));
    const upstream = tensor(new Float64Array(8), [1, 8]);
    const grads = features.transformVjpSync({ x: tensor(Float64Array.of(1, 2, 3), [1, 3]), upstream });
    expectGradientOf(grads.x, [0, 0, 0], Float64Array.of(1, 1, 1), "of nothing");
  });
}, OWN_OPERATIONS);

describeBackends(() => {
  describe("frequencies", () => {
    it.each(Object.entries(KINDS))("are of the kernel's spectral density: %s", (_, args) => {
      const [seeds, r, d] = [400, 24, 3];
      const [x, y] = [tensor(Float64Array.of(0.3, -0.7, 1.1), [1, d]), tensor(Float64Array.of(-0.4, 0.2, 0.6), [1, d])];
      const k = Math.exp(pairKernelSync({ u: x, v: y, kernel: args.kernel }).logK.data[0] ?? Number.NaN);
      const estimates = Array.from({ length: seeds }, (_, seed) => approximated({ ...args, frequencies: r, depth: d, seed }, x, y));
      const mean = estimates.reduce((sum, value) => sum + value, 0) / seeds;
      const variance = estimates.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (seeds - 1);
      expect(Math.abs(mean - k)).toBeLessThan(5 * Math.sqrt(variance / seeds));
      if (args.orthogonal) return;
      // Var cos(w·δ) = (1 + k(2δ))/2 − k(δ)².
      const twice = tensor(Float64Array.of(-0.4 - 0.7, 0.2 + 0.9, 0.6 - 0.5), [1, d]);
      const k2 = Math.exp(pairKernelSync({ u: x, v: twice, kernel: args.kernel }).logK.data[0] ?? Number.NaN);
      const expected = ((1 + k2) / 2 - k * k) / r;
      expect(Math.abs(variance / expected - 1)).toBeLessThan(5 * Math.sqrt(2 / seeds));
    });

    it("orthogonal ones are as long as independent ones on average, and err less", () => {
      const d = 8;
      const x = tensor(rowsOf(60, d), [60, d]);
      const errors = (orthogonal: boolean): number => {
        let sum = 0;
        for (let seed = 0; seed < 20; seed++) {
          sum += featureErrorSync({
            features: randomFeaturesSync({ kernel: kernels.rbf({ sigma: 3, normalize: false }), frequencies: 64, depth: d, orthogonal, seed }),
            x,
          }).rms;
        }
        return sum;
      };
      expect(errors(true)).toBeLessThan(0.9 * errors(false));
      const lengths = covarianceSync({
        x: randomFeaturesSync({ kernel: kernels.rbf({ sigma: 1 }), frequencies: 4000, depth: d, orthogonal: true }).frequencies,
      });
      for (let i = 0; i < d; i++) expectValue(lengths.covariance.data[i * d + i] ?? 0, 1, { abs: 0.1, rel: 0 });
    });
  });

  describe("the error", () => {
    const x = tensor(rowsOf(120, 6, 9), [120, 6]);
    const kernel = kernels.rbf({ sigma: 2.5, normalize: false });

    it("is that of the definition, and the same from both faces", async () => {
      const features = randomFeaturesSync({ kernel, frequencies: 40, depth: 6 });
      const report = await resultOf({ sync: featureErrorSync, async: featureError }, { features, x });
      const [mapped, exact] = [features.transformSync(x).data as Float64Array, gramSync({ x, kernel, accuracy: "exact" }).data as Float64Array];
      let [squares, norm, max] = [0, 0, 0];
      for (let i = 0; i < 120; i++) {
        for (let j = 0; j < 120; j++) {
          const error = inner(mapped.subarray(i * 80, (i + 1) * 80), mapped.subarray(j * 80, (j + 1) * 80)) - (exact[i * 120 + j] ?? 0);
          squares += error ** 2;
          norm += (exact[i * 120 + j] ?? 0) ** 2;
          max = Math.max(max, Math.abs(error));
        }
      }
      expectValue(report.rms, Math.sqrt(squares) / 120, { abs: 1e-12, rel: 0 });
      expectValue(report.relative, Math.sqrt(squares / norm), { abs: 1e-12, rel: 0 });
      expectValue(report.max, max, { abs: 1e-12, rel: 0 });
      expect(report.rows).toBe(120);
      expect(featureErrorSync({ features, x, rows: 30 }).rows).toBe(30);
    });

    it("falls as 1/√R", () => {
      const mean = (frequencies: number): number => {
        let sum = 0;
        for (let seed = 0; seed < 12; seed++)
          sum += featureErrorSync({ features: randomFeaturesSync({ kernel, frequencies, depth: 6, seed }), x, rows: 60 }).rms;
        return sum / 12;
      };
      const slope = Math.log(mean(2048) / mean(32)) / Math.log(2048 / 32);
      expect(slope).toBeGreaterThan(-0.6);
      expect(slope).toBeLessThan(-0.4);
    });

    it("of Nyström features of all rows is 0 to rounding", () => {
      expect(featureErrorSync({ features: nystromSync({ x, kernel, landmarks: 120 }), x }).max).toBeLessThan(1e-6);
    });
  });

  it("are a cheap kernel, alone and in a mixture, with gradients", () => {
    const features = randomFeaturesSync({ kernel: kernels.rbf({ sigma: 1.2 }), frequencies: 50, depth: 6 });
    const [u, v] = [tensor(rowsOf(4, 6, 1), [4, 6]), tensor(rowsOf(4, 6, 2), [4, 6])];
    const { logK } = pairKernelSync({ u, v, kernel: kernels.features(features, { floor: 1e-9 }) });
    const [a, b] = [features.transformSync(u).data as Float64Array, features.transformSync(v).data as Float64Array];
    for (let i = 0; i < 4; i++) {
      const k = inner(a.subarray(i * 100, (i + 1) * 100), b.subarray(i * 100, (i + 1) * 100));
      if (k > 1e-3) expectValue(logK.data[i] ?? Number.NaN, Math.log(k), { abs: 1e-11, rel: 1e-11 });
    }
    const kernel = kernels.mixture({ cheap: kernels.features(features), rbf: kernels.rbf({ sigma: 1.2 }) });
    const upstream = Float64Array.of(1, -0.5, 0.25, 2);
    const { grads } = pairKernelSync({ u, v, kernel, upstream });
    const loss = (at: Float64Array) => inner(Float64Array.from(pairKernelSync({ u: tensor(at, [4, 6]), v, kernel }).logK.data), upstream);
    expectFiniteDifferences(loss, Float64Array.from(u.data), grads?.u.data as Float64Array);
  });
});
