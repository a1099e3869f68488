import {
  type GramAccuracy,
  type GramGradients,
  gram,
  gramReduce,
  gramReduceSync,
  gramReduceVjp,
  gramReduceVjpSync,
  gramSync,
  gramVjp,
  gramVjpSync,
  type Kernel,
  kernels,
  pairKernelSync,
  type Tensor,
  tensor,
} from "dpo-kernels";
import { describe, expect, it } from "vitest";
import { describeBackends, isSimulating, onCpu } from "./support/backends.js";
import { expectBitwiseEqual, expectGradient, expectValue, expectValues } from "./support/bounds.js";
import {
  combinations,
  expectGradientOf,
  expectRefusal,
  expectSameResults,
  expectValuesOf,
  permutation,
  resultOf,
  rowsAt,
  STORAGES,
  tensorOf,
  valuesOf,
  WIDE_STORAGES,
} from "./support/cases.js";
import { expectFiniteDifferences } from "./support/finite-differences.js";
import { KERNEL_CASES, MIXTURE_CASES } from "./support/kernel-cases.js";
import { describeCall } from "./support/laws.js";
import { createRandom } from "./support/random.js";
import { remembered } from "./support/remember.js";
import type { Storage } from "./support/storage.js";
import { type GramTruthGradients, gramGradients, gramTruth, pairsOf, rowSums } from "./support/truth/gram.js";
import type { Gradient } from "./support/truth/kernels.js";

const faces = { sync: gramSync, async: gram };
const vjpFaces = { sync: gramVjpSync, async: gramVjp };
const reduceFaces = { sync: gramReduceSync, async: gramReduce };
const reduceVjpFaces = { sync: gramReduceVjpSync, async: gramReduceVjp };
const ALL_CASES = [...KERNEL_CASES, ...MIXTURE_CASES];
const ACCURACIES: readonly GramAccuracy[] = ["gemm", "exact"];

interface Shape {
  readonly n: number;
  /** Left out: x against itself. */
  readonly m?: number;
  readonly d: number;
}

/** More rows and columns than a backend computes at a time; a simulated device takes long over each pair. */
function largeShapes(): readonly Required<Shape>[] {
  if (!isSimulating()) return [{ n: 1960, m: 1930, d: 3 }];
  return [
    { n: 1100, m: 60, d: 3 },
    { n: 40, m: 2100, d: 3 },
  ];
}

interface Case {
  readonly x: Tensor;
  readonly y?: Tensor;
  readonly upstream: Tensor;
}

function randomCase({ n, m, d }: Shape, storage: Storage, seed = 1): Case {
  const random = createRandom(seed + 1000 * n + 10 * (m ?? 0) + d);
  const x = tensorOf(random.normals(n * d), [n, d], storage);
  const y = m === undefined ? {} : { y: tensorOf(random.normals(m * d), [m, d], storage) };
  return { x, ...y, upstream: tensor(Float64Array.from(random.normals(n * (m ?? n)), Math.fround), [n, m ?? n]) };
}

function inputsOf({ x, y }: Case) {
  return { x: valuesOf(x), y: y && valuesOf(y), width: x.shape[1] ?? 0 };
}

/** Gradients of parameters are sums in double of terms in the rows' arithmetic, whose errors remain where the sums cancel. */
function expectParameters(actual: Record<string, Tensor<"f64">>, truth: GramTruthGradients["params"], storage: Storage, label: string): void {
  expect(Object.keys(actual)).toEqual(Object.keys(truth));
  const epsilon = storage === "f64" ? 2 ** -52 : 2 ** -23;
  for (const [name, { values, termSums }] of Object.entries(truth)) {
    values.forEach((value, p) => {
      expectValue(actual[name]?.data[p] ?? Number.NaN, value, { abs: 20 * epsilon * (termSums[p] ?? 0), rel: 0, label: `${label}: ${name}[${p}]` });
    });
  }
}

function expectGradients(actual: GramGradients, truth: GramTruthGradients, storage: Storage, label: string, nmse?: number): void {
  const check = (rows: Tensor, { values, termSums }: Gradient, name: string): void => {
    if (nmse === undefined) expectGradientOf(rows, values, termSums, `${label}: gradient of ${name}`);
    else expectGradient(rows.data, values, { termSums, nmse, label: `${label}: gradient of ${name}` });
  };
  check(actual.x, truth.x, "x");
  expect(actual.y === undefined).toBe(truth.y === undefined);
  if (truth.y) check(actual.y as Tensor, truth.y, "y");
  expectParameters(actual.params, truth.params, storage, label);
}

