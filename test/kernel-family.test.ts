/** pair_kernel for every kernel of the family and for mixtures of them. What rbf shows of the operation itself is in pair-kernel.test.ts. */

import {
  FormulaKernel,
  type Kernel,
  kernels,
  MixtureKernel,
  type PairKernelArgs,
  type PairKernelResult,
  pairKernel,
  pairKernelSync,
  type Tensor,
  tensor,
} from "dpo-kernels";
import { describe, expect, it } from "vitest";
import { compound } from "../lib/native/operation.js";
import { logKernelSteps, logKernelVjpSteps } from "../lib/pair-kernel.js";
import { describeBackends } from "./support/backends.js";
import { expectBitwiseEqual, expectValue, expectValues } from "./support/bounds.js";
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
import { KERNEL_CASES, landmarkRows, MIXTURE_CASES, randomFourier, spectral } from "./support/kernel-cases.js";
import { describeCall } from "./support/laws.js";
import { createRandom } from "./support/random.js";
import type { Storage } from "./support/storage.js";
import { type KernelFamilyCase, loadFixture, named } from "./support/truth/fixtures.js";
import { logKernelGradients, logKernelTruth } from "./support/truth/kernels.js";
import { dot } from "./support/truth/numbers.js";

const faces = { sync: pairKernelSync, async: pairKernel };
const ALL_CASES = [...KERNEL_CASES, ...MIXTURE_CASES];

interface Pairs {
  readonly u: Tensor;
  readonly v: Tensor;
  readonly upstream: Float64Array;
}

function randomPairs({ rows, depth, storage, seed = 1 }: { rows: number; depth: number; storage: Storage; seed?: number }): Pairs {
  const random = createRandom(seed + 10_000 * rows + depth);
  const [u, v] = [random, random].map((from) => tensorOf(from.normals(rows * depth), [rows, depth], storage)) as [Tensor, Tensor];
  return { u, v, upstream: Float64Array.from(random.normals(rows), Math.fround) };
}

function inputsOf({ u, v }: Pick<Pairs, "u" | "v">) {
  return { u: valuesOf(u), v: valuesOf(v), width: u.shape[1] ?? 0 };
}

/** Values, gradients and diagnostics of both faces against float64 on the same rounded inputs. */
async function expectTruth({ u, v, upstream }: Pairs, storage: Storage, kernel: Kernel): Promise<PairKernelResult> {
  const inputs = inputsOf({ u, v });
  const result = await resultOf(faces, { u, v, kernel, upstream });
  const truth = logKernelTruth(kernel, inputs);
  expectValuesOf(result.logK, truth.logK, storage, "logK");
  const grads = logKernelGradients(kernel, inputs, upstream);
  expectGradientOf(result.grads?.u as Tensor, grads.u.values, grads.u.termSums, "gradient of u");
  expectGradientOf(result.grads?.v as Tensor, grads.v.values, grads.v.termSums, "gradient of v");
  expectParameters(result.grads?.params ?? {}, grads.params);
  if (result.diagnostics) {
    expectValuesOf(result.diagnostics.responsibilities, truth.responsibilities, storage, "responsibilities");
    expectRecord(result.diagnostics.weights, truth.weights);
    expectRecord(result.diagnostics.entropies, truth.entropies);
  }
  return result;
}

function expectParameters(actual: Record<string, Tensor>, truth: ReturnType<typeof logKernelGradients>["params"]): void {
  expect(Object.keys(actual)).toEqual(Object.keys(truth));
  for (const [name, { values, termSums }] of Object.entries(truth)) {
    const largest = Math.max(...termSums);
    expectValues(actual[name]?.data ?? [], values, { abs: 40 * largest * 2 ** -52, rel: 1e-11, label: `gradient of ${name}` });
  }
}

function expectRecord(actual: Readonly<Record<string, number>>, truth: Readonly<Record<string, number>>): void {
  expect(Object.keys(actual).sort()).toEqual(Object.keys(truth).sort());
  for (const [path, value] of Object.entries(truth)) expectValue(actual[path] ?? Number.NaN, value, { abs: 1e-14, rel: 1e-13, label: path });
}

function nonzeroShare(gradient: Tensor | undefined): number {
  if (gradient === undefined) throw new Error("no gradient");
  return valuesOf(gradient).filter((g) => g !== 0).length / gradient.size;
}

