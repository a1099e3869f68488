import {
  eighSync,
  type FeaturesOut,
  type FeaturesVjpArgs,
  type FeaturesVjpOut,
  FormulaKernel,
  gramSync,
  type Kernel,
  kernels,
  type LandmarkMethod,
  type NystromArgs,
  type NystromFeatures,
  nystrom,
  nystromSync,
  pairKernelSync,
  type Tensor,
  tensor,
  threads,
  useThreads,
} from "dpo-kernels";
import { afterEach, describe, expect, it } from "vitest";
import { describeBackends, isSimulating } from "./support/backends.js";
import { expectBitwiseEqual, expectValues } from "./support/bounds.js";
import { combinations, expectRefusal, expectSameResults, rowsAt, STORAGES, tensorOf, valuesOf, WIDE_STORAGES } from "./support/cases.js";
import { expectFiniteDifferences } from "./support/finite-differences.js";
import { KERNEL_CASES, MIXTURE_CASES } from "./support/kernel-cases.js";
import { describeCall } from "./support/laws.js";
import { createRandom } from "./support/random.js";
import type { Storage } from "./support/storage.js";
import { loadFixture } from "./support/truth/fixtures.js";
import { at, dot, type Numbers, row } from "./support/truth/numbers.js";

const METHODS: readonly LandmarkMethod[] = ["uniform", "kmeans++", "leverage"];
const faces = { sync: nystromSync, async: nystrom };

/** Kernels of which Gram matrices are positive semi-definite; not those continued past their floor, nor mixtures that have such a member. */
const DEFINITE = [...KERNEL_CASES, ...MIXTURE_CASES].filter(({ name }) => !/wavelet|both signs|fourier|every kind|uneven/.test(name));

function samples(n: number, d: number, storage: Storage = "f64", seed = 1): Tensor {
  return tensorOf(createRandom(seed + 100 * n + d).normals(n * d), [n, d], storage);
}

/** What can be compared of features. */
function partsOf({ landmarks, eigenvalues, projection }: NystromFeatures) {
  return { landmarks, eigenvalues, projection };
}

/** [N, M] of φ(x)·φ(y). */
function products(a: Tensor, b: Tensor = a): Float64Array {
  const [n = 0, width = 0] = a.shape;
  const [m = 0] = b.shape;
  const [left, right] = [valuesOf(a), valuesOf(b)];
  return Float64Array.from({ length: n * m }, (_, index) => dot(row(left, Math.floor(index / m), width), row(right, index % m, width)));
}

/** Which rows the landmarks are, for a kernel that does not normalise. */
function indicesOf({ landmarks }: NystromFeatures, x: Tensor): number[] {
  const [[n = 0, width = 0], [m = 0]] = [x.shape, landmarks.shape];
  const rows = new Map(Array.from({ length: n }, (_, i) => [row(valuesOf(x), i, width).join(), i]));
  return Array.from({ length: m }, (_, j) => rows.get(row(landmarks.data, j, width).join()) ?? Number.NaN);
}