/** Values and gradients from the CPU's pairKernel, every pair of rows for itself. */
const fromPairs = remembered((kernel: Kernel, given: Case) => onCpu(() => fromPairsHere(kernel, given)));

function fromPairsHere(kernel: Kernel, { x, y, upstream }: Case): { k: Float64Array; grads: GramTruthGradients } {
  const inputs = inputsOf({ x, ...(y && { y }), upstream });
  const { u, v, width } = pairsOf(inputs);
  const pairs = { u: tensor(Float64Array.from(u), [u.length / width, width]), v: tensor(Float64Array.from(v), [v.length / width, width]), kernel };
  const k = Float64Array.from(pairKernelSync(pairs).logK.data, Math.exp);
  const { grads } = pairKernelSync({ ...pairs, upstream: k.map((value, pair) => value * (upstream.data[pair] ?? 0)) });
  if (grads === undefined) throw new Error("no gradients");
  const columns = upstream.shape[1] ?? 1;
  const terms = ({ data }: Tensor) => ({ values: Float64Array.from(data), termSums: Float64Array.from(data) });
  const ofX = rowSums(terms(grads.u), inputs.x.length, width, (pair) => Math.floor(pair / columns));
  const ofY = rowSums(terms(grads.v), (inputs.y ?? inputs.x).length, width, (pair) => pair % columns);
  const total = k.reduce((sum, value, pair) => sum + value * Math.abs(upstream.data[pair] ?? 0), 0);
  const params = Object.fromEntries(
    Object.entries(grads.params).map(([name, { data }]) => [name, { values: data, termSums: data.map(() => total) }]),
  );
  if (y !== undefined) return { k, grads: { x: inProportion(ofX.values, total), y: inProportion(ofY.values, total), params } };
  return {
    k,
    grads: {
      x: inProportion(
        ofX.values.map((value, i) => value + (ofY.values[i] ?? 0)),
        total,
      ),
      params,
    },
  };
}

/** A gradient whose terms are about as large as its largest element, or as the weights. */
function inProportion(values: Float64Array, weights: number): Gradient {
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), weights);
  return { values, termSums: values.map(() => largest) };
}

