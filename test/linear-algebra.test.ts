import {
  cholesky,
  choleskySync,
  choleskyVjp,
  choleskyVjpSync,
  eigh,
  eighSync,
  eighVjp,
  eighVjpSync,
  NotPsdError,
  solveTriangular,
  solveTriangularSync,
  solveTriangularVjp,
  solveTriangularVjpSync,
  type Tensor,
  type TriangularOptions,
  tensor,
} from "dpo-kernels";
import { describe, expect, it } from "vitest";
import { describeBackends } from "./support/backends.js";
import { expectBitwiseEqual, expectValue, expectValues } from "./support/bounds.js";
import { combinations, expectRefusal, resultOf, tensorOf, valuesOf, WIDE_STORAGES } from "./support/cases.js";
import { expectFiniteDifferences } from "./support/finite-differences.js";
import { describeCall } from "./support/laws.js";
import { createRandom, type Random } from "./support/random.js";
import type { Storage } from "./support/storage.js";
import { loadFixture } from "./support/truth/fixtures.js";
import { at, type Numbers } from "./support/truth/numbers.js";

const choleskyFaces = { sync: choleskySync, async: cholesky };
const choleskyVjpFaces = { sync: choleskyVjpSync, async: choleskyVjp };
const solveFaces = { sync: solveTriangularSync, async: solveTriangular };
const solveVjpFaces = { sync: solveTriangularVjpSync, async: solveTriangularVjp };
const eighFaces = { sync: eighSync, async: eigh };
const eighVjpFaces = { sync: eighVjpSync, async: eighVjp };

const FIXTURE = loadFixture("linear_algebra");
const EPSILON = 2 ** -52;
/** Blocks of Eigen's factorisations are of 8 to 128 rows. */
const SIZES = [1, 2, 3, 7, 8, 33, 129];
const SYSTEMS: readonly Required<TriangularOptions>[] = [true, false].flatMap((lower) => [false, true].map((transpose) => ({ lower, transpose })));
/** Of a problem with few digits at stake. */
const DIGITS = { abs: 1e-12, rel: 1e-11 };

type Matrix = Float64Array;

function square(values: Numbers, n: number, storage: Storage = "f64"): Tensor {
  return tensorOf(values, [n, n], storage);
}

function filledMatrix(n: number, element: (i: number, j: number) => number): Matrix {
  return Float64Array.from({ length: n * n }, (_, index) => element(Math.floor(index / n), index % n));
}

/** [n, k] · [k, m]. */
function product(a: Numbers, b: Numbers, k: number): Matrix {
  const [n, m] = [a.length / k, b.length / k];
  return Float64Array.from({ length: n * m }, (_, index) => {
    let sum = 0;
    for (let i = 0; i < k; i++) sum += at(a, Math.floor(index / m) * k + i) * at(b, i * m + (index % m));
    return sum;
  });
}

function transposed(a: Numbers, n: number): Matrix {
  return filledMatrix(n, (i, j) => at(a, j * n + i));
}

function identity(n: number, scale = 1): Matrix {
  return filledMatrix(n, (i, j) => (i === j ? scale : 0));
}

function symmetric(random: Random, n: number): Matrix {
  const a = random.normals(n * n);
  return filledMatrix(n, (i, j) => (at(a, i * n + j) + at(a, j * n + i)) / 2);
}

function positiveDefinite(random: Random, n: number): Matrix {
  const b = random.normals(n * n);
  return product(b, transposed(b, n), n).map((value, index) => value / n + (index % (n + 1) === 0 ? 1 : 0));
}

/** One that is far from singular, with numbers in the other triangle that may not be read. */
function triangular(random: Random, n: number): Matrix {
  return filledMatrix(n, (i, j) => (i === j ? random.pick([-1, 1]) * random.uniform(1, 2) : random.normal() / Math.sqrt(n)));
}

/** Q·diag(values)·Qᵀ of a random rotation Q. */
function withEigenvalues(random: Random, values: readonly number[]): Matrix {
  const n = values.length;
  const q = eighSync({ a: square(symmetric(random, n), n) }).vectors.data;
  const scaled = Float64Array.from(q, (value, index) => value * at(values, index % n));
  const a = product(scaled, transposed(q, n), n);
  return filledMatrix(n, (i, j) => (at(a, i * n + j) + at(a, j * n + i)) / 2);
}