/** The kernel of a fixture, from its parameters by name. */
function kernelOf({ kind, d, normalize, fixed }: KernelFamilyCase, parameters: KernelFamilyCase["parameters"]): Kernel {
  const list = (name: string): readonly number[] => named(parameters, name);
  const number = (name: string): number => list(name)[0] ?? Number.NaN;
  const sigma = (): number => number("sigma");
  const matrix = (values: readonly number[] = [], columns: number) => tensor(Float64Array.from(values), [values.length / columns, columns]);
  switch (kind) {
    case "rbf":
      return kernels.rbf({ sigma: sigma(), normalize });
    case "laplacian":
      return kernels.laplacian({ sigma: sigma(), normalize });
    case "matern":
      return kernels.matern({ sigma: sigma(), nu: fixed.nu as 0.5, normalize });
    case "wavelet":
      return kernels.wavelet({ sigma: sigma(), normalize });
    case "rational_quadratic":
      return kernels.rationalQuadratic({ sigma: sigma(), alpha: number("alpha"), normalize });
    case "rbf_mixture":
      return kernels.rbfMixture({ lambdas: list("lambdas"), rates: list("rates"), normalize });
    case "polynomial":
      return kernels.polynomial({ degree: number("degree"), coef0: number("coef0"), normalize });
    case "mahalanobis":
      return kernels.mahalanobis({ factor: matrix(list("factor"), 2), normalize });
    case "random_fourier":
      return new FormulaKernel({ name: "random_fourier", normalize, parameters: {}, projection: matrix(fixed.projection, d) });
    case "spectral": {
      const base = kernels.rbf({ sigma: fixed.baseSigma ?? Number.NaN, normalize });
      const lambdas = tensor(Float64Array.from(list("lambdas")), [2]);
      const landmarks = matrix(fixed.landmarks, d);
      return new FormulaKernel({ name: "spectral", normalize, parameters: { lambdas }, projection: matrix(fixed.projection, 4), landmarks, base });
    }
    default:
      throw new RangeError(`no kernel of the kind ${kind}`);
  }
}

function mixtureOf(of: KernelFamilyCase): Kernel {
  const member = (group: string, kind: string): Kernel => {
    const start = `${group}/${kind}/`;
    const own = Object.entries(of.parameters).filter(([name]) => name.startsWith(start));
    return kernelOf({ ...of, kind }, Object.fromEntries(own.map(([name, values]) => [name.slice(start.length), values])));
  };
  const mixture = kernels.hmk({
    local: { rbf: member("local", "rbf"), polynomial: member("local", "polynomial") },
    global: { spectral: member("global", "spectral"), mahalanobis: member("global", "mahalanobis") },
  });
  for (const [name, logits] of Object.entries(mixture.parameters)) {
    if (name.endsWith("logits")) logits.data.set(named(of.parameters, name));
  }
  return mixture;
}