describeBackends(() => {
  describe("values and gradients", () => {
    const shapes: Shape[] = [
      { n: 5, m: 4, d: 6 },
      { n: 4, d: 6 },
    ];
    it.each(combinations(ALL_CASES, WIDE_STORAGES))("equal float64's: $name, $storage", async ({ name, make, storage }) => {
      for (const normalize of [true, false]) {
        const kernel = make({ depth: 6, normalize });
        for (const shape of shapes) {
          const given = randomCase(shape, storage);
          const [truth, grads] = [gramTruth(kernel, inputsOf(given)), gramGradients(kernel, inputsOf(given), given.upstream.data)];
          for (const accuracy of ACCURACIES) {
            const label = `${accuracy}, normalize ${normalize}, ${shape.m === undefined ? "symmetric" : "x and y"}`;
            const { upstream, ...rows } = given;
            expectValuesOf(await resultOf(faces, { ...rows, kernel, accuracy }), truth, storage, label);
            // In f32, ⟨φ(u), φ(v)⟩ of features that all but agree has few digits left of what tells them apart.
            const nmse = storage === "f32" && name.startsWith("spectral") ? 1e-10 : undefined;
            expectGradients(await resultOf(vjpFaces, { ...given, kernel, accuracy, upstream }), grads, storage, label, nmse);
          }
        }
      }
    });

    const few = [...KERNEL_CASES.filter(({ name }) => ["rbf", "matern 1.5"].includes(name)), ...MIXTURE_CASES.filter(({ name }) => name === "hmk")];
    it.each(combinations(few, ["f16", "bf16"] as const))("equal float64's of 16-bit rows: $name, $storage", async ({ make, storage }) => {
      for (const normalize of [true, false]) {
        const kernel = make({ depth: 9, normalize });
        const given = randomCase({ n: 6, m: 5, d: 9 }, storage);
        const { upstream, ...rows } = given;
        expectValuesOf(await resultOf(faces, { ...rows, kernel }), gramTruth(kernel, inputsOf(given)), storage, "K");
        expectGradients(await resultOf(vjpFaces, { ...given, kernel, upstream }), gramGradients(kernel, inputsOf(given), upstream.data), storage, "");
      }
    });

    const awkward: Shape[] = [
      { n: 1, m: 1, d: 1 },
      { n: 1, d: 1 },
      { n: 1, m: 97, d: 5 },
      { n: 97, m: 1, d: 3 },
      { n: 95, m: 97, d: 17 },
      { n: 193, d: 33 },
      { n: 96, m: 48, d: 193 },
      { n: 4, m: 5, d: 768 },
    ];
    const tiled = [
      ...KERNEL_CASES.filter(({ name }) => ["rbf", "laplacian", "matern 2.5", "mahalanobis, factor"].includes(name)),
      ...MIXTURE_CASES.filter(({ name }) => name === "hmk"),
    ];
    it.each(combinations(tiled, WIDE_STORAGES))("equal pairKernel's at every edge of a tile: $name, $storage", ({ make, storage }) => {
      for (const shape of awkward) {
        const kernel = make({ depth: shape.d, normalize: shape.d > 1 });
        const given = randomCase(shape, storage);
        const { k, grads } = fromPairs(kernel, given);
        const label = JSON.stringify(shape);
        expectValuesOf(gramSync({ ...given, kernel }), k, storage, label);
        expectGradients(gramVjpSync({ ...given, kernel }), grads, storage, label);
      }
    });

    const gaussian = KERNEL_CASES.filter(({ name }) => /^(rbf$|mahalanobis|laplacian|polynomial)/.test(name));
    it.each(combinations(gaussian, WIDE_STORAGES))("are the same with the matrix at hand: $name, $storage", async ({ name, make, storage }) => {
      // More than a tile each way; fewer pairs of the kernel that takes longest to work out in float64.
      const large = /wide/.test(name) ? { n: 33, m: 35, d: 6 } : { n: 97, m: 101, d: 6 };
      for (const normalize of [true, false]) {
        for (const shape of [...shapes, large]) {
          const kernel = make({ depth: 6, normalize });
          const given = randomCase(shape, storage);
          const grads = gramGradients(kernel, inputsOf(given), given.upstream.data);
          for (const accuracy of ACCURACIES) {
            const { upstream, ...rows } = given;
            const k = gramSync({ ...rows, kernel, accuracy });
            expectGradients(await resultOf(vjpFaces, { ...given, kernel, accuracy, upstream, gram: k }), grads, storage, accuracy);
          }
        }
      }
    });

    it.each(WIDE_STORAGES)("take distances from a matrix at hand, %s", (storage) => {
      const { x, y, upstream } = randomCase({ n: 5, m: 4, d: 6 }, storage) as Required<Case>;
      const [kernel, wider] = [kernels.rbf({ sigma: 1.5 }), kernels.rbf({ sigma: 3 })];
      const misled = gramVjpSync({ x, y, kernel, upstream, gram: gramSync({ x, y, kernel: wider }) });
      const shrunk = gramVjpSync({ x, y, kernel, upstream });
      expect(Math.abs((misled.params.sigma?.data[0] ?? 0) - (shrunk.params.sigma?.data[0] ?? 0))).toBeGreaterThan(1e-3);
    });

    it("are finite where the matrix at hand has underflowed", () => {
      const [x, y] = [0, 60].map((value) => tensor(new Float32Array(8).fill(value), [1, 8])) as [Tensor, Tensor];
      const kernel = kernels.rbf({ sigma: 1, normalize: false });
      const k = gramSync({ x, y, kernel });
      expect(k.data[0]).toBe(0);
      const grads = gramVjpSync({ x, y, kernel, upstream: tensor(Float32Array.of(1), [1, 1]), gram: k });
      for (const value of [...grads.x.data, ...(grads.params.sigma?.data ?? [])]) expect(Math.abs(value)).toBeLessThan(1e-30);
    });

    it.each(WIDE_STORAGES)("of more rows than a block holds are those of their parts put together, %s", (storage) => {
      for (const { n, m, d } of largeShapes()) {
        const [above, left] = [Math.ceil(n / 2), Math.ceil(m / 2)];
        const { x, y, upstream } = randomCase({ n, m, d }, storage) as Required<Case>;
        const kernel = kernels.mixture({ rbf: kernels.rbf({ sigma: 1.3, normalize: false }), polynomial: kernels.polynomial({ normalize: false }) });
        const whole = gramVjpSync({ x, y, kernel, upstream });
        const sums = { x: new Float64Array(n * d), y: new Float64Array(m * d), sigma: 0, logits: [0, 0] };
        for (const rows of [0, above]) {
          for (const columns of [0, left]) {
            const [right, below] = [columns === 0 ? left : m, rows === 0 ? above : n];
            const weights = Float64Array.from({ length: (below - rows) * (right - columns) }, (_, at) => {
              const [i, j] = [rows + Math.floor(at / (right - columns)), columns + (at % (right - columns))];
              return upstream.data[i * m + j] ?? 0;
            });
            const of = { x: x.rows(rows, below), y: y.rows(columns, right), kernel, upstream: tensor(weights, [below - rows, right - columns]) };
            const grads = gramVjpSync(of) as Required<GramGradients>;
            for (const [at, value] of grads.x.data.entries()) sums.x[rows * d + at] = (sums.x[rows * d + at] ?? 0) + value;
            for (const [at, value] of grads.y.data.entries()) sums.y[columns * d + at] = (sums.y[columns * d + at] ?? 0) + value;
            sums.sigma += grads.params["rbf/sigma"]?.data[0] ?? 0;
            sums.logits = sums.logits.map((sum, at) => sum + (grads.params.logits?.data[at] ?? 0));
          }
        }
        const bounds = storage === "f64" ? { epsilon: 2 ** -52, nmse: 1e-24 } : {};
        expectGradient(whole.x.data, sums.x, bounds);
        expectGradient(whole.y?.data ?? [], sums.y, bounds);
        const abs = n * m * (storage === "f64" ? 2 ** -52 : 2 ** -23);
        expectValue(whole.params["rbf/sigma"]?.data[0] ?? Number.NaN, sums.sigma, { abs });
        expectValues(whole.params.logits?.data ?? [], sums.logits, { abs });
      }
    });

    it.each(WIDE_STORAGES)("of a symmetric matrix of several blocks are those of its rows as x and as y, %s", (storage) => {
      const n = largeShapes()[0]?.n ?? 0;
      const { x, upstream } = randomCase({ n, d: 3 }, storage);
      const kernel = kernels.mixture({ rbf: kernels.rbf({ sigma: 1.3, normalize: false }), polynomial: kernels.polynomial({ normalize: false }) });
      const [symmetric, plain] = [gramVjpSync({ x, kernel, upstream }), gramVjpSync({ x, y: x, kernel, upstream })];
      const sums = Float64Array.from(plain.x.data, (value, i) => value + (plain.y?.data[i] ?? 0));
      expectGradient(symmetric.x.data, sums, storage === "f64" ? { epsilon: 2 ** -52, nmse: 1e-24 } : {});
      const abs = n * n * (storage === "f64" ? 2 ** -52 : 2 ** -23);
      for (const [name, { data }] of Object.entries(plain.params)) expectValues(symmetric.params[name]?.data ?? [], data, { abs, label: name });
    });

    it.each(ALL_CASES)("agree with finite differences: $name", ({ make }) => {
      const shape = { n: 3, m: 2, d: 3 };
      const kernel = make({ depth: shape.d, normalize: true });
      const { x, y, upstream } = randomCase(shape, "f64", 5) as Required<Case>;
      const loss = (): number => valuesOf(gramSync({ x, y, kernel })).reduce((total, k, i) => total + k * (upstream.data[i] ?? 0), 0);
      const grads = gramVjpSync({ x, y, kernel, upstream });
      const check = (of: Tensor, analytic: Tensor | undefined, label: string): void => {
        const before = of.data.slice();
        const at = (values: Float64Array): number => {
          of.data.set(values);
          return loss();
        };
        expectFiniteDifferences(at, before, analytic?.data ?? [], { label, step: 2 ** -9, rel: 1e-6, floor: 1e-8 });
        of.data.set(before);
      };
      check(x, grads.x, "x");
      check(y, grads.y, "y");
      for (const [name, value] of Object.entries(kernel.parameters)) check(value, grads.params[name], name);
    });
  });

  describe("laws", () => {
    it.each(combinations(ALL_CASES, STORAGES))(
      "is symmetric to the last bit, and 1 on the diagonal where k(u, u) is: $name, $storage",
      ({ make, storage, name }) => {
        const radial = /^(rbf$|laplacian|matern|rational|wavelet|mahalanobis)/.test(name);
        const [n, d] = [101, 7];
        const { x } = randomCase({ n, d }, storage);
        for (const accuracy of ACCURACIES) {
          const { data } = gramSync({ x, kernel: make({ depth: d, normalize: accuracy === "gemm" }), accuracy });
          const transposed = data.slice();
          for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) transposed[i * n + j] = data[j * n + i] ?? Number.NaN;
          expectBitwiseEqual(data, transposed);
          for (let i = 0; radial && i < n; i++) expect(data[i * n + i]).toBe(1);
        }
      },
    );

    it.each(ALL_CASES.filter(({ name }) => !/wavelet|both signs|spectral|of every kind|polynomial|random_fourier/.test(name)))(
      "is positive semidefinite: $name",
      ({ make }) => {
        const n = 40;
        const { x } = randomCase({ n, d: 4 }, "f64");
        for (const normalize of [true, false]) {
          const k = gramSync({ x, kernel: make({ depth: 4, normalize }) });
          expect(smallestPivot(valuesOf(k), n)).toBeGreaterThan(0);
        }
      },
    );

    it.each(STORAGES)("permuting rows permutes rows of the matrix and of the gradient, %s", (storage) => {
      const [n, m, d] = [23, 19, 11];
      const { x, y, upstream } = randomCase({ n, m, d }, storage) as Required<Case>;
      const kernel = kernels.mixture({ rbf: kernels.rbf(), matern: kernels.matern() });
      const order = permutation(n, createRandom(3).integer);
      const plain = gramSync({ x, y, kernel, accuracy: "exact" });
      const permuted = gramSync({ x: rowsAt(x, order), y, kernel, accuracy: "exact" });
      expectBitwiseEqual(permuted.data, rowsAt(plain, order).data);
      const grads = gramVjpSync({ x: rowsAt(x, order), y, kernel, accuracy: "exact", upstream: rowsAt(upstream, order) });
      expectBitwiseEqual(grads.x.data, rowsAt(gramVjpSync({ x, y, kernel, accuracy: "exact", upstream }).x, order).data);
      const centred = gramSync({ x: rowsAt(x, order), y, kernel });
      expectValuesOf(centred, valuesOf(rowsAt(gramSync({ x, y, kernel }), order)), storage, "gemm");
    });

    it("does not see where rows lie, as far as they are centred first", () => {
      const { x, y } = randomCase({ n: 30, m: 20, d: 16 }, "f32") as Required<Case>;
      const kernel = kernels.rbf({ sigma: 4, normalize: false });
      const moved = (rows: Tensor) =>
        tensorOf(
          valuesOf(rows).map((value) => value + 1024),
          rows.shape,
          "f32",
        );
      const far = { x: moved(x), y: moved(y), upstream: x };
      expectValues(gramSync({ x: far.x, y: far.y, kernel }).data, gramTruth(kernel, inputsOf(far)));
    });

    it("keeps the distances of near-duplicate rows with exact, and to 1e-7 of their squared lengths with gemm", () => {
      const [n, d] = [12, 48];
      const random = createRandom(9);
      const x = tensorOf(random.normals(n * d), [n, d], "f32");
      const y = tensorOf(
        valuesOf(x).map((value) => value * (1 + 1e-5 * random.normal())),
        [n, d],
        "f32",
      );
      for (const normalize of [true, false]) {
        const scale = normalize ? 1 : Math.sqrt(d);
        const smooth = kernels.rbf({ sigma: scale, normalize });
        const sharp = kernels.matern({ nu: 0.5, sigma: scale, normalize });
        const truth = (kernel: Kernel) => gramTruth(kernel, { x: valuesOf(x), y: valuesOf(y), width: d });
        for (const kernel of [smooth, sharp]) expectValues(gramSync({ x, y, kernel, accuracy: "exact" }).data, truth(kernel));
        expectValues(gramSync({ x, y, kernel: smooth }).data, truth(smooth));
        // √(1e-7·2): what the square root of such an error is.
        expectValues(gramSync({ x, y, kernel: sharp }).data, truth(sharp), { abs: 1e-3 });
      }
    });

    it.each(combinations([{ n: 31, m: 45 }, { n: 120, m: 800 }, { n: 200 }], WIDE_STORAGES))(
      "gramReduce is the matrix times vectors: $n x $m, $storage",
      async ({ n, m, storage }) => {
        const { x, y } = randomCase({ n, ...(m !== undefined && { m }), d: 8 }, storage);
        const kernel = MIXTURE_CASES[0]?.make({ depth: 8, normalize: true }) as Kernel;
        const rows = { x, ...(y && { y }), kernel };
        const columns = m ?? n;
        for (const width of [1, 3]) {
          const vectors = Float64Array.from(createRandom(4).normals(columns * width), Math.fround);
          const k = valuesOf(gramSync(rows));
          const product = new Float64Array(n * width);
          for (let i = 0; i < n; i++)
            for (let j = 0; j < columns; j++)
              for (let c = 0; c < width; c++)
                product[i * width + c] = (product[i * width + c] ?? 0) + (k[i * columns + j] ?? 0) * (vectors[j * width + c] ?? 0);
          const reduced = await resultOf(reduceFaces, { ...rows, vectors: width === 1 ? vectors : tensor(vectors, [columns, width]) });
          expect(reduced.shape).toEqual(width === 1 ? [n] : [n, width]);
          expectGradient(reduced.data, product, { termSums: columns, epsilon: storage === "f64" ? 2 ** -52 : 2 ** -23 });
        }
      },
    );

    it.each(combinations([{ n: 31, m: 45 }, { n: 100 }], WIDE_STORAGES))(
      "gramReduceVjp is gramVjp of the outer product: $n x $m, $storage",
      async ({ n, m, storage }) => {
        const { x, y } = randomCase({ n, ...(m !== undefined && { m }), d: 8 }, storage);
        const [columns, width, random] = [m ?? n, 3, createRandom(6)];
        const kernel = MIXTURE_CASES[0]?.make({ depth: 8, normalize: true }) as Kernel;
        const rows = { x, ...(y && { y }), kernel };
        const [vectors, upstream] = [columns, n].map((count) =>
          tensor(Float64Array.from(random.normals(count * width), Math.fround), [count, width]),
        ) as [Tensor, Tensor];
        const outer = new Float64Array(n * columns);
        const transposedUpstream = new Float64Array(columns * width);
        const k = valuesOf(gramSync(rows));
        for (let i = 0; i < n; i++)
          for (let j = 0; j < columns; j++)
            for (let c = 0; c < width; c++) {
              const [g, v] = [upstream.data[i * width + c] ?? 0, vectors.data[j * width + c] ?? 0];
              outer[i * columns + j] = (outer[i * columns + j] ?? 0) + g * v;
              transposedUpstream[j * width + c] = (transposedUpstream[j * width + c] ?? 0) + (k[i * columns + j] ?? 0) * g;
            }
        const mine = await resultOf(reduceVjpFaces, { ...rows, vectors, upstream });
        const theirs = gramVjpSync({ ...rows, upstream: tensor(outer, [n, columns]) });
        const bounds = storage === "f64" ? { epsilon: 2 ** -52, nmse: 1e-24 } : {};
        expectGradient(mine.x.data, theirs.x.data, bounds);
        if (theirs.y) expectGradient(mine.y?.data ?? [], theirs.y.data, bounds);
        expectGradient(mine.vectors.data, transposedUpstream, { ...bounds, termSums: n });
        const terms = outer.reduce((sum, g, pair) => sum + Math.abs(g * (k[pair] ?? 0)), 0);
        const abs = 20 * terms * (storage === "f64" ? 2 ** -52 : 2 ** -23);
        for (const [name, { data }] of Object.entries(theirs.params)) expectValues(mine.params[name]?.data ?? [], data, { abs, rel: 0, label: name });
      },
    );
  });

  describe("bad input", () => {
    const { x, y, upstream } = randomCase({ n: 4, m: 3, d: 5 }, "f32") as Required<Case>;
    const kernel = kernels.rbf();

    it("names the row that is zero or too long, and the element that is not finite", async () => {
      const zero = tensorOf(
        valuesOf(x).map((value, i) => (Math.floor(i / 5) === 2 ? 0 : value)),
        [4, 5],
        "f32",
      );
      await expectRefusal(faces, { x: zero, kernel }, { code: "ERR_RANGE", message: /x: row 2 is zero/, index: 10 });
      const plain = kernels.rbf({ normalize: false });
      expect(gramSync({ x: zero, kernel: plain }).shape).toEqual([4, 4]);
      const long = tensorOf(
        valuesOf(y).map((value, i) => (i === 7 ? 3e19 : value)),
        [3, 5],
        "f32",
      );
      await expectRefusal(faces, { x, y: long, kernel: plain }, { code: "ERR_RANGE", message: /y: row 1 is so long/, index: 5 });
      expect(gramSync({ x, y: long, kernel }).shape).toEqual([4, 3]);
      const broken = tensorOf(valuesOf(upstream), [4, 3], "f32");
      broken.data[8] = Number.NaN;
      await expectRefusal(vjpFaces, { x, y, kernel, upstream: broken }, { code: "ERR_NONFINITE", message: /upstream: element 8/, index: 8 });
    });

    it("refuses an unknown accuracy", async () => {
      await expectRefusal(faces, { x, kernel, accuracy: "fast" as GramAccuracy }, { code: "ERR_RANGE", message: /accuracy.*"fast"/ });
    });
  });

  const usual = (): Case => randomCase({ n: 130, m: 210, d: 12 }, "f32");
  const kernelOf = () => MIXTURE_CASES[0]?.make({ depth: 12, normalize: true }) as Kernel;
  const rowsOf = () => {
    const { x, y } = usual() as Required<Case>;
    return { x, y, kernel: kernelOf() };
  };
  const columns = (count: number) => tensor(createRandom(8).normals(count * 2), [count, 2]);
  describeCall({ name: "gram", faces: inObject, args: rowsOf, outOf: ({ gram: made }: { gram: Tensor }) => ({ gram: made }) });
  describeCall({
    name: "gramVjp",
    faces: vjpFaces,
    args: () => ({ ...rowsOf(), upstream: usual().upstream }),
    outOf: ({ x, y }) => ({ x, y: y as Tensor }),
  });
  describeCall({
    name: "gramVjp, symmetric",
    faces: vjpFaces,
    args: () => {
      const { x, upstream } = randomCase({ n: 220, d: 12 }, "f64");
      return { x, kernel: kernelOf(), upstream };
    },
    outOf: ({ x }) => ({ x }),
  });
  describeCall({
    name: "gramReduceVjp",
    faces: reduceVjpFaces,
    args: () => ({ ...rowsOf(), vectors: columns(210), upstream: columns(130) }),
    outOf: ({ x, y, vectors }) => ({ x, y: y as Tensor, vectors }),
  });

  it("gramReduce writes into supplied memory what it would return, and the same bits again", async () => {
    const args = { ...rowsOf(), vectors: new Float32Array(210).fill(1) };
    const first = gramReduceSync(args);
    const out = tensor(new Float32Array(130), [130]);
    expect(await gramReduce(args, { out: { sums: out } })).toBe(out);
    expectSameResults({ sums: out }, { sums: first });
  });
}, ["gram", "gramVjp", "gramReduce", "gramReduceVjp"]);

/** gram with its result as a part, as other operations have. */
const inObject = {
  sync: (args: Parameters<typeof gramSync>[0], options?: Parameters<typeof gramSync>[1]) => ({ gram: gramSync(args, options) }),
  async: async (args: Parameters<typeof gramSync>[0], options?: Parameters<typeof gram>[1]) => ({ gram: await gram(args, options) }),
};

/** The smallest pivot of a Cholesky factorisation of the matrix with 1e-10 of its mean diagonal added. */
function smallestPivot(matrix: Float64Array, n: number): number {
  const a = Float64Array.from(matrix);
  const at = (i: number, j: number): number => a[i * n + j] ?? Number.NaN;
  let trace = 0;
  for (let i = 0; i < n; i++) trace += at(i, i);
  let smallest = Infinity;
  for (let k = 0; k < n; k++) {
    const pivot = at(k, k) + (1e-10 * trace) / n;
    smallest = Math.min(smallest, pivot);
    for (let i = k + 1; i < n; i++) for (let j = k + 1; j < n; j++) a[i * n + j] = at(i, j) - (at(i, k) * at(k, j)) / pivot;
  }
  return smallest;
}