function largest(values: Numbers): number {
  return Array.from(values).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

function sum(values: Numbers): number {
  return Array.from(values).reduce((total, value) => total + value, 0);
}

/** Pearson's statistic of counts against what is expected of them. */
function chiSquare(counts: Numbers, expected: Numbers): number {
  return sum(Array.from(counts, (count, i) => (count - at(expected, i)) ** 2 / at(expected, i)));
}

function distance(a: Numbers, b: Numbers): number {
  return Math.sqrt(sum(Array.from(a, (value, i) => (value - at(b, i)) ** 2)));
}

/** Clusters 20 apart, each of as many rows as told, this far from their middle. */
function clusters(sizes: readonly number[], deviation = 0.1): { x: Tensor; clusterOf: (index: number) => number } {
  const random = createRandom(1);
  const labels = sizes.flatMap((size, cluster) => new Array<number>(size).fill(cluster));
  const values = labels.flatMap((cluster) => sizes.map((_, axis) => (axis === cluster ? 20 : 0) + random.normal(0, deviation)));
  return { x: tensorOf(values, [labels.length, sizes.length], "f64"), clusterOf: (index) => at(labels, index) };
}

const plain = kernels.rbf({ sigma: 1, normalize: false });

describeBackends(() => {
  describe("features", () => {
    it.each(combinations(loadFixture("nystrom").cases, WIDE_STORAGES))("have scikit-learn's inner products: $name, $storage", async (one) => {
      const x = tensorOf(one.x, [one.n, one.d], one.storage);
      const kernel = kernels[one.kernel](one.options);
      const map = nystromSync({ x: rowsAt(x, one.landmarks), kernel, landmarks: one.m });
      expect(map.width).toBe(one.m);
      const features = map.transformSync(x);
      expect([features.dtype, features.shape]).toEqual([one.storage, [one.n, one.m]]);
      expectSameResults(await map.transform(x), features);
      const scale = largest(one.expected.products);
      expectValues(products(features), one.expected.products, { abs: (one.storage === "f64" ? 1e-11 : 1e-6) * scale, rel: 0 });
    });

    it.each(combinations(DEFINITE, STORAGES))("are exact where one row is a landmark: $name, $storage", async ({ make, storage }) => {
      for (const normalize of [true, false]) {
        const kernel = make({ depth: 4, normalize });
        const x = samples(30, 4, storage);
        const map = nystromSync({ x, kernel, landmarks: 8, method: "kmeans++" });
        expectSameResults(partsOf(await nystrom({ x, kernel, landmarks: 8, method: "kmeans++" })), partsOf(map));
        const rows = tensorOf(valuesOf(x), x.shape, storage === "f64" ? "f64" : "f32");
        const [features, ofLandmarks] = [map.transformSync(rows), map.transformSync(map.landmarks)];
        const exact = gramSync({ x: tensorOf(valuesOf(rows), x.shape, "f64"), y: map.landmarks, kernel, accuracy: "exact" }).data;
        // √r² of rows that are landmarks is 1e-8 where r² has been left as 1e-16 by norms and products.
        expectValues(products(features, ofLandmarks), exact, { abs: (storage === "f64" ? 1e-7 : 1e-6) * largest(exact), rel: 0 });
      }
    });

    it.each(combinations(DEFINITE, WIDE_STORAGES))("of all rows as landmarks give the Gram matrix: $name, $storage", ({ make, storage }) => {
      for (const method of METHODS) {
        const kernel = make({ depth: 3, normalize: true });
        const x = samples(12, 3, storage);
        const features = nystromSync({ x, kernel, landmarks: 12, method }).transformSync(x);
        const exact = gramSync({ x: tensorOf(valuesOf(x), x.shape, "f64"), kernel, accuracy: "exact" }).data;
        expectValues(products(features), exact, { abs: (storage === "f64" ? 1e-7 : 1e-6) * largest(exact), rel: 0 });
      }
    });

    it("keep their digits in f32 where the kernel is so smooth that eigenvalues fade to rounding", () => {
      const kernel = kernels.rbf({ sigma: 4, normalize: false });
      const x = samples(120, 2, "f32");
      const map = nystromSync({ x, kernel, landmarks: 60 });
      expect(at(map.eigenvalues.data, map.width - 1) / at(map.eigenvalues.data, 0)).toBeLessThan(1e-12);
      const exact = gramSync({ x: tensorOf(valuesOf(x), x.shape, "f64"), kernel }).data;
      expectValues(products(map.transformSync(x)), exact, { abs: 1e-6, rel: 0 });
    });

    it("are made of the leading eigenvectors of the landmarks' Gram matrix", () => {
      const x = samples(40, 3);
      const { landmarks, eigenvalues, projection } = nystromSync({ x, kernel: plain, landmarks: 10 });
      const { values } = eighSync({ a: gramSync({ x: landmarks, kernel: plain }) });
      expectValues(eigenvalues.data, Array.from(values.data).reverse(), { abs: 1e-13, rel: 1e-12 });
      // P·K·Pᵀ = I
      const k = gramSync({ x: landmarks, kernel: plain }).data;
      const pk = Float64Array.from({ length: 100 }, (_, index) => {
        const column = Float64Array.from({ length: 10 }, (__, i) => at(k, i * 10 + (index % 10)));
        return dot(row(projection.data, Math.floor(index / 10), 10), column);
      });
      const pkp = products(tensor(pk, [10, 10]), projection);
      expectValues(
        pkp,
        Float64Array.from({ length: 100 }, (_, index) => (index % 11 === 0 ? 1 : 0)),
        { abs: 1e-10, rel: 0 },
      );
    });

    it.each(
      combinations(
        [
          { name: "rbf", kernel: plain },
          { name: "polynomial", kernel: kernels.polynomial() },
        ],
        WIDE_STORAGES,
      ),
    )("of one row and one landmark are √k: $name, $storage", ({ kernel, storage }) => {
      const x = samples(1, 3, storage);
      for (const method of METHODS) {
        const map = nystromSync({ x, kernel, landmarks: 1, method });
        const features = map.transformSync(x);
        expect(features.shape).toEqual([1, 1]);
        expectValues(products(features), gramSync({ x, kernel }).data, storage === "f64" ? { abs: 0, rel: 1e-14 } : { abs: 0, rel: 1e-6 });
      }
    });

    it.each(DEFINITE.filter(({ name }) => /^(rbf|laplacian|matern .*|rational_quadratic)$/.test(name)))(
      "are as many as there are different landmarks: $name",
      ({ make }) => {
        for (const normalize of [true, false]) {
          const kernel = make({ depth: 5, normalize });
          const x = rowsAt(
            samples(4, 5),
            Array.from({ length: 20 }, (_, i) => i % 4),
          );
          for (const method of METHODS) {
            const map = nystromSync({ x, kernel, landmarks: 11, method });
            expect(map.landmarks.shape).toEqual([11, 5]);
            // Each row is there five times, so eleven landmarks are at least three different ones.
            const different = new Set(Array.from({ length: 11 }, (_, j) => row(map.landmarks.data, j, 5).join())).size;
            expect(different).toBe(method === "kmeans++" ? 4 : Math.max(3, different));
            expect(map.width).toBe(different);
            const features = map.transformSync(x);
            expect(features.data.every(Number.isFinite)).toBe(true);
            if (different === 4) expectValues(products(features), gramSync({ x, kernel, accuracy: "exact" }).data, { abs: 1e-7, rel: 0 });
          }
        }
      },
    );

    it("of rows that differ by rounding only are finite too", () => {
      const base = samples(3, 4);
      const random = createRandom(5);
      const x = tensorOf(
        Array.from({ length: 48 }, (_, i) => at(base.data, i % 12) * (1 + 1e-15 * random.normal())),
        [12, 4],
        "f64",
      );
      for (const kernel of [plain, kernels.matern({ nu: 0.5 }), kernels.laplacian()]) {
        const features = nystromSync({ x, kernel, landmarks: 12 }).transformSync(x);
        expectValues(products(features), gramSync({ x, kernel, accuracy: "exact" }).data, { abs: 1e-6, rel: 0 });
      }
    });

    it("stay as small as the kernel where it is not positive semi-definite", () => {
      const indefinite = [kernels.polynomial({ normalize: false }), kernels.wavelet({ sigma: 0.5, normalize: false })];
      const x = tensorOf(createRandom(3).uniforms(600, -1, 1), [200, 3], "f64");
      for (const kernel of indefinite) {
        const exact = gramSync({ x, kernel }).data;
        const landmarks = 60;
        const map = nystromSync({ x, kernel, landmarks });
        const { values } = eighSync({ a: gramSync({ x: map.landmarks, kernel }) });
        expect(at(values.data, 0), "the case is one").toBeLessThan(-1e-6);
        expect(at(map.eigenvalues.data, map.width - 1)).toBeGreaterThan(-at(values.data, 0));
        expect(largest(products(map.transformSync(x)))).toBeLessThan(1.5 * largest(exact));
      }
    });

    it.each([1, 3, 6])("are at most `rank`, the leading ones: %d", (rank) => {
      const x = samples(25, 3);
      const [all, some] = [{}, { rank }].map((options) => nystromSync({ x, kernel: plain, landmarks: 9, seed: 4, ...options })) as [
        NystromFeatures,
        NystromFeatures,
      ];
      expect([all.width, some.width]).toEqual([9, rank]);
      expectBitwiseEqual(some.landmarks.data, all.landmarks.data);
      expectBitwiseEqual(some.eigenvalues.data, all.eigenvalues.data.subarray(0, rank));
      const [wide, narrow] = [all.transformSync(x).data, some.transformSync(x).data];
      expectValues(
        narrow,
        Float64Array.from(narrow, (_, i) => at(wide, Math.floor(i / rank) * 9 + (i % rank))),
        { abs: 1e-13, rel: 1e-12 },
      );
    });

    it("are fewer than `rank` where the kernel has no more", () => {
      const x = samples(30, 2);
      const map = nystromSync({ x, kernel: kernels.polynomial({ degree: 2, coef0: 20, normalize: false }), landmarks: 20, rank: 15 });
      expect(map.width).toBe(6); // 1, x, y, x², xy, y²
      const exact = gramSync({ x, kernel: map.kernel }).data;
      expectValues(products(map.transformSync(x)), exact, { abs: 1e-9 * largest(exact), rel: 0 });
    });

    it.each(METHODS)("of more landmarks are nearer to the Gram matrix of clustered data: %s", (method) => {
      const random = createRandom(8);
      const middles = random.normals(10 * 6, 0, 2);
      const x = tensorOf(
        Array.from({ length: 120 * 6 }, (_, i) => at(middles, (Math.floor(i / 6) % 10) * 6 + (i % 6)) + 0.3 * random.normal()),
        [120, 6],
        "f64",
      );
      const kernel = kernels.rbf({ sigma: 3, normalize: false });
      const exact = gramSync({ x, kernel }).data;
      const errorOf = (landmarks: number, seed: number) =>
        distance(products(nystromSync({ x, kernel, landmarks, method, seed }).transformSync(x)), exact) / 120;
      const errors = [3, 10, 30, 70, 120].map((landmarks) => sum([0, 1, 2].map((seed) => errorOf(landmarks, seed) / 3)));
      for (let i = 1; i < errors.length; i++) expect(errors[i], String(errors)).toBeLessThan(errors[i - 1] ?? 0);
      // As many landmarks as there are clusters, one in each.
      if (method === "kmeans++") expect(errors[1]).toBeLessThan(0.1);
      expect(errors.at(-1)).toBeLessThan(1e-8);
    });
  });

  describe("landmarks", () => {
    it.each(
      combinations(
        METHODS.map((method) => ({ method })),
        STORAGES,
      ),
    )("are different rows of x, the same for the same seed: $method, $storage", ({ method, storage }) => {
      const x = samples(50, 3, storage);
      const chosen = Array.from({ length: 12 }, (_, seed) => {
        const map = nystromSync({ x, kernel: plain, landmarks: 7, method, seed });
        const indices = indicesOf(map, x);
        expect(
          indices.every((index) => index >= 0 && index < 50),
          String(indices),
        ).toBe(true);
        expect(new Set(indices).size).toBe(7);
        expectSameResults(partsOf(nystromSync({ x, kernel: plain, landmarks: 7, method, seed })), partsOf(map));
        return indices.join();
      });
      expect(new Set(chosen).size).toBe(12);
      expect(indicesOf(nystromSync({ x, kernel: plain, landmarks: 7, method }), x).join()).toBe(chosen[0]);
    });

    it("are divided by their lengths where the kernel normalises", () => {
      const x = samples(20, 4);
      const { landmarks } = nystromSync({ x, kernel: kernels.rbf(), landmarks: 6 });
      for (let j = 0; j < 6; j++) expect(Math.hypot(...row(landmarks.data, j, 4))).toBeCloseTo(1, 14);
    });

    it("take all the bits of a seed", () => {
      const x = samples(50, 3);
      const of = (seed: number) => indicesOf(nystromSync({ x, kernel: plain, landmarks: 5, seed }), x).join();
      expect(new Set([0, 1, 2 ** 31, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER].map(of)).size).toBe(6);
    });

    it("by uniform are uniform, and so is each place among them", () => {
      const [n, m, draws] = [12, 4, 2400];
      const x = samples(n, 2);
      const [together, first, last] = [0, 0, 0].map(() => new Float64Array(n)) as [Float64Array, Float64Array, Float64Array];
      const count = (counts: Float64Array, index = 0) => {
        counts[index] = at(counts, index) + 1;
      };
      for (let seed = 0; seed < draws; seed++) {
        const indices = indicesOf(nystromSync({ x, kernel: plain, landmarks: m, seed }), x);
        for (const index of indices) count(together, index);
        count(first, indices[0]);
        count(last, indices.at(-1));
      }
      const evenly = (total: number) => new Float64Array(n).fill(total / n);
      // Drawn without replacement, counts vary less. Of 11 degrees of freedom, 31.3 is passed and 1.8 not reached by one in a thousand.
      for (const statistic of [
        chiSquare(together, evenly(draws * m)) / ((n - m) / (n - 1)),
        chiSquare(first, evenly(draws)),
        chiSquare(last, evenly(draws)),
      ]) {
        expect(statistic).toBeLessThan(31.3);
        expect(statistic).toBeGreaterThan(1.8);
      }
    });

    it("by kmeans++ follow squared distances", () => {
      const [places, draws] = [[0, 1, 3, 4.5], 3000];
      const x = tensorOf(places, [4, 1], "f64");
      const expected = places.flatMap((from) => {
        const squared = places.map((to) => (to - from) ** 2);
        return squared.map((value) => (draws * value) / sum(squared) / 4);
      });
      const counts = new Float64Array(16);
      for (let seed = 0; seed < draws; seed++) {
        const [first = 0, second = 0] = indicesOf(nystromSync({ x, kernel: plain, landmarks: 2, method: "kmeans++", seed }), x);
        counts[4 * first + second] = at(counts, 4 * first + second) + 1;
      }
      const pairs = Array.from({ length: 16 }, (_, pair) => pair).filter((pair) => pair % 5 !== 0);
      for (const pair of [0, 5, 10, 15]) expect(counts[pair]).toBe(0);
      const statistic = chiSquare(
        pairs.map((pair) => at(counts, pair)),
        pairs.map((pair) => at(expected, pair)),
      );
      expect(statistic).toBeLessThan(31.3);
    });

    it("by kmeans++ hit every cluster, however small, where uniform ones do not", () => {
      const { x, clusterOf } = clusters([95, 1, 1, 1, 1, 1]);
      const hits = (method: LandmarkMethod, seed: number) =>
        new Set(indicesOf(nystromSync({ x, kernel: plain, landmarks: 6, method, seed }), x).map(clusterOf)).size;
      for (let seed = 0; seed < 40; seed++) {
        expect(hits("kmeans++", seed)).toBe(6);
        expect(hits("uniform", seed)).toBeLessThan(6);
      }
    });

    it("by leverage prefer rows outside the bulk", () => {
      // Rows of the bulk that are all the same weigh as much as one.
      for (const [deviation, least] of [
        [0, 0.9],
        [0.1, 0.5],
      ] as const) {
        const { x, clusterOf } = clusters([95, 1, 1, 1, 1, 1], deviation);
        const outside = (method: LandmarkMethod) =>
          sum(
            Array.from({ length: 40 }, (_, seed) => {
              const indices = indicesOf(nystromSync({ x, kernel: plain, landmarks: 8, method, seed }), x);
              return indices.filter((index) => clusterOf(index) > 0).length / 5 / 40;
            }),
          );
        expect(outside("leverage")).toBeGreaterThan(least);
        expect(outside("uniform")).toBeLessThan(0.2);
      }
    });

    it("by leverage follow ridge-leverage scores", () => {
      const [n, draws] = [6, 3000];
      const x = tensorOf([0, 0.1, 0.2, 1.5, 3, 3.1], [n, 1], "f64");
      const { values, vectors } = eighSync({ a: gramSync({ x, kernel: plain }) });
      // One landmark: the ridge is all but the largest eigenvalue.
      const ridge = sum(values.data.subarray(0, n - 1));
      const scores = Array.from({ length: n }, (_, i) =>
        sum(Array.from(values.data, (value, k) => (at(vectors.data, i * n + k) ** 2 * value) / (value + ridge))),
      );
      const counts = new Float64Array(n);
      for (let seed = 0; seed < draws; seed++) {
        const [index = 0] = indicesOf(nystromSync({ x, kernel: plain, landmarks: 1, method: "leverage", seed }), x);
        counts[index] = at(counts, index) + 1;
      }
      expect(Math.max(...scores) / Math.min(...scores)).toBeGreaterThan(1.2);
      // Of 5 degrees of freedom.
      expect(
        chiSquare(
          counts,
          scores.map((score) => (draws * score) / sum(scores)),
        ),
      ).toBeLessThan(20.5);
    });

    it("by leverage come from at most 1024 evenly spaced rows", async () => {
      const x = tensorOf(createRandom(2).normals(1536), [1536, 1], "f64");
      await expectRefusal(faces, { x, kernel: plain, landmarks: 1025, method: "leverage" }, { code: "ERR_RANGE", message: /^landmarks:.*1024/ });
      x.data[3 * 200] = 0;
      const args: NystromArgs = { x, kernel: kernels.rbf(), landmarks: 2, method: "leverage" };
      await expectRefusal(faces, args, { code: "ERR_RANGE", message: /^x: row 600 is zero/, index: 600 });
      x.data[3 * 200] = Number.NaN;
      await expectRefusal(faces, args, { code: "ERR_NONFINITE", message: /^x: element 600/, index: 600 });
      x.data[3 * 200] = 1;
      x.data[3 * 200 + 2] = Number.NaN; // not looked at
      const indices = indicesOf(nystromSync({ x, kernel: plain, landmarks: 30, method: "leverage" }), x);
      expect(indices.every((index) => index % 3 < 2)).toBe(true);
    });

    it("are the same on any number of threads", () => {
      const usual = threads();
      const x = samples(isSimulating() ? 150 : 600, 5, "f32");
      for (const method of METHODS) {
        const args: NystromArgs = { x, kernel: kernels.matern(), landmarks: 20, method };
        const first = partsOf(nystromSync(args));
        for (const count of [1, 2, 3]) {
          useThreads(count);
          expectSameResults(partsOf(nystromSync(args)), first, `${method}, ${count} threads`);
        }
        useThreads(usual);
      }
    });
  });

  describe("transformVjp", () => {
    it.each(DEFINITE)("agrees with finite differences, through normalisation too: $name", ({ make }) => {
      for (const normalize of [true, false]) {
        const kernel = make({ depth: 3, normalize });
        const map = nystromSync({ x: samples(9, 3), kernel, landmarks: 5, rank: 3 });
        const x = samples(4, 3, "f64", 77);
        const upstream = tensorOf(createRandom(6).normals(4 * map.width), [4, map.width], "f64");
        const { x: gradient } = map.transformVjpSync({ x, upstream });
        const loss = (values: Float64Array) => dot(map.transformSync(tensor(values, x.shape)).data, upstream.data);
        expectFiniteDifferences(loss, x.data, gradient.data, { step: 2 ** -8, floor: 1e-7, label: `normalize ${normalize}` });
      }
    });

    it("in f32 is that in f64, rounded once, and so are the features", async () => {
      const map = nystromSync({ x: samples(40, 3), kernel: kernels.rbf({ sigma: 3 }), landmarks: 20 });
      const x = samples(10, 3, "f32");
      const wide = tensorOf(x.data, x.shape, "f64");
      expectBitwiseEqual(map.transformSync(x).data, Float32Array.from(map.transformSync(wide).data));
      for (const storage of WIDE_STORAGES) {
        const upstream = tensorOf(createRandom(4).normals(10 * map.width), [10, map.width], storage);
        const [narrow, exact] = [map.transformVjpSync({ x, upstream }).x, map.transformVjpSync({ x: wide, upstream }).x];
        expect(narrow.dtype).toBe("f32");
        expectBitwiseEqual(narrow.data, Float32Array.from(exact.data));
        expectSameResults(await map.transformVjp({ x, upstream }), { x: narrow });
      }
    });
  });

  describe("kernels.features", () => {
    const base = kernels.rbf({ sigma: 1.2 });
    const map = () => nystromSync({ x: samples(40, 4), kernel: base, landmarks: 12, rank: 6, method: "kmeans++" });
    // Near enough that φ(u)·φ(v) stays above its floor.
    const u = samples(5, 4, "f64", 11);
    const v = tensorOf(
      Array.from(u.data, (value, i) => value + 0.3 * Math.sin(i)),
      u.shape,
      "f64",
    );

    it.each(WIDE_STORAGES)("is φ(u)·φ(v): %s", (storage) => {
      const features = map();
      const [left, right] = [u, v].map((rows) => tensorOf(rows.data, rows.shape, storage)) as [Tensor, Tensor];
      const [phiU, phiV] = [left, right].map((rows) => features.transformSync(tensorOf(rows.data, rows.shape, "f64"))) as [Tensor, Tensor];
      const inner = (a: Tensor, b: Tensor) =>
        Float64Array.from({ length: 5 }, (_, i) => dot(row(a.data, i, features.width), row(b.data, i, features.width)));
      const bounds = storage === "f64" ? { abs: 1e-12, rel: 1e-12 } : {};
      const { logK } = pairKernelSync({ u: left, v: right, kernel: kernels.features(features) });
      expectValues(logK.data, inner(phiU, phiV).map(Math.log), bounds);
      const unit = pairKernelSync({ u: left, v: right, kernel: kernels.features(features, { unitDiagonal: true }) });
      const own = [inner(phiU, phiU), inner(phiV, phiV)];
      expectValues(
        unit.logK.data,
        inner(phiU, phiV).map((value, i) => Math.log(value / Math.sqrt(at(own[0] ?? [], i) * at(own[1] ?? [], i)))),
        bounds,
      );
    });

    it.each(["uniform", "kmeans++"] as const)("of many landmarks is near the kernel itself: %s", (method) => {
      const features = nystromSync({ x: samples(400, 4), kernel: base, landmarks: 150, method });
      for (const storage of WIDE_STORAGES) {
        const [left, right] = [u, v].map((rows) => tensorOf(rows.data, rows.shape, storage)) as [Tensor, Tensor];
        const truth = pairKernelSync({ u, v, kernel: base }).logK.data;
        expectValues(pairKernelSync({ u: left, v: right, kernel: kernels.features(features) }).logK.data, truth, { abs: 1e-4, rel: 0 });
      }
    });

    it.each([true, false])("as a member of a mixture has the gradients of finite differences: unitDiagonal %s", (unitDiagonal) => {
      const mixture = kernels.mixture({ near: kernels.laplacian(), cheap: kernels.features(map(), { unitDiagonal }) }, { weights: [1, 2] });
      const upstream = Float64Array.of(1, -0.5, 2, 0.75, -1);
      const { grads } = pairKernelSync({ u, v, kernel: mixture, upstream });
      const loss = (sides: { u: Tensor; v: Tensor }) => dot(pairKernelSync({ ...sides, kernel: mixture }).logK.data, upstream);
      const options = { step: 2 ** -8, floor: 1e-8 };
      expectFiniteDifferences((values) => loss({ u: tensor(values, u.shape), v }), u.data, grads?.u.data ?? [], { ...options, label: "u" });
      expectFiniteDifferences((values) => loss({ u, v: tensor(values, v.shape) }), v.data, grads?.v.data ?? [], { ...options, label: "v" });
      expect(Object.keys(grads?.params ?? {}).sort()).toEqual(["cheap/lambdas", "logits", "near/sigma"]);
      for (const [name, parameter] of Object.entries(mixture.parameters)) {
        const before = parameter.data.slice();
        const at = (values: Float64Array): number => {
          parameter.data.set(values);
          return loss({ u, v });
        };
        expectFiniteDifferences(at, before, grads?.params[name]?.data ?? [], { step: 2 ** -6, floor: 1e-8, label: name });
        parameter.data.set(before);
      }
      const { diagnostics } = pairKernelSync({ u, v, kernel: mixture, upstream });
      expect(Object.keys(diagnostics?.weights ?? {})).toEqual(["near", "cheap"]);
    });

    it("refuses kernels that no spectral kernel can be based on", () => {
      const maker = { mahalanobis: kernels.mahalanobis({ factor: tensor(Float64Array.of(1, 1, 1, 1), [4]) }), mixture: kernels.mixture({ base }) };
      for (const kernel of Object.values(maker)) {
        const features = nystromSync({ x: samples(9, 4), kernel, landmarks: 3 });
        expect(() => kernels.features(features)).toThrow(expect.objectContaining({ code: "ERR_RANGE" }));
      }
    });
  });

  describe("refusals", () => {
    const x = () => samples(6, 3);

    it("of too many landmarks, a zero row that would be normalised, and 16-bit rows to transform", async () => {
      await expectRefusal(
        faces,
        { x: x(), kernel: plain, landmarks: 7 },
        { code: "ERR_RANGE", message: /^landmarks: expected a whole number from 1 to 6, got 7/ },
      );
      const zero = x();
      zero.data.fill(0, 6, 9);
      await expectRefusal(faces, { x: zero, kernel: kernels.rbf(), landmarks: 2 }, { code: "ERR_RANGE", message: /^x: row 2 is zero/, index: 6 });
      expect(nystromSync({ x: zero, kernel: plain, landmarks: 2 }).width).toBe(2);
      const map = nystromSync({ x: x(), kernel: kernels.rbf(), landmarks: 2 });
      expect(() => map.transformSync(zero)).toThrow(expect.objectContaining({ code: "ERR_RANGE", index: 6 }));
      for (const storage of ["f16", "bf16"] as const) {
        const rows = samples(6, 3, storage);
        const upstream = tensorOf(new Float64Array(12), [6, 2], "f32");
        const error = expect.objectContaining({ code: "ERR_DTYPE", message: `x: expected f32 or f64, got ${storage}` });
        expect(() => map.transformSync(rows)).toThrow(error);
        expect(() => map.transformVjpSync({ x: rows, upstream })).toThrow(error);
        await expect(map.transform(rows)).rejects.toThrow(error);
      }
      expect(() => map.transformSync(samples(2, 4))).toThrow(
        expect.objectContaining({ code: "ERR_SHAPE", message: "x: expected rows of 3 numbers, got 4" }),
      );
    });

    it("of a kernel whose values all underflow", async () => {
      const kernel = kernels.polynomial({ degree: 400, coef0: 0, normalize: false });
      const tiny = tensorOf([1e-3, 2e-3, 1e-3], [3, 1], "f64");
      await expectRefusal(faces, { x: tiny, kernel: kernel as Kernel, landmarks: 2 }, { code: "ERR_RANGE", message: /^kernel:/ });
    });

    it("of a kernel with parts that are still to be taken from data", async () => {
      for (const kernel of [kernels.spectral(), kernels.hmk(), kernels.mahalanobis()]) {
        await expectRefusal(faces, { x: x(), kernel, landmarks: 2 }, { code: "ERR_RANGE", message: /fitKernel/ });
      }
    });
  });

  it("belong to a kernel that keeps them", () => {
    const features = nystromSync({ x: samples(9, 4), kernel: plain, landmarks: 3 });
    const member = kernels.features(features);
    expect(member).toBeInstanceOf(FormulaKernel);
    expect([member.fitted, member.width, member.base, member.normalize]).toEqual([true, 4, plain, false]);
    expectBitwiseEqual(member.parameters.lambdas?.data ?? [], [1, 1, 1]);
  });

  const map = nystromSync({ x: samples(40, 6), kernel: kernels.rbf(), landmarks: 20 });
  const usual = threads();
  afterEach(() => void useThreads(usual));
  describeCall({
    name: "transform",
    faces: {
      sync: ({ x }: { x: Tensor }, options?: FeaturesOut) => map.transformSync(x, options),
      async: ({ x }: { x: Tensor }, options?: FeaturesOut) => map.transform(x, options),
    },
    args: () => ({ x: samples(300, 6, "f32") }),
    outOf: (features) => ({ features }),
  });
  describeCall({
    name: "transformVjp",
    faces: {
      sync: (args: FeaturesVjpArgs, options?: FeaturesVjpOut) => map.transformVjpSync(args, options),
      async: (args: FeaturesVjpArgs, options?: FeaturesVjpOut) => map.transformVjp(args, options),
    },
    args: () => ({ x: samples(300, 6, "f32"), upstream: samples(300, 20, "f32", 5) }),
    outOf: ({ x }) => ({ x }),
  });
});
