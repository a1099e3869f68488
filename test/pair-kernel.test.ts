import {
  DpoKernelsError,
  type Kernel,
  kernels,
  type PairKernelArgs,
  type PairKernelResult,
  pairKernel,
  pairKernelSync,
  type Tensor,
  tensor,
  zeros,
} from "dpo-kernels";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EMBEDDING_SHAPES, shapesFor } from "../bench/shapes.js";
import { describeBackends } from "./support/backends.js";
import { expectBitwiseEqual, expectUlps, expectValue, expectValues } from "./support/bounds.js";
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
import { describeCall } from "./support/laws.js";
import { createRandom } from "./support/random.js";
import type { Storage } from "./support/storage.js";
import { loadFixture } from "./support/truth/fixtures.js";
import { dot } from "./support/truth/numbers.js";
import { rbfLogKernel as truthOf, rbfLogKernelVjp as truthOfVjp } from "./support/truth/pair-kernel.js";

const faces = { sync: pairKernelSync, async: pairKernel };

interface Case {
  readonly u: Tensor;
  readonly v: Tensor;
  readonly upstream: Float64Array;
}

interface Rbf {
  readonly sigma: number;
  readonly normalize: boolean;
}

function randomCase({ rows, depth, storage, seed = 1 }: { rows: number; depth: number; storage: Storage; seed?: number }): Case {
  const random = createRandom(seed + 10_000 * rows + depth);
  const [u, v] = [random, random].map((from) => tensorOf(from.normals(rows * depth), [rows, depth], storage)) as [Tensor, Tensor];
  return { u, v, upstream: Float64Array.from(random.normals(rows), Math.fround) };
}

/** Checks values and gradients of both faces against float64 on the same rounded inputs. */
async function expectTruth({ u, v, upstream }: Case, storage: Storage, rbf: Rbf): Promise<PairKernelResult> {
  const kernel = kernels.rbf(rbf);
  const inputs = { u: valuesOf(u), v: valuesOf(v), width: u.shape[1] ?? 0, ...rbf };
  const values = await resultOf(faces, { u, v, kernel });
  expect(values).not.toHaveProperty("grads");
  expectValuesOf(values.logK, truthOf(inputs), storage, "logK");
  const result = await resultOf(faces, { u, v, kernel, upstream });
  expectBitwiseEqual(result.logK.data, values.logK.data, { label: "logK, with gradients" });
  expectGradients(result, truthOfVjp({ ...inputs, upstream }));
  return result;
}

function expectGradients({ grads }: PairKernelResult, truth: ReturnType<typeof truthOfVjp>): void {
  if (grads === undefined) throw new Error("no gradients");
  // Arithmetic is in double from the inputs on, so nothing cancels in 16 bits but a normalised row of one number, whose gradient is 0.
  const strict = grads.u.shape[1] !== 1;
  expectGradientOf(grads.u, truth.u, truth.termSums.u, "gradient of u", { strict });
  expectGradientOf(grads.v, truth.v, truth.termSums.v, "gradient of v", { strict });
  const { sigma } = grads.params;
  expect(Object.keys(grads.params)).toEqual(["sigma"]);
  expectValues(sigma?.data ?? [], [truth.sigma], { abs: 20 * truth.termSums.sigma * 2 ** -52, rel: 1e-12, label: "gradient of sigma" });
}