describeBackends(() => {
  describe("fixtures", () => {
    const { kernels: family, pairwise } = loadFixture("pair_kernel");
    it.each(combinations(family, WIDE_STORAGES))("equal PyTorch's autograd: $name, $storage", async (of) => {
      const { n, d, expected, storage } = of;
      const kernel = of.kind === "mixture" ? mixtureOf(of) : kernelOf(of, of.parameters);
      const [u, v] = [tensorOf(of.u, [n, d], storage), tensorOf(of.v, [n, d], storage)];
      const { logK, grads, diagnostics } = await resultOf(faces, { u, v, kernel, upstream: Float64Array.from(of.upstream) });
      expectValuesOf(logK, expected.logK, storage, "logK");
      const largest = (values: readonly number[]): number => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const sides = { u: expected.gradU, v: expected.gradV };
      for (const side of ["u", "v"] as const) {
        const truth = sides[side];
        expectGradientOf(grads?.[side] as Tensor, truth, new Float64Array(truth.length).fill(largest(truth)), `gradient of ${side}`);
      }
      expect(Object.keys(grads?.params ?? {}).sort()).toEqual(Object.keys(expected.gradParameters).sort());
      for (const [name, truth] of Object.entries(expected.gradParameters)) {
        expectValues(named(grads?.params ?? {}, name).data, truth, {
          abs: 1e-12 * Math.max(1, largest(truth)),
          rel: 1e-11,
          label: `gradient of ${name}`,
        });
      }
      if (expected.responsibilities) expectValuesOf(diagnostics?.responsibilities as Tensor, expected.responsibilities, storage, "responsibilities");
    });

    it.each(pairwise)("equal scikit-learn's pairwise kernels: $name", ({ name, options, n, d, u, v, logK }) => {
      const [kind = ""] = name.split(" ");
      const make = named(
        {
          rbf: kernels.rbf,
          laplacian: kernels.laplacian,
          polynomial: kernels.polynomial,
          matern: kernels.matern,
          rational_quadratic: kernels.rationalQuadratic,
        },
        kind,
      ) as (given: object) => Kernel;
      const given = Object.fromEntries(Object.entries(options).map(([key, value]) => [key, value === "inf" ? Infinity : value]));
      const kernel = make({ ...given, normalize: false });
      expectValues(pairKernelSync({ u: tensorOf(u, [n, d], "f64"), v: tensorOf(v, [n, d], "f64"), kernel }).logK.data, logK, {
        abs: 1e-13,
        rel: 1e-13,
      });
    });
  });

  describe("values and gradients", () => {
    it.each(combinations(ALL_CASES, STORAGES))("equal float64's: $name, $storage", async ({ make, storage }) => {
      for (const normalize of [true, false]) {
        for (const [rows, depth] of [
          [19, 9],
          [3, 40],
          [1, 17],
        ] as const) {
          await expectTruth(randomPairs({ rows, depth, storage }), storage, make({ depth, normalize }));
        }
      }
    });

    it.each(ALL_CASES)("equal float64's for rows of one number: $name", async ({ make }) => {
      for (const storage of WIDE_STORAGES) {
        const [u, v] = [tensorOf([0.5, -1.25, 2], [3, 1], storage), tensorOf([0.25, 1, 2.5], [3, 1], storage)];
        const upstream = Float64Array.of(1, -0.5, 2);
        await expectTruth({ u, v, upstream }, storage, make({ depth: 1, normalize: false }));
        const { grads } = faces.sync({ u, v, upstream, kernel: make({ depth: 1, normalize: true }) });
        // A normalised row of one number is a sign.
        for (const gradient of [grads?.u, grads?.v]) expectValues(gradient?.data ?? [], [0, 0, 0], { abs: 1e-13, rel: 0 });
      }
    });

    it.each(combinations(ALL_CASES, WIDE_STORAGES))("equal float64's for near-duplicate rows: $name, $storage", async ({ make, storage }) => {
      const random = createRandom(3);
      const { u, upstream } = randomPairs({ rows: 4, depth: 12, storage });
      const near = Float64Array.from(valuesOf(u), (x) => x * (1 + 1e-3 * random.normal()));
      const v = tensorOf(near, [4, 12], storage);
      for (const normalize of [true, false]) await expectTruth({ u, v, upstream }, storage, make({ depth: 12, normalize }));
    });

    it.each(ALL_CASES)("do not vanish for unit-variance embeddings that are not normalised: $name", ({ make }) => {
      for (const depth of [64, 512, 4096]) {
        for (const storage of ["f32", "bf16"] as const) {
          const given = randomPairs({ rows: 3, depth, storage });
          // Bandwidths that fit the embeddings, and one that is far too narrow for them.
          for (const kernel of [make({ depth, normalize: false }), make({ depth, normalize: true })]) {
            const { logK, grads } = faces.sync({ ...given, kernel });
            for (const value of logK.data) expect(value).toBeGreaterThan(-2000);
            for (const gradient of [grads?.u, grads?.v]) expect(nonzeroShare(gradient)).toBeGreaterThan(0.95);
          }
        }
      }
    });

    it.each(["rbf", "matern 2.5", "polynomial, unitDiagonal true", "spectral, unitDiagonal true", "random_fourier"])(
      "reach far below the smallest double's logarithm, and keep their gradient: %s",
      (name) => {
        const given = randomPairs({ rows: 3, depth: 1024, storage: "f32" });
        const narrow = { depth: 1024, normalize: false } as const;
        const kernel = {
          rbf: kernels.rbf({ sigma: 0.5, normalize: false }),
          "matern 2.5": kernels.matern({ nu: 2.5, sigma: 0.02, normalize: false }),
          "polynomial, unitDiagonal true": kernels.polynomial({ degree: 500, coef0: 10, normalize: false, unitDiagonal: true }),
          "spectral, unitDiagonal true": spectral({ ...narrow, unitDiagonal: false, base: kernels.rbf({ sigma: 0.5, normalize: false }) }),
          random_fourier: randomFourier(narrow, 6, 0.01),
        }[name] as Kernel;
        const { logK, grads } = faces.sync({ ...given, kernel });
        for (const value of logK.data) expect(Number.isFinite(value)).toBe(true);
        if (name !== "random_fourier") for (const value of logK.data) expect(value).toBeLessThan(-800);
        for (const gradient of [grads?.u, grads?.v]) expect(nonzeroShare(gradient)).toBeGreaterThan(0.95);
      },
    );

    it("are exactly 0 for identical rows, of kernels of the distance", async () => {
      const radial = [...KERNEL_CASES, ...MIXTURE_CASES].filter(({ name }) => !/poly|spectral|hmk|every|false/.test(name));
      expect(radial.length).toBeGreaterThan(10);
      for (const storage of STORAGES) {
        const { u, upstream } = randomPairs({ rows: 4, depth: 21, storage });
        for (const { name, make } of radial) {
          for (const normalize of [true, false]) {
            const { logK, grads } = await resultOf(faces, { u, v: u, kernel: make({ depth: 21, normalize }), upstream });
            const isMixture = name === "uneven tree"; // its weights add up to 1 but for rounding
            expectValues(logK.data, [0, 0, 0, 0], { abs: isMixture ? 1e-15 : 0, label: name });
            for (const gradient of [grads?.u, grads?.v]) expectValues(valuesOf(gradient as Tensor), new Float64Array(84), { abs: 0, label: name });
          }
        }
      }
    });

    it("of a spectral kernel hold far from every landmark, where each base value underflows", async () => {
      for (const unitDiagonal of [true, false]) {
        const shape = { depth: 6, normalize: false };
        const landmarks = Float64Array.from(landmarkRows(createRandom(5), 5, shape), (x) => x + 100);
        const kernel = spectral({ ...shape, unitDiagonal, landmarks, base: kernels.rbf({ sigma: 0.8, normalize: false }) });
        const { logK } = await expectTruth(randomPairs({ rows: 4, depth: 6, storage: "f64" }), "f64", kernel);
        if (!unitDiagonal) for (const value of logK.data) expect(value).toBeLessThan(-1e4);
      }
    });

    it("of a spectral kernel hold for repeated landmarks and for rows that are landmarks", async () => {
      const shape = { depth: 7, normalize: true };
      const rows = landmarkRows(createRandom(6), 3, shape);
      const landmarks = Float64Array.of(...rows, ...rows.subarray(0, 14));
      for (const nu of [0.5, 1.5, Infinity] as const) {
        const kernel = spectral({ ...shape, landmarks, base: kernels.matern({ nu, sigma: 0.9 }) });
        const [u, v] = [tensor(rows.slice(), [3, 7]), tensor(landmarks.slice(7, 28), [3, 7])];
        const inputs = inputsOf({ u, v });
        const { logK, grads } = await resultOf(faces, { u, v, kernel, upstream: Float64Array.of(1, 2, -1) });
        expectValues(logK.data, logKernelTruth(kernel, inputs).logK, { abs: 1e-7, rel: 1e-7 }); // ν = ½ is as steep as √ where rows meet landmarks
        for (const gradient of [grads?.u, grads?.v]) expect([...valuesOf(gradient as Tensor)].every(Number.isFinite)).toBe(true);
      }
    });
  });

  describe("finite differences", () => {
    it.each(ALL_CASES)("agree with the gradients of u, v and every parameter in f64: $name", ({ make }) => {
      for (const normalize of [true, false]) {
        const shape = { depth: 4, normalize };
        const { u, v, upstream } = randomPairs({ rows: 2, depth: 4, storage: "f64", seed: 11 });
        const kernel = make(shape);
        const { grads } = faces.sync({ u, v, kernel, upstream });
        const loss = (changed: Partial<Pairs> = {}): number => dot(faces.sync({ u, v, ...changed, kernel }).logK.data, upstream);
        for (const key of ["u", "v"] as const) {
          const value = (x: Float64Array): number => loss({ [key]: tensor(x.slice(), [2, 4]) });
          expectFiniteDifferences(value, key === "u" ? u.data : v.data, grads?.[key].data ?? [], { label: `${key}, ${normalize}`, step: 2 ** -8 });
        }
        for (const [name, parameter] of Object.entries(kernel.parameters)) {
          const before = parameter.data.slice();
          const value = (x: Float64Array): number => {
            parameter.data.set(x);
            return loss();
          };
          const smallest = before.reduce((least, x) => Math.min(least, Math.abs(x)), 1);
          const step = /factor|logits/.test(name) ? 2 ** -6 : Math.max(smallest, 1e-3) / 8;
          expectFiniteDifferences(value, before, grads?.params[name]?.data ?? [], { label: `${name}, ${normalize}`, step });
          parameter.data.set(before);
        }
      }
    });

    it("agree with the gradient of the groups' entropies", () => {
      const vjp = compound(vjpSteps).sync;
      for (const { name, make } of MIXTURE_CASES) {
        const kernel = make({ depth: 3, normalize: true }) as MixtureKernel;
        const { u, v } = randomPairs({ rows: 2, depth: 3, storage: "f64" });
        const given = { u, v, kernel };
        const logK = tensor(Float64Array.of(0.3, -0.7), [1, 2]);
        const [with2, without] = [2, 0].map((entropy) => vjp({ ...given, upstream: { logK, entropy } }).params);
        const logits = Object.keys(kernel.parameters).filter((key) => key.endsWith("logits"));
        expect(logits.length).toBeGreaterThan(0);
        for (const key of logits) {
          const parameter = kernel.parameters[key] as Tensor<"f64">;
          const before = parameter.data.slice();
          const entropies = (x: Float64Array): number => {
            parameter.data.set(x);
            const { diagnostics } = faces.sync(given);
            parameter.data.set(before);
            return 2 * Object.values(diagnostics?.entropies ?? {}).reduce((sum, entropy) => sum + entropy, 0);
          };
          const own = with2?.[key]?.data.map((g, i) => g - (without?.[key]?.data[i] ?? 0)) ?? [];
          expectFiniteDifferences(entropies, before, own, { label: `${name}, ${key}` });
        }
      }
    });
  });

  describe("laws", () => {
    it.each(ALL_CASES)("u and v may change places, and so do their gradients: $name", ({ make }) => {
      for (const normalize of [true, false]) {
        const { u, v, upstream } = randomPairs({ rows: 5, depth: 10, storage: "f64" });
        const kernel = make({ depth: 10, normalize });
        const one = faces.sync({ u, v, kernel, upstream });
        const other = faces.sync({ u: v, v: u, kernel, upstream });
        const bounds = { abs: 1e-12, rel: 1e-10 };
        expectValues(other.logK.data, one.logK.data, { ...bounds, label: "logK" });
        expectValues(other.grads?.u.data ?? [], one.grads?.v.data ?? [], { ...bounds, label: "gradient of v" });
        expectValues(other.grads?.v.data ?? [], one.grads?.u.data ?? [], { ...bounds, label: "gradient of u" });
      }
    });

    it.each(ALL_CASES)("rows do not see each other: their order changes no bit, nor does leaving some out: $name", ({ make }) => {
      for (const storage of ["f32", "f64"] as const) {
        const { u, v, upstream } = randomPairs({ rows: 37, depth: 10, storage });
        const kernel = make({ depth: 10, normalize: true });
        const whole = faces.sync({ u, v, kernel, upstream });
        for (const order of [permutation(37, createRandom(1).integer), Int32Array.of(30, 2, 17)]) {
          const inOrder = (values: Tensor): Tensor => rowsAt(values, order);
          const part = Float64Array.from(order, (row) => upstream[row] ?? 0);
          const some = faces.sync({ u: inOrder(u), v: inOrder(v), kernel, upstream: part });
          expectBitwiseEqual(some.logK.data, inOrder(whole.logK).data);
          expectBitwiseEqual(some.grads?.u.data ?? [], inOrder(whole.grads?.u as Tensor).data);
          expectBitwiseEqual(some.grads?.v.data ?? [], inOrder(whole.grads?.v as Tensor).data);
          const shares = whole.diagnostics?.responsibilities;
          if (shares) expectBitwiseEqual(some.diagnostics?.responsibilities.data ?? [], inOrder(shares).data);
        }
      }
    });

    it.each(ALL_CASES)("values do not depend on whether gradients are asked for: $name", ({ make }) => {
      const { upstream, ...pair } = randomPairs({ rows: 19, depth: 10, storage: "f32" });
      const kernel = make({ depth: 10, normalize: true });
      const { grads: _, ...values } = faces.sync({ ...pair, kernel, upstream });
      expectSameResults(values, faces.sync({ ...pair, kernel }));
    });

    it("two sides at once give what each gives alone", () => {
      for (const { make } of ALL_CASES) {
        const kernel = make({ depth: 10, normalize: true });
        const { u, v, upstream } = randomPairs({ rows: 19, depth: 10, storage: "f64" });
        const other = randomPairs({ rows: 19, depth: 10, storage: "f64", seed: 2 });
        const both = compound(valueSteps).sync({ u, sides: [v, other.v], kernel }).logK.data;
        const grads = compound(vjpSteps).sync({
          u,
          v,
          more: [other.v],
          kernel,
          upstream: { logK: tensor(Float64Array.of(...upstream, ...other.upstream), [2, 19]) },
        });
        const ones = [faces.sync({ u, v, kernel, upstream }), faces.sync({ u, v: other.v, kernel, upstream: other.upstream })] as const;
        expectBitwiseEqual(both, Float64Array.of(...(ones[0].logK.data as Float64Array), ...(ones[1].logK.data as Float64Array)));
        grads.sides.forEach((gradient, side) => {
          expectValues(gradient.data, ones[side]?.grads?.v.data ?? [], { abs: 1e-13, rel: 1e-12 });
        });
        const sum = ones[0].grads?.u.data.map((g, i) => g + (ones[1].grads?.u.data[i] ?? 0)) ?? [];
        expectValues(grads.u.data, sum, { abs: 1e-12, rel: 1e-11 });
        for (const [name, { data }] of Object.entries(grads.params)) {
          const parts = data.map((_, i) => (ones[0].grads?.params[name]?.data[i] ?? 0) + (ones[1].grads?.params[name]?.data[i] ?? 0));
          expectValues(data, parts, { abs: 1e-12, rel: 1e-11, label: name });
        }
      }
    });

    it("with a unit diagonal log k(u, u) is 0, alone and in mixtures, whatever the rows", () => {
      for (const { name, make } of ALL_CASES.filter(({ name }) => !/false|every/.test(name))) {
        for (const normalize of [true, false]) {
          const { u, upstream } = randomPairs({ rows: 6, depth: 11, storage: "f64" });
          const { logK } = faces.sync({ u, v: tensor(u.data.slice() as Float64Array, u.shape), kernel: make({ depth: 11, normalize }), upstream });
          const base = /spectral of poly|spectral of matern|spectral of many/.test(name); // alone these keep their diagonal
          if (!base) expectValues(logK.data, new Float64Array(6), { abs: 2e-15, rel: 0, label: name });
        }
      }
    });

    it("a mixture of one kernel is that kernel with a unit diagonal", () => {
      const { u, v, upstream } = randomPairs({ rows: 7, depth: 9, storage: "f64" });
      for (const { make } of KERNEL_CASES) {
        const one = make({ depth: 9, normalize: true });
        if (one.name === "mixture" || one.unitDiagonal === false) continue;
        const alone = one.unitDiagonal === true || !["spectral", "polynomial", "rbf_mixture"].includes(one.name);
        if (!alone) continue;
        const nested = kernels.mixture({ inner: kernels.mixture({ one }) });
        const [mixed, plain] = [nested, one].map((kernel) => faces.sync({ u, v, kernel, upstream }));
        expectBitwiseEqual(mixed?.logK.data ?? [], plain?.logK.data ?? []);
        expectBitwiseEqual(mixed?.grads?.u.data ?? [], plain?.grads?.u.data ?? []);
        expect([...(mixed?.grads?.params.logits?.data ?? [])]).toEqual([0]);
        expect(mixed?.diagnostics?.entropies).toEqual({ "": 0, inner: 0 });
        expect(mixed?.diagnostics?.weights).toEqual({ inner: 1, "inner/one": 1 });
      }
    });

    it("responsibilities add up to 1, and weights within each group", () => {
      for (const { make } of MIXTURE_CASES) {
        const { upstream: _, ...pair } = randomPairs({ rows: 33, depth: 8, storage: "f64" });
        const { diagnostics } = faces.sync({ ...pair, kernel: make({ depth: 8, normalize: true }) });
        if (diagnostics === undefined) throw new Error("no diagnostics");
        const { responsibilities, kernels: paths, weights, entropies } = diagnostics;
        expect(responsibilities.shape).toEqual([33, paths.length]);
        for (let row = 0; row < 33; row++) {
          const total = valuesOf(responsibilities.rows(row, row + 1)).reduce((sum, share) => sum + share, 0);
          expectValue(total, 1, { abs: 1e-14, rel: 0 });
        }
        for (const group of Object.keys(entropies)) {
          const within = Object.keys(weights).filter((path) => parentOf(path) === group);
          expectValue(
            within.reduce((sum, path) => sum + (weights[path] ?? Number.NaN), 0),
            1,
            { abs: 1e-14, rel: 0 },
          );
          expect(entropies[group]).toBeLessThanOrEqual(Math.log(within.length) + 1e-14);
        }
      }
    });

    it("logits that leave one member everything stay finite", () => {
      const { u, v, upstream } = randomPairs({ rows: 4, depth: 8, storage: "f64" });
      for (const high of [0, 1]) {
        const members = { rbf: kernels.rbf({ sigma: 0.8 }), polynomial: kernels.polynomial() };
        const kernel = new MixtureKernel(members, high === 0 ? logits(700, -700) : logits(-700, 700));
        const { logK, grads, diagnostics } = faces.sync({ u, v, upstream, kernel });
        const only = high === 0 ? members.rbf : kernels.polynomial({ unitDiagonal: true });
        expectValues(logK.data, faces.sync({ u, v, kernel: only }).logK.data, { abs: 1e-14, rel: 1e-14 });
        for (const { data } of Object.values(grads?.params ?? {})) expect([...data].every(Number.isFinite)).toBe(true);
        expect(diagnostics?.entropies).toEqual({ "": 0 });
        expectValues(
          diagnostics?.responsibilities.data ?? [],
          [1, 0, 1, 0, 1, 0, 1, 0].map((share) => (high === 0 ? share : 1 - share)),
          { abs: 0, rel: 0 },
        );
      }
    });

    it("the tangent takes over from the logarithm without a step in value or slope", () => {
      const floor = 0.2;
      const kernelsWithFloor: [string, Kernel, number][] = [
        ["polynomial", kernels.polynomial({ degree: 2, coef0: 0, normalize: false, floor }), floor],
        ["wavelet", kernels.wavelet({ sigma: 1, normalize: false, floor }), Math.sqrt(2 * Math.acos(floor))],
      ];
      for (const [name, kernel, place] of kernelsWithFloor) {
        // polynomial: u = (x, √(1 − x²)), v = (1, 0), so that ⟨u, v⟩ = x; wavelet: a distance of x.
        const at = (x: number) => {
          const u = name === "wavelet" ? [x, 0] : [x, Math.sqrt(1 - x * x)];
          const v = name === "wavelet" ? [0, 0] : [1, 0];
          const { logK, grads } = faces.sync({
            u: tensor(Float64Array.from(u), [1, 2]),
            v: tensor(Float64Array.from(v), [1, 2]),
            kernel,
            upstream: Float64Array.of(1),
          });
          return { value: logK.data[0] ?? Number.NaN, slope: [...(grads?.u.data ?? [])] };
        };
        const [below, above] = [at(place - 1e-9), at(place + 1e-9)];
        expectValue(below.value, above.value, { abs: 1e-7, rel: 0, label: name });
        expectValues(below.slope, above.slope, { abs: 1e-6, rel: 0, label: name });
        expect(Math.abs(below.value - above.value)).toBeGreaterThan(0); // it does change along the way
      }
    });

    it("is scikit-learn's laplacian and polynomial, by their own names for the bandwidth", () => {
      const { upstream: _, ...given } = randomPairs({ rows: 3, depth: 7, storage: "f64" });
      const [one, other] = [kernels.laplacian({ sigma: 4 }), kernels.laplacian({ gamma: 0.25 })].map((kernel) => faces.sync({ ...given, kernel }));
      expectSameResults(one as PairKernelResult, other as PairKernelResult);
    });
  });

  const outOf = ({ logK, grads }: PairKernelResult) => (grads === undefined ? { logK } : { logK, u: grads.u, v: grads.v });
  for (const { name, make } of MIXTURE_CASES) {
    const { upstream, ...pair } = randomPairs({ rows: 71, depth: 390, storage: "f32" });
    const kernel = make({ depth: 390, normalize: true });
    describeCall({ name: `pairKernel of ${name}`, faces, args: (): PairKernelArgs => ({ ...pair, kernel }), outOf });
    describeCall({ name: `pairKernel of ${name} with gradients`, faces, args: (): PairKernelArgs => ({ ...pair, kernel, upstream }), outOf });
  }

  describe("refuses", () => {
    it("an element that is not finite, by name and index, whatever the kernel", async () => {
      for (const { make } of ALL_CASES) {
        for (const key of ["u", "v"] as const) {
          const { u, v, upstream } = randomPairs({ rows: 3, depth: 4, storage: "f32" });
          (key === "u" ? u : v).data[6] = Number.NaN;
          for (const normalize of [true, false]) {
            await expectRefusal(
              faces,
              { u, v, upstream, kernel: make({ depth: 4, normalize }) },
              { code: "ERR_NONFINITE", index: 6, message: new RegExp(`^${key}`) },
            );
          }
        }
      }
    });

    it("a logarithm that is not finite, by its row, and leaves supplied memory alone", async () => {
      const { u, v, upstream } = randomPairs({ rows: 3, depth: 4, storage: "f64" });
      u.data.fill(0, 4, 8);
      const kernel = kernels.polynomial({ coef0: 0, normalize: false });
      await expectRefusal(faces, { u, v, kernel }, { code: "ERR_RANGE", index: 1, message: /row 1/ });
      const out = {
        logK: tensor(new Float64Array(3).fill(7), [3]),
        u: tensor(new Float64Array(12).fill(7), [3, 4]),
        v: tensor(new Float64Array(12).fill(7), [3, 4]),
      };
      expect(() => faces.sync({ u, v, upstream, kernel }, { out })).toThrow(expect.objectContaining({ code: "ERR_RANGE", index: 1 }));
      for (const { data } of Object.values(out)) expect([...data].every((x) => x === 7)).toBe(true);
      const mixed = kernels.mixture({ kernel, rbf: kernels.rbf({ normalize: false }) });
      await expectRefusal(faces, { u, v, kernel: mixed }, { code: "ERR_RANGE", index: 1 });
    });

    it("a logarithm past the range of f32, which an f64 one holds", async () => {
      const [u, v] = [Float32Array.of(1e20, 0), Float32Array.of(-1e20, 0)].map((row) => tensor(row, [1, 2])) as [Tensor, Tensor];
      const kernel = kernels.rbf({ normalize: false });
      await expectRefusal(faces, { u, v, kernel }, { code: "ERR_RANGE", index: 0 });
      const wide = (x: Tensor): Tensor => tensor(Float64Array.from(x.data), [1, 2]);
      expect(faces.sync({ u: wide(u), v: wide(v), kernel }).logK.data[0]).toBeLessThan(-1e40);
    });

    it("a kernel that is not fitted, parameters out of range, and parts of other widths", async () => {
      const { u, v } = randomPairs({ rows: 3, depth: 4, storage: "f32" });
      for (const kernel of [kernels.hmk(), kernels.spectral(), kernels.rbf({ sigma: "median" }), kernels.mahalanobis()]) {
        await expectRefusal(faces, { u, v, kernel }, { code: "ERR_RANGE", message: /fitKernel/ });
      }
      const factor = tensor(new Float64Array(5).fill(1), [5]);
      await expectRefusal(faces, { u, v, kernel: kernels.mahalanobis({ factor }) }, { code: "ERR_SHAPE", message: /factor/ });
      await expectRefusal(faces, { u, v, kernel: spectral({ depth: 5, normalize: true }) }, { code: "ERR_SHAPE", message: /landmarks/ });
      await expectRefusal(faces, { u, v, kernel: randomFourier({ depth: 5, normalize: true }) }, { code: "ERR_SHAPE", message: /frequencies/ });
      for (const { make } of KERNEL_CASES) {
        const kernel = make({ depth: 4, normalize: true });
        for (const [name, { data }] of Object.entries(kernel.parameters)) {
          const before = data.slice();
          data[0] = Number.NaN;
          await expectRefusal(faces, { u, v, kernel }, { code: "ERR_NONFINITE" });
          data[0] = -1;
          if (!name.includes("factor")) await expectRefusal(faces, { u, v, kernel }, { code: "ERR_RANGE" });
          data.set(before);
        }
      }
    });
  });
}, ["pairKernel", "pairKernelVjp"]);

function logits(...values: number[]): Tensor<"f64"> {
  return tensor(Float64Array.from(values), [values.length]);
}

function parentOf(path: string): string {
  return path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "";
}

/** The steps that objectives are made of, with one argument as compound wants them. */
function vjpSteps({
  u,
  v,
  more = [],
  kernel,
  upstream,
}: {
  u: Tensor;
  v: Tensor;
  more?: Tensor[];
  kernel: Kernel;
  upstream: { logK: Tensor; entropy?: number };
}) {
  return logKernelVjpSteps(u, [v, ...more], kernel, upstream);
}

function valueSteps({ u, sides, kernel }: { u: Tensor; sides: Tensor[]; kernel: Kernel }) {
  return logKernelSteps(u, sides, kernel);
}