function triangle(a: Numbers, n: number, lower: boolean): Matrix {
  return filledMatrix(n, (i, j) => (i === j || i > j === lower ? at(a, i * n + j) : 0));
}

/** The same with other numbers in the other triangle. */
function spoiled(a: Numbers, n: number, lower: boolean): Matrix {
  return filledMatrix(n, (i, j) => (i === j || i > j === lower ? at(a, i * n + j) : 1e6 * (i - 2 * j)));
}

function largest(values: Numbers): number {
  return Array.from(values).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

/** |error| ≤ 4·n·ε of the scale, the backward error of these algorithms. */
function expectBackwardStable(actual: Numbers, truth: Numbers, { n, scale, storage = "f64" }: { n: number; scale: number; storage?: Storage }): void {
  const epsilon = storage === "f64" ? EPSILON : 2 ** -23;
  expectValues(actual, truth, { abs: 4 * (n + 2) * epsilon * scale, rel: 0 });
}

/** That f32 calls compute in f64: their results are those of f64 calls on the same numbers, rounded once. */
function expectRounded(actual: Tensor, exact: Tensor, label: string): void {
  expect(actual.dtype).toBe("f32");
  expect(actual.shape).toEqual(exact.shape);
  expectBitwiseEqual(actual.data, Float32Array.from(exact.data), { label });
}

/** f of a symmetric matrix by the elements of its lower triangle, and the gradient in those. */
function byLowerTriangle(a: Numbers, gradient: Numbers, n: number) {
  const places = Array.from({ length: n * n }, (_, index) => index).filter((index) => Math.floor(index / n) >= index % n);
  return {
    point: places.map((index) => at(a, index)),
    gradient: places.map((index) => (index % (n + 1) === 0 ? 1 : 2) * at(gradient, index)),
    matrixOf: (lower: Numbers): Tensor => {
      const full = new Float64Array(n * n);
      places.forEach((index, p) => {
        full[index] = at(lower, p);
        full[(index % n) * n + Math.floor(index / n)] = at(lower, p);
      });
      return square(full, n);
    },
  };
}

function weighted(values: Numbers, weights: Numbers): number {
  return Array.from(values).reduce((sum, value, i) => sum + value * at(weights, i), 0);
}

describeBackends(() => {
  describe("cholesky", () => {
    it.each(FIXTURE.cases)("agrees with PyTorch, gradient too: $name", async ({ n, a, upstream, expected }) => {
      const { factor, jitter } = await resultOf(choleskyFaces, { a: square(a, n) });
      expectValues(factor.data, expected.factor, DIGITS);
      expect(jitter).toBe(0);
      const gradient = await resultOf(choleskyVjpFaces, { factor, upstream: square(upstream, n) });
      expectValues(gradient.a.data, expected.gradA, DIGITS);
    });

    it.each(
      combinations(
        SIZES.map((n) => ({ n })),
        WIDE_STORAGES,
      ),
    )("a = L·Lᵀ, L lower with a positive diagonal: $n, $storage", ({ n, storage }) => {
      const a = square(positiveDefinite(createRandom(n), n), n, storage);
      const { factor, jitter } = choleskySync({ a });
      const [values, lower] = [valuesOf(a), valuesOf(factor)];
      expect([factor.dtype, factor.shape, jitter]).toEqual([storage, [n, n], 0]);
      expectBackwardStable(product(lower, transposed(lower, n), n), values, { n, scale: largest(values), storage });
      expectBitwiseEqual(lower, triangle(lower, n, true));
      for (let i = 0; i < n; i++) expect(lower[i * n + i]).toBeGreaterThan(0);
    });

    it("reads the lower triangle only", () => {
      const a = positiveDefinite(createRandom(5), 33);
      expectBitwiseEqual(choleskySync({ a: square(spoiled(a, 33, true), 33) }).factor.data, choleskySync({ a: square(a, 33) }).factor.data);
    });

    it.each([1, 2, 6, 33])("f32 calls are f64 calls rounded once: %d", (n) => {
      const random = createRandom(n);
      const [narrow, upstream] = [square(positiveDefinite(random, n), n, "f32"), square(random.normals(n * n), n, "f32")];
      const [wide, wideUpstream] = [narrow, upstream].map((matrix) => square(matrix.data, n)) as [Tensor, Tensor];
      const { factor } = choleskySync({ a: narrow });
      expectRounded(factor, choleskySync({ a: wide }).factor, "factor");
      const exact = choleskyVjpSync({ factor: square(factor.data, n), upstream: wideUpstream });
      expectRounded(choleskyVjpSync({ factor, upstream }).a, exact.a, "gradient");
    });

    it.each([1e-290, 1e-150, 1e150, 1e290])("scales with the matrix: %d", (scale) => {
      const a = positiveDefinite(createRandom(9), 9);
      const plain = choleskySync({ a: square(a, 9) }).factor;
      const scaled = choleskySync({
        a: square(
          a.map((value) => value * scale),
          9,
        ),
      });
      expect(scaled.jitter).toBe(0);
      expectValues(
        scaled.factor.data.map((value) => value / Math.sqrt(scale)),
        plain.data,
        { abs: 1e-14, rel: 1e-13 },
      );
    });

    it.each([1, 2, 5])("the pull-back agrees with finite differences: %d", (n) => {
      const random = createRandom(40 + n);
      const [a, upstream] = [positiveDefinite(random, n), random.normals(n * n)];
      const { factor } = choleskySync({ a: square(a, n) });
      const gradient = choleskyVjpSync({ factor, upstream: square(upstream, n) }).a;
      expectBitwiseEqual(gradient.data, transposed(gradient.data, n), { label: "symmetric" });
      const lower = byLowerTriangle(a, gradient.data, n);
      const loss = (x: Float64Array) => weighted(choleskySync({ a: lower.matrixOf(x), jitter: 0 }).factor.data, upstream);
      expectFiniteDifferences(loss, lower.point, lower.gradient, { step: 2 ** -5 });
      const spoilt = choleskyVjpSync({ factor, upstream: square(spoiled(upstream, n, true), n) });
      expectBitwiseEqual(spoilt.a.data, gradient.data, { label: "the upper triangle of upstream" });
    });

    describe("jitter", () => {
      /** Mean |diagonal| of 2, and this least eigenvalue. */
      const withLeast = (least: number) => Float64Array.of(4 - Math.abs(least), 0, 0, least);

      it.each([
        ["singular", withLeast(0), 2e-6],
        ["singular, of ones", Float64Array.of(1, 1, 1, 1), 1e-6],
        ["as far from definite as the first reaches", withLeast(-1.9e-6), 2e-6],
        ["that needs the second", withLeast(-2.1e-6), 2e-5],
        ["as far as the second reaches", withLeast(-1.9e-5), 2e-5],
        ["that needs the third", withLeast(-2.1e-5), 2e-4],
        ["as far as the third reaches", withLeast(-1.9e-4), 2e-4],
      ])("gives a factor of a matrix %s, and tells what was added", async (_, a, added) => {
        const { factor, jitter } = await resultOf(choleskyFaces, { a: square(a, 2) });
        expectValue(jitter, added, { abs: 0, rel: 1e-14 });
        const moved = a.map((value, index) => value + (index % 3 === 0 ? jitter : 0));
        expectBackwardStable(product(factor.data, transposed(factor.data, 2), 2), moved, { n: 2, scale: 4 });
      });

      it.each(WIDE_STORAGES)("helps a Gram matrix of repeated rows: %s", (storage) => {
        const n = 40;
        const rows = createRandom(3).normals(4 * 5);
        const a = square(
          filledMatrix(n, (i, j) => weighted(rows.subarray((i % 4) * 5, (i % 4) * 5 + 5), rows.subarray((j % 4) * 5, (j % 4) * 5 + 5))),
          n,
          storage,
        );
        const { factor, jitter } = choleskySync({ a });
        const [values, lower] = [valuesOf(a), valuesOf(factor)];
        const mean = Array.from({ length: n }, (_, i) => values[i * n + i] ?? 0).reduce((sum, value) => sum + value, 0) / n;
        expectValue(jitter, 1e-6 * mean, { abs: 0, rel: 1e-13 });
        const moved = values.map((value, index) => value + (index % (n + 1) === 0 ? jitter : 0));
        expectBackwardStable(product(lower, transposed(lower, n), n), moved, { n, scale: largest(values), storage });
      });

      it("is the caller's: 0 is none, and more reaches further", async () => {
        const message = /^a: is not positive definite/;
        await expectRefusal(choleskyFaces, { a: square([1, 1, 1, 1], 2), jitter: 0 }, { code: "ERR_NOT_PSD", message });
        expect(choleskySync({ a: square([1, 1, 1, 1], 2), jitter: 0.25 }).jitter).toBe(0.25);
        const far = square(withLeast(-0.1), 2);
        await expectRefusal(choleskyFaces, { a: far }, { code: "ERR_NOT_PSD", message });
        expectValue(choleskySync({ a: far, jitter: 1e-3 }).jitter, 0.2, { abs: 0, rel: 1e-12 });
      });

      it("changes nothing where there is a factor", () => {
        const a = square(positiveDefinite(createRandom(1), 6), 6);
        expectBitwiseEqual(choleskySync({ a, jitter: 1 }).factor.data, choleskySync({ a, jitter: 0 }).factor.data);
      });

      it.each([
        ["just out of the third's reach", withLeast(-2.1e-4)],
        ["indefinite", Float64Array.of(1, 2, 2, 1)],
        ["negative", Float64Array.of(-1, 0, 0, -1)],
        ["of zeros", new Float64Array(4)],
      ])("does not help a matrix %s, and results stay as they were", async (_, a) => {
        const factor = square([7, 7, 7, 7], 2);
        expect(() => choleskySync({ a: square(a, 2) }, { out: { factor } })).toThrow(NotPsdError);
        await expect(cholesky({ a: square(a, 2) }, { out: { factor } })).rejects.toThrow(NotPsdError);
        expectBitwiseEqual(factor.data, [7, 7, 7, 7]);
      });
    });

    it("refuses a gradient that overflows", async () => {
      const [factor, upstream] = [square([1e-25], 1, "f32"), square([1e25], 1, "f32")];
      await expectRefusal(choleskyVjpFaces, { factor, upstream }, { code: "ERR_RANGE", message: /overflow/ });
    });
  });

  describe("solveTriangular", () => {
    it.each(FIXTURE.triangular)("agrees with PyTorch, gradients too: $name", async ({ n, k, lower, transpose, a, b, upstream, expected }) => {
      const system = { a: square(a, n), lower, transpose };
      const x = await resultOf(solveFaces, { ...system, b: tensorOf(b, [n, k], "f64") });
      expectValues(x.data, expected.x, DIGITS);
      const grads = await resultOf(solveVjpFaces, { ...system, x, upstream: tensorOf(upstream, [n, k], "f64") });
      expectValues(grads.a.data, expected.gradA, DIGITS);
      expectValues(grads.b.data, expected.gradB, DIGITS);
    });

    describe.each(SYSTEMS)("lower $lower, transpose $transpose", (system) => {
      it.each(
        combinations(
          SIZES.map((n) => ({ n })),
          WIDE_STORAGES,
        ),
      )("solves the system: $n, $storage", ({ n, storage }) => {
        const random = createRandom(n);
        const [a, b] = [square(triangular(random, n), n, storage), tensorOf(random.normals(n * 3), [n, 3], storage)];
        const x = solveTriangularSync({ a, b, ...system });
        expect([x.dtype, x.shape]).toEqual([storage, [n, 3]]);
        const read = triangle(valuesOf(a), n, system.lower);
        const matrix = system.transpose ? transposed(read, n) : read;
        expectBackwardStable(product(matrix, valuesOf(x), n), valuesOf(b), { n, scale: Math.max(1, largest(valuesOf(x))), storage });
      });

      it("reads one triangle only, and its gradient is of that one", () => {
        const [random, n] = [createRandom(2), 33];
        const [a, b] = [triangular(random, n), tensorOf(random.normals(n * 2), [n, 2], "f64")];
        const x = solveTriangularSync({ a: square(a, n), b, ...system });
        expectBitwiseEqual(solveTriangularSync({ a: square(spoiled(a, n, system.lower), n), b, ...system }).data, x.data);
        const grads = solveTriangularVjpSync({ a: square(a, n), x, upstream: b, ...system });
        expectBitwiseEqual(grads.a.data, triangle(grads.a.data, n, system.lower));
        const spoilt = solveTriangularVjpSync({ a: square(spoiled(a, n, system.lower), n), x, upstream: b, ...system });
        expectBitwiseEqual(spoilt.a.data, grads.a.data);
        expectBitwiseEqual(spoilt.b.data, grads.b.data);
      });

      it("takes a vector, as a tensor or a typed array", async () => {
        const [random, n] = [createRandom(6), 5];
        const [a, b, upstream] = [square(triangular(random, n), n), random.normals(n), random.normals(n)];
        const column = (values: Float64Array) => tensor(values, [n, 1]);
        const matrix = solveTriangularSync({ a, b: column(b), ...system });
        const grads = solveTriangularVjpSync({ a, x: matrix, upstream: column(upstream), ...system });
        for (const right of [tensor(b, [n]), b]) {
          const x = await resultOf(solveFaces, { a, b: right, ...system });
          expect(x.shape).toEqual([n]);
          expectBitwiseEqual(x.data, matrix.data);
          const ofVector = await resultOf(solveVjpFaces, { a, x: Float64Array.from(x.data), upstream, ...system });
          expect(ofVector.b.shape).toEqual([n]);
          expectBitwiseEqual(ofVector.a.data, grads.a.data);
          expectBitwiseEqual(ofVector.b.data, grads.b.data);
        }
        const out = tensor(new Float64Array(n), [n]);
        expect(solveTriangularSync({ a, b, ...system }, { out: { x: out } })).toBe(out);
        expectBitwiseEqual(out.data, matrix.data);
        for (const shape of [[n, 1], [1, n], [n + 1]]) {
          const misfit = tensor(new Float64Array(shape.reduce((p, q) => p * q)).fill(7), shape);
          const code = expect.objectContaining({ code: "ERR_SHAPE", message: expect.stringMatching(/out\.[xb]:/) });
          expect(() => solveTriangularSync({ a, b, ...system }, { out: { x: misfit } })).toThrow(code);
          expect(() => solveTriangularVjpSync({ a, x: b, upstream, ...system }, { out: { b: misfit } })).toThrow(code);
          expect(misfit.data.every((value) => value === 7)).toBe(true);
        }
      });

      it("f32 calls are f64 calls rounded once", () => {
        const [random, n] = [createRandom(7), 21];
        const narrow = {
          a: square(triangular(random, n), n, "f32"),
          b: tensorOf(random.normals(n * 2), [n, 2], "f32"),
          upstream: tensorOf(random.normals(n * 2), [n, 2], "f32"),
        };
        const wide = (of: Tensor) => tensorOf(of.data, of.shape, "f64");
        const x = solveTriangularSync({ ...narrow, ...system });
        expectRounded(x, solveTriangularSync({ a: wide(narrow.a), b: wide(narrow.b), ...system }), "x");
        const grads = solveTriangularVjpSync({ a: narrow.a, x, upstream: narrow.upstream, ...system });
        const exact = solveTriangularVjpSync({ a: wide(narrow.a), x: wide(x), upstream: wide(narrow.upstream), ...system });
        expectRounded(grads.a, exact.a, "a");
        expectRounded(grads.b, exact.b, "b");
      });

      it.each([1, 4])("the pull-back agrees with finite differences: %d", (n) => {
        const random = createRandom(50 + n);
        const [a, b, upstream] = [triangular(random, n), random.normals(n * 2), random.normals(n * 2)];
        const right = (values: Numbers) => tensorOf(values, [n, 2], "f64");
        const x = solveTriangularSync({ a: square(a, n), b: right(b), ...system });
        const grads = solveTriangularVjpSync({ a: square(a, n), x, upstream: right(upstream), ...system });
        const loss = (matrix: Numbers, side: Numbers) =>
          weighted(solveTriangularSync({ a: square(matrix, n), b: right(side), ...system }).data, upstream);
        expectFiniteDifferences((moved) => loss(moved, b), a, grads.a.data, { label: "a" });
        expectFiniteDifferences((moved) => loss(a, moved), b, grads.b.data, { label: "b" });
      });

      it("refuses a zero on the diagonal, with its place", async () => {
        const [n, ones] = [4, tensorOf([1, 1, 1, 1], [4, 1], "f64")];
        const a = square(identity(n), n);
        a.data[2 * n + 2] = 0;
        const error = { code: "ERR_RANGE", message: /^a: element 2 of the diagonal is zero/, index: 10 };
        await expectRefusal(solveFaces, { a, b: ones, ...system }, error);
        await expectRefusal(solveVjpFaces, { a, x: ones, upstream: ones, ...system }, error);
      });

      it("refuses what overflows the dtype, and results stay as they were", async () => {
        for (const [storage, tiny, huge] of [
          ["f32", 1e-30, 1e30],
          ["f64", 1e-200, 1e200],
        ] as const) {
          const [a, b] = [square([tiny], 1, storage), tensorOf([huge], [1, 1], storage)];
          const out = { x: tensorOf([7], [1, 1], storage) };
          await expectRefusal(solveFaces, { a, b, ...system }, { code: "ERR_RANGE", message: /overflow/ });
          expect(() => solveTriangularSync({ a, b, ...system }, { out })).toThrow();
          expect(out.x.data[0]).toBe(7);
          await expectRefusal(solveVjpFaces, { a, x: b, upstream: b, ...system }, { code: "ERR_RANGE", message: /overflow/ });
        }
      });
    });

    it("is lower and not transposed unless told otherwise", () => {
      const [a, b] = [square([1, 5, 2, 4], 2), tensorOf([1, 4], [2, 1], "f64")];
      expectBitwiseEqual(solveTriangularSync({ a, b }).data, [1, 0.5]);
      expectBitwiseEqual(solveTriangularSync({ a, b, lower: false }).data, [-4, 1]);
      expectBitwiseEqual(solveTriangularSync({ a, b, transpose: true }).data, [-1, 1]);
      expectBitwiseEqual(solveTriangularSync({ a, b, lower: false, transpose: true }).data, [1, -0.25]);
    });
  });

  describe("eigh", () => {
    it.each(FIXTURE.eigh)("agrees with PyTorch, gradients too: $name", async ({ n, a, upstreamValues, upstreamVectors, expected }) => {
      const result = await resultOf(eighFaces, { a: square(a, n) });
      expectValues(result.values.data, expected.values, DIGITS);
      expectValues(result.vectors.data, expected.vectors, DIGITS);
      const [values, vectors] = [tensorOf(upstreamValues, [n], "f64"), square(upstreamVectors, n)];
      const bounds = { abs: 1e-11, rel: 1e-10 };
      const ofValues = await resultOf(eighVjpFaces, { ...result, upstream: { values } });
      expectValues(ofValues.a.data, expected.gradOfValues, bounds);
      const ofVectors = await resultOf(eighVjpFaces, { ...result, upstream: { vectors } });
      expectValues(ofVectors.a.data, expected.gradOfVectors, bounds);
      const ofBoth = await resultOf(eighVjpFaces, { ...result, upstream: { values, vectors } });
      expectValues(
        ofBoth.a.data,
        expected.gradOfValues.map((value, i) => value + at(expected.gradOfVectors, i)),
        bounds,
      );
    });

    it.each(
      combinations(
        SIZES.map((n) => ({ n })),
        WIDE_STORAGES,
      ),
    )("a·V = V·diag(values), VᵀV = I, values ascend: $n, $storage", ({ n, storage }) => {
      const a = square(symmetric(createRandom(n), n), n, storage);
      const { values, vectors } = eighSync({ a });
      expect([values.shape, vectors.shape, values.dtype, vectors.dtype]).toEqual([[n], [n, n], storage, storage]);
      const [w, v] = [valuesOf(values), valuesOf(vectors)];
      const scale = largest(w);
      expectBackwardStable(product(transposed(v, n), v, n), identity(n), { n, scale: 1, storage });
      expectBackwardStable(
        product(valuesOf(a), v, n),
        v.map((value, index) => value * at(w, index % n)),
        { n, scale, storage },
      );
      for (let i = 1; i < n; i++) expect(w[i]).toBeGreaterThanOrEqual(w[i - 1] ?? 0);
      for (let j = 0; j < n; j++) {
        const column = Array.from({ length: n }, (_, i) => at(v, i * n + j));
        expect(Math.max(...column)).toBe(largest(column));
      }
    });

    it("reads the lower triangle only", () => {
      const a = symmetric(createRandom(8), 33);
      const [plain, spoilt] = [a, spoiled(a, 33, true)].map((matrix) => eighSync({ a: square(matrix, 33) }));
      expectBitwiseEqual(spoilt?.values.data ?? [], plain?.values.data ?? []);
      expectBitwiseEqual(spoilt?.vectors.data ?? [], plain?.vectors.data ?? []);
    });

    it.each([1, 2, 6, 33])("f32 calls are f64 calls rounded once: %d", (n) => {
      const random = createRandom(n);
      const a = square(symmetric(random, n), n, "f32");
      const [narrow, wide] = [eighSync({ a }), eighSync({ a: square(a.data, n) })];
      expectRounded(narrow.values, wide.values, "values");
      expectRounded(narrow.vectors, wide.vectors, "vectors");
      const upstream = { values: tensorOf(random.normals(n), [n], "f32"), vectors: square(random.normals(n * n), n, "f32") };
      const exact = eighVjpSync({
        values: tensorOf(narrow.values.data, [n], "f64"),
        vectors: square(narrow.vectors.data, n),
        upstream: { values: tensorOf(upstream.values.data, [n], "f64"), vectors: square(upstream.vectors.data, n) },
      });
      expectRounded(eighVjpSync({ ...narrow, upstream }).a, exact.a, "gradient");
    });

    it.each([1e-290, 1e-150, 1e150, 1e290])("scales with the matrix: %d", (scale) => {
      const a = symmetric(createRandom(9), 9);
      const [plain, scaled] = [
        eighSync({ a: square(a, 9) }),
        eighSync({
          a: square(
            a.map((value) => value * scale),
            9,
          ),
        }),
      ];
      expectValues(
        scaled.values.data.map((value) => value / scale),
        plain.values.data,
        { abs: 1e-13, rel: 1e-13 },
      );
      expectValues(scaled.vectors.data, plain.vectors.data, { abs: 1e-12, rel: 0 });
    });

    it("finds known eigenvalues, repeated ones too", () => {
      const random = createRandom(12);
      for (const known of [
        [0, 0, 0],
        [1, 1, 1, 1],
        [-3, -3, 0, 2, 2, 2, 7],
        [1, 1 + 1e-14, 2],
        [-1e-9, 1e-9, 1e3],
      ]) {
        const n = known.length;
        const { values, vectors } = eighSync({ a: square(withEigenvalues(random, known), n) });
        expectBackwardStable(values.data, known, { n, scale: largest(known) });
        expectBackwardStable(product(transposed(vectors.data, n), vectors.data, n), identity(n), { n, scale: 1 });
      }
    });

    it.each([1, 2, 5])("the pull-back agrees with finite differences: %d", (n) => {
      const random = createRandom(60 + n);
      const a = symmetric(random, n);
      const result = eighSync({ a: square(a, n) });
      const weights = { values: tensorOf(random.normals(n), [n], "f64"), squares: random.normals(n * n) };
      // Of squared components, which do not see the vectors' signs.
      const vectors = square(
        result.vectors.data.map((value, i) => 2 * value * at(weights.squares, i)),
        n,
      );
      const gradient = eighVjpSync({ ...result, upstream: { values: weights.values, vectors } }).a;
      expectBitwiseEqual(gradient.data, transposed(gradient.data, n), { label: "symmetric" });
      const lower = byLowerTriangle(a, gradient.data, n);
      const loss = (x: Float64Array) => {
        const moved = eighSync({ a: lower.matrixOf(x) });
        const squares = Float64Array.from(moved.vectors.data, (value) => value * value);
        return weighted(moved.values.data, weights.values.data) + weighted(squares, weights.squares);
      };
      expectFiniteDifferences(loss, lower.point, lower.gradient, { step: 2 ** -7 });
    });

    describe("the pull-back between equal eigenvalues", () => {
      const known = [-1, 0.5, 0.5, 0.5, 2];
      const n = known.length;
      const a = withEigenvalues(createRandom(21), known);
      const group = [1, 2, 3];

      it.each(WIDE_STORAGES)("refuses an upstream that sees their vectors turn: %s", async (storage) => {
        const result = eighSync({ a: square(a, n, storage) });
        const vectors = square(createRandom(22).normals(n * n), n, storage);
        await expectRefusal(eighVjpFaces, { ...result, upstream: { vectors } }, { code: "ERR_RANGE", message: /eigenvalue [123] is repeated/ });
        const out = { a: square(new Float64Array(n * n).fill(7), n, storage) };
        expect(() => eighVjpSync({ ...result, upstream: { vectors } }, { out })).toThrow();
        expect(out.a.data.every((value) => value === 7)).toBe(true);
      });

      it("has the gradient of the values, and of what does not see them turn", () => {
        const result = eighSync({ a: square(a, n) });
        const trace = eighVjpSync({ ...result, upstream: { values: tensorOf(new Float64Array(n).fill(1), [n], "f64") } });
        expectValues(trace.a.data, identity(n), { abs: 1e-14, rel: 0 });
        // Σ M∘P of the projector P = Σ v·vᵀ over the group.
        const m = symmetric(createRandom(23), n);
        const inGroup = (values: Numbers) => Float64Array.from(values, (value, index) => (group.includes(index % n) ? value : 0));
        const projected = (vectors: Numbers) => weighted(product(inGroup(vectors), transposed(vectors, n), n), m);
        const vectors = square(
          product(m, inGroup(result.vectors.data), n).map((value) => 2 * value),
          n,
        );
        const gradient = eighVjpSync({ ...result, upstream: { vectors } }).a;
        const lower = byLowerTriangle(a, gradient.data, n);
        expectFiniteDifferences((x) => projected(eighSync({ a: lower.matrixOf(x) }).vectors.data), lower.point, lower.gradient, { step: 2 ** -6 });
      });

      it.each([1, 1e-6, 1e-12])("and is their difference's inverse as they draw near: %d", (gap) => {
        const result = eighSync({ a: square([1, 0, 0, 1 + gap], 2) });
        const measured = at(result.values.data, 1) - at(result.values.data, 0);
        const { a: gradient } = eighVjpSync({ ...result, upstream: { vectors: square([0, 3, -1, 0], 2) } });
        expectValues(gradient.data, [0, 2 / measured, 2 / measured, 0], { abs: 0, rel: 1e-14 });
      });
    });

    it("refuses eigenvalues and gradients that overflow", async () => {
      const ones = square([3e38, 3e38, 3e38, 3e38], 2, "f32");
      await expectRefusal(eighFaces, { a: ones }, { code: "ERR_RANGE", message: /overflow/ });
      await expectRefusal(eighFaces, { a: square([1.7e308, 1.7e308, 1.7e308, 1.7e308], 2) }, { code: "ERR_RANGE", message: /overflow/ });
      const result = eighSync({ a: square([1e-30, 0, 0, 2e-30], 2, "f32") });
      const upstream = { vectors: square([0, 1e30, 0, 0], 2, "f32") };
      await expectRefusal(eighVjpFaces, { ...result, upstream }, { code: "ERR_RANGE", message: /overflow/ });
    });
  });

  const n = 70;
  const definite = (seed: number) => square(positiveDefinite(createRandom(seed), n), n, "f32");
  const general = (seed: number, columns = n) => tensorOf(createRandom(seed).normals(n * columns), [n, columns], "f32");
  const triangularMatrix = () => square(triangular(createRandom(4), n), n, "f32");

  describeCall({ name: "cholesky", faces: choleskyFaces, args: () => ({ a: definite(1) }), outOf: ({ factor }) => ({ factor }) });
  describeCall({
    name: "choleskyVjp",
    faces: choleskyVjpFaces,
    args: () => ({ factor: choleskySync({ a: definite(1) }).factor, upstream: general(2) }),
    outOf: ({ a }) => ({ a }),
  });
  describeCall({
    name: "solveTriangular",
    faces: solveFaces,
    args: () => ({ a: triangularMatrix(), b: general(3, 5) }),
    outOf: (x) => ({ x }),
  });
  describeCall({
    name: "solveTriangularVjp",
    faces: solveVjpFaces,
    args: () => ({ a: triangularMatrix(), x: general(3, 5), upstream: general(5, 5) }),
    outOf: ({ a, b }) => ({ a, b }),
  });
  describeCall({ name: "eigh", faces: eighFaces, args: () => ({ a: definite(6) }), outOf: ({ values, vectors }) => ({ values, vectors }) });
  describeCall({
    name: "eighVjp",
    faces: eighVjpFaces,
    args: () => ({ ...eighSync({ a: definite(6) }), upstream: { values: general(7, 1).reshape([n]), vectors: general(8) } }),
    outOf: ({ a }) => ({ a }),
  });
}, ["cholesky", "choleskyVjp", "solveTriangular", "solveTriangularVjp", "eigh", "eighVjp"]);