describeBackends(() => {
  describe("values and gradients", () => {
    it.each(combinations(loadFixture("pair_kernel").cases, WIDE_STORAGES))(
      "equal PyTorch's: $name, $storage",
      async ({ n, d, sigma, normalize, expected, storage, ...inputs }) => {
        const [u, v] = [tensorOf(inputs.u, [n, d], storage), tensorOf(inputs.v, [n, d], storage)];
        const upstream = Float64Array.from(inputs.upstream);
        const result = await resultOf(faces, { u, v, kernel: kernels.rbf({ sigma, normalize }), upstream });
        expectValuesOf(result.logK, expected.logK, storage, "logK");
        const { termSums } = truthOfVjp({ ...inputs, width: d, sigma, normalize });
        expectGradientOf(result.grads?.u as Tensor, expected.gradU, termSums.u, "gradient of u");
        expectGradientOf(result.grads?.v as Tensor, expected.gradV, termSums.v, "gradient of v");
        const ofSigma = result.grads?.params.sigma?.data[0] ?? Number.NaN;
        expectValue(ofSigma, expected.gradSigma, { abs: 20 * termSums.sigma * 2 ** -52, rel: 1e-12 });
        expectValue(-(sigma ** 3) * ofSigma, expected.gradGamma, { abs: 20 * termSums.gamma * 2 ** -52, rel: 1e-12 });
      },
    );

    it.each(combinations(shapesFor("test", EMBEDDING_SHAPES), STORAGES))(
      "equal float64's: $name, $rows x $depth, $storage",
      async ({ rows, depth, storage }) => {
        const given = randomCase({ rows, depth, storage });
        await expectTruth(given, storage, { sigma: 0.7, normalize: true });
        await expectTruth(given, storage, { sigma: Math.sqrt(depth), normalize: false });
      },
    );

    it.each(combinations([{ sigma: 0.05 }, { sigma: 20 }, { sigma: 1e-3 }, { sigma: 1e4 }], STORAGES))(
      "equal float64's: sigma $sigma, $storage",
      async ({ sigma, storage }) => {
        const given = randomCase({ rows: 5, depth: 12, storage });
        for (const normalize of [true, false]) {
          // In 16 bits, gradients past the type's range are another matter.
          if (storage === "f16" && sigma < 0.01) continue;
          await expectTruth(given, storage, { sigma, normalize });
        }
      },
    );

    it.each(
      combinations(
        [64, 128, 256, 512, 1024, 2048, 4096].map((depth) => ({ depth })),
        STORAGES,
      ),
    )("do not vanish for unit-variance embeddings that are not normalised: $depth, $storage", async ({ depth, storage }) => {
      const given = randomCase({ rows: 3, depth, storage });
      const { logK, grads } = await expectTruth(given, storage, { sigma: 1, normalize: false });
      for (const value of logK.data) expect(value).toBeLessThan(-depth / 2); // e^logK is 0 even in double from here on
      for (const gradient of [grads?.u, grads?.v]) {
        const nonzero = valuesOf(gradient as Tensor).filter((g) => g !== 0).length;
        expect(nonzero).toBeGreaterThan(0.95 * 3 * depth);
      }
    });

    it.each(combinations([{ spread: 1e-1 }, { spread: 1e-3 }, { spread: 1e-6 }], WIDE_STORAGES))(
      "equal float64's for near-duplicate rows: $spread, $storage",
      async ({ spread, storage }) => {
        const random = createRandom(2);
        const { u, upstream } = randomCase({ rows: 6, depth: 33, storage });
        const v = tensorOf(
          valuesOf(u).map((x) => x * (1 + spread * random.normal())),
          [6, 33],
          storage,
        );
        const rbf = { sigma: 0.5, normalize: true };
        for (const normalize of [true, false]) await expectTruth({ u, v, upstream }, storage, { ...rbf, normalize });
        // Relative precision: log k of near-duplicates is tiny, and so must its error be.
        const { logK } = faces.sync({ u, v, kernel: kernels.rbf(rbf) });
        const truth = truthOf({ u: valuesOf(u), v: valuesOf(v), width: 33, ...rbf });
        expectValues(logK.data, truth, { abs: 0, rel: storage === "f32" ? 1e-6 : 1e-9 });
      },
    );

    it.each(STORAGES)("are exactly 0 for identical rows, %s", async (storage) => {
      const { u, upstream } = randomCase({ rows: 4, depth: 50, storage });
      for (const normalize of [true, false]) {
        for (const v of [u, tensorOf(valuesOf(u), [4, 50], storage)]) {
          const { logK, grads } = await resultOf(faces, { u, v, kernel: kernels.rbf({ sigma: 0.3, normalize }), upstream });
          for (const result of [logK, grads?.u, grads?.v, grads?.params.sigma] as Tensor[]) {
            expectValues(valuesOf(result), new Float64Array(result.size), { abs: 0, label: `normalize ${normalize}` });
          }
        }
      }
    });

    it.each([1e-200, 1e-100, 1e-30, 1e30, 1e100, 1e160, 1e200])("hold, or are refused, for normalised f64 rows of length about %d", (length) => {
      const { u, v, upstream } = randomCase({ rows: 3, depth: 8, storage: "f64" });
      const scaled = tensorOf(
        valuesOf(u).map((x) => x * length),
        [3, 8],
        "f64",
      );
      const kernel = kernels.rbf({ sigma: 0.7 });
      const plain = faces.sync({ u, v, kernel, upstream });
      let result: PairKernelResult;
      try {
        result = faces.sync({ u: scaled, v, kernel, upstream });
      } catch (error) {
        expect(Math.abs(Math.log10(length))).toBeGreaterThan(150); // squares of the rest are doubles
        expect(error).toBeInstanceOf(DpoKernelsError);
        return;
      }
      expectValuesOf(result.logK, plain.logK.data, "f64", "logK");
      expectValues(result.grads?.v.data ?? [], plain.grads?.v.data ?? [], { abs: 1e-12, rel: 1e-12, label: "gradient of v" });
    });

    it("are stored: logK as f32 for 16-bit inputs, gradients as the inputs, of parameters as f64", () => {
      for (const storage of STORAGES) {
        const { logK, grads } = faces.sync({ ...randomCase({ rows: 2, depth: 3, storage }), kernel: kernels.rbf() });
        expect([logK.dtype, grads?.u.dtype, grads?.v.dtype, grads?.params.sigma?.dtype]).toEqual([
          storage === "f64" ? "f64" : "f32",
          storage,
          storage,
          "f64",
        ]);
        expect([logK.shape, grads?.u.shape, grads?.v.shape, grads?.params.sigma?.shape]).toEqual([[2], [2, 3], [2, 3], [1]]);
      }
    });
  });

  describe("finite differences", () => {
    it.each([
      { sigma: 0.7, normalize: true },
      { sigma: 1.3, normalize: false },
      { sigma: 0.2, normalize: true },
    ])("agree with the gradients of u, v and sigma in f64: %j", (rbf) => {
      const given = randomCase({ rows: 3, depth: 5, storage: "f64", seed: 7 });
      const { upstream } = given;
      const { grads } = faces.sync({ ...given, kernel: kernels.rbf(rbf) });
      for (const key of ["u", "v"] as const) {
        const value = (x: Float64Array): number => {
          const moved = tensor(x.slice(), [3, 5]);
          return dot(faces.sync({ u: given.u, v: given.v, [key]: moved, kernel: kernels.rbf(rbf) }).logK.data, upstream);
        };
        expectFiniteDifferences(value, given[key].data, grads?.[key].data ?? [], { label: key });
      }
      const ofSigma = ([sigma = Number.NaN]: Float64Array): number =>
        dot(faces.sync({ u: given.u, v: given.v, kernel: kernels.rbf({ ...rbf, sigma }) }).logK.data, upstream);
      expectFiniteDifferences(ofSigma, [rbf.sigma], grads?.params.sigma?.data ?? [], { label: "sigma", step: rbf.sigma / 8 });
    });
  });

  describe("laws", () => {
    const shapeOf = fc.record({
      rows: fc.integer({ min: 1, max: 20 }),
      depth: fc.integer({ min: 1, max: 60 }),
      seed: fc.nat(1000),
      storage: fc.constantFrom(...STORAGES),
      normalize: fc.boolean(),
    });

    it("u and v may change places, and so do their gradients", () => {
      fc.assert(
        fc.property(shapeOf, ({ storage, normalize, ...shape }) => {
          const { u, v, upstream } = randomCase({ ...shape, storage });
          const rbf = { sigma: 0.8, normalize };
          const { logK, grads } = faces.sync({ u: v, v: u, kernel: kernels.rbf(rbf), upstream });
          const inputs = { u: valuesOf(u), v: valuesOf(v), width: shape.depth, ...rbf };
          const truth = truthOfVjp({ ...inputs, upstream });
          expectValuesOf(logK, truthOf(inputs), storage, "logK");
          expectGradientOf(grads?.v as Tensor, truth.u, truth.termSums.u, "gradient of v");
          expectGradientOf(grads?.u as Tensor, truth.v, truth.termSums.v, "gradient of u");
        }),
        { seed: 1, numRuns: 60 },
      );
    });

    it("rows do not see each other: their order changes no bit", () => {
      fc.assert(
        fc.property(shapeOf, ({ storage, normalize, ...shape }) => {
          const { u, v, upstream } = randomCase({ ...shape, storage });
          const kernel = kernels.rbf({ sigma: 0.8, normalize });
          const order = permutation(shape.rows, createRandom(shape.seed).integer);
          const inOrder = (values: Tensor): Tensor => rowsAt(values, order);
          const whole = faces.sync({ u, v, kernel, upstream });
          const permuted = faces.sync({
            u: inOrder(u),
            v: inOrder(v),
            kernel,
            upstream: Float64Array.from(order, (row) => upstream[row] ?? 0),
          });
          expectBitwiseEqual(permuted.logK.data, inOrder(whole.logK).data);
          expectBitwiseEqual(permuted.grads?.u.data ?? [], inOrder(whole.grads?.u as Tensor).data);
          expectBitwiseEqual(permuted.grads?.v.data ?? [], inOrder(whole.grads?.v as Tensor).data);
        }),
        { seed: 1, numRuns: 60 },
      );
    });

    it("k is at most 1, and a normalised one does not see lengths: its gradient has no part along the row", () => {
      fc.assert(
        fc.property(shapeOf, fc.constantFrom(1 / 8, 2, 64), ({ storage: _, normalize: __, ...shape }, length) => {
          const { u, v, upstream } = randomCase({ ...shape, storage: "f64" });
          const kernel = kernels.rbf({ sigma: 0.6 });
          const one = faces.sync({ u, v, kernel, upstream });
          const gradient = one.grads?.u as Tensor;
          for (const value of one.logK.data) expect(value).toBeLessThanOrEqual(0);
          const longer = faces.sync({
            u: tensorOf(
              valuesOf(u).map((x) => x * length),
              u.shape,
              "f64",
            ),
            v,
            kernel,
            upstream,
          });
          expectBitwiseEqual(longer.logK.data, one.logK.data); // a power of two rounds nothing
          expectBitwiseEqual(longer.grads?.u.data.map((g) => g * length) ?? [], one.grads?.u.data ?? []);
          for (let row = 0; row < shape.rows; row++) {
            const part = (values: Tensor): Float64Array => valuesOf(values.rows(row, row + 1));
            const [x, g] = [part(u), part(gradient)];
            const terms = x.reduce((total, xi, i) => total + Math.abs(xi * (g[i] ?? 0)), 0);
            expectValue(dot(x, g), 0, { abs: 1e-13 * (terms + Math.abs(upstream[row] ?? 0) / 0.36), rel: 0 });
          }
        }),
        { seed: 1, numRuns: 60 },
      );
    });

    it("a common shift of rows that are not normalised changes nothing, and their gradients are opposite", () => {
      const { u, v, upstream } = randomCase({ rows: 4, depth: 9, storage: "f64" });
      const kernel = kernels.rbf({ sigma: 2, normalize: false });
      const grid = (values: Tensor, shift: number) =>
        tensorOf(
          valuesOf(values).map((x) => Math.round(x * 2 ** 20) / 2 ** 20 + shift),
          values.shape,
          "f64",
        );
      const [one, shifted] = [0, 1024].map((shift) => faces.sync({ u: grid(u, shift), v: grid(v, shift), kernel, upstream }));
      expectSameResults(shifted as PairKernelResult, one as PairKernelResult);
      expectValues(one?.grads?.u.data ?? [], one?.grads?.v.data.map((g) => -g) ?? [], { abs: 0, rel: 0 });
    });

    it("gamma is 1/(2 sigma²)", () => {
      const given = randomCase({ rows: 3, depth: 7, storage: "f64" });
      for (const sigma of [0.5, 1, 3]) {
        const [one, other] = [kernels.rbf({ sigma }), kernels.rbf({ gamma: 1 / (2 * sigma ** 2) })].map(
          (kernel) => faces.sync({ ...given, kernel }).logK,
        );
        expectUlps(other?.data ?? [], one?.data ?? [], "f64", { ulps: 4 });
      }
      expectSameResults(
        faces.sync({ ...given, kernel: kernels.rbf() }),
        faces.sync({ ...given, kernel: kernels.rbf({ sigma: 1, normalize: true }) }),
      );
    });

    it("writing to a kernel's parameter changes the kernel", () => {
      const given = randomCase({ rows: 3, depth: 7, storage: "f64" });
      const kernel = kernels.rbf({ sigma: 5 });
      kernel.parameters.sigma?.data.set([0.4]);
      expectSameResults(faces.sync({ ...given, kernel }), faces.sync({ ...given, kernel: kernels.rbf({ sigma: 0.4 }) }));
    });
  });

  const outOf = ({ logK, grads }: PairKernelResult) => (grads === undefined ? { logK } : { logK, u: grads.u, v: grads.v });
  for (const storage of ["f32", "bf16"] as const) {
    const { upstream, ...pair } = randomCase({ rows: 71, depth: 768, storage }); // above 16384 elements, so that threads share it
    const kernel: Kernel = kernels.rbf({ sigma: 0.9 });
    describeCall({ name: `pairKernel, ${storage}`, faces, args: (): PairKernelArgs => ({ ...pair, kernel }), outOf });
    describeCall({ name: `pairKernel with gradients, ${storage}`, faces, args: (): PairKernelArgs => ({ ...pair, kernel, upstream }), outOf });
  }

  describe("refuses", () => {
    const given = { ...randomCase({ rows: 3, depth: 4, storage: "f32" }), kernel: kernels.rbf() };
    const changed = (key: "u" | "v", index: number, value: number, storage: Storage): PairKernelArgs => {
      const both = Object.fromEntries((["u", "v"] as const).map((name) => [name, tensorOf(valuesOf(given[name]), [3, 4], storage)]));
      const numbers = valuesOf(given[key]);
      numbers[index] = value;
      return { ...given, ...both, [key]: tensorOf(numbers, [3, 4], storage) };
    };

    it.each(STORAGES)("an element that is not finite, by name and index, %s", async (storage) => {
      for (const key of ["u", "v"] as const) {
        for (const value of [Number.NaN, Infinity, -Infinity]) {
          const error = { code: "ERR_NONFINITE", index: 6, message: new RegExp(`^${key}: element 6`) };
          for (const normalize of [true, false]) {
            const args = { ...changed(key, 6, value, storage), kernel: kernels.rbf({ normalize }) };
            const { upstream: _, ...withoutGradients } = args;
            await expectRefusal(faces, args, error);
            await expectRefusal(faces, withoutGradients, error);
          }
        }
      }
    });

    it("a row of zeros when normalising, and only then", async () => {
      for (const key of ["u", "v"] as const) {
        const numbers = valuesOf(given[key]).fill(0, 4, 8);
        const args = { ...given, [key]: tensorOf(numbers, [3, 4], "f32") };
        await expectRefusal(faces, args, { code: "ERR_RANGE", message: new RegExp(`^${key}: row 1 is zero`) });
        const { logK } = faces.sync({ ...args, kernel: kernels.rbf({ normalize: false }) });
        expect(Number.isFinite(logK.data[1])).toBe(true);
      }
    });

    it("a bandwidth that is not a number above 0", async () => {
      for (const bad of [0, -1, Number.NaN, Infinity]) {
        for (const options of [{ sigma: bad }, { gamma: bad }]) {
          expect(() => kernels.rbf(options)).toThrow(expect.objectContaining({ code: "ERR_RANGE", message: expect.stringMatching(/rbf.*sigma/) }));
        }
        const kernel = kernels.rbf();
        kernel.parameters.sigma?.data.set([bad]);
        await expectRefusal(
          faces,
          { ...given, kernel },
          { code: expect.stringMatching(/^ERR_(RANGE|NONFINITE)$/) as string, message: /sigma|parameters/ },
        );
      }
      expect(() => kernels.rbf({ sigma: 1, gamma: 1 })).toThrow(
        expect.objectContaining({ code: "ERR_RANGE", message: expect.stringMatching(/not both/) }),
      );
    });

    it("wrong shapes and dtypes, by the argument's name", async () => {
      await expectRefusal(faces, { ...given, u: given.u.reshape([12]) }, { code: "ERR_SHAPE", message: /^u/ });
      await expectRefusal(faces, { ...given, v: zeros([3, 5], "f32") }, { code: "ERR_SHAPE", message: /^v/ });
      await expectRefusal(faces, { ...given, v: zeros([2, 4], "f32") }, { code: "ERR_SHAPE", message: /^v/ });
      await expectRefusal(faces, { ...given, v: zeros([3, 4], "bf16") }, { code: "ERR_DTYPE", message: /^v/ });
      await expectRefusal(faces, { ...given, u: zeros([3, 4], "i32"), v: zeros([3, 4], "i32") }, { code: "ERR_DTYPE", message: /^u/ });
      await expectRefusal(faces, { ...given, upstream: Float32Array.of(1) }, { code: "ERR_SHAPE", message: /upstream/ });
      await expectRefusal(faces, { ...given, upstream: Int32Array.of(1, 2, 3) }, { code: "ERR_DTYPE", message: /upstream/ });
      await expectRefusal(faces, { ...given, u: undefined as unknown as Tensor }, { code: "ERR_DTYPE", message: /^u/ });
      expect(() => zeros([0, 4], "f32")).toThrow(expect.objectContaining({ code: "ERR_SHAPE" }));
    });

    it("an upstream that is not finite", async () => {
      await expectRefusal(faces, { ...given, upstream: Float32Array.of(1, Number.NaN, 0) }, { code: "ERR_NONFINITE", index: 1, message: /upstream/ });
    });
  });
}, ["pairKernel", "pairKernelVjp"]);
