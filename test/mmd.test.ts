import { gramSync, type Kernel, kernels, type MmdArgs, type MmdEstimator, mmd, mmdSync, type Tensor } from "dpo-kernels";
import { describe, expect, it } from "vitest";
import { describeBackends, isSimulating } from "./support/backends.js";
import { expectGradient, expectValue } from "./support/bounds.js";
import { combinations, expectGradientOf, expectRefusal, resultOf, STORAGES, tensorOf, valuesOf, WIDE_STORAGES } from "./support/cases.js";
import { expectFiniteDifferences } from "./support/finite-differences.js";
import { KERNEL_CASES, MIXTURE_CASES } from "./support/kernel-cases.js";
import { describeCall } from "./support/laws.js";
import { createRandom } from "./support/random.js";
import type { Storage } from "./support/storage.js";
import { gramGradients, mmdTruth } from "./support/truth/gram.js";

const faces = { sync: mmdSync, async: mmd };
const ESTIMATORS: readonly MmdEstimator[] = ["biased", "unbiased"];
const ALL_CASES = [...KERNEL_CASES, ...MIXTURE_CASES];

interface Shape {
  readonly n: number;
  readonly m: number;
  readonly d: number;
}

function samples({ n, m, d }: Shape, storage: Storage, seed = 1, shift = 0.5): { x: Tensor; y: Tensor } {
  const random = createRandom(seed + 1000 * n + 10 * m + d);
  return {
    x: tensorOf(random.normals(n * d), [n, d], storage),
    y: tensorOf(random.normals(m * d, shift), [m, d], storage),
  };
}

/** Gradients of the three means, from those of their matrices. */
function truthGradients(kernel: Kernel, { x, y }: { x: Tensor; y: Tensor }, unbiased: boolean) {
  const [a, b, width] = [valuesOf(x), valuesOf(y), x.shape[1] ?? 0];
  const [n, m] = [a.length / width, b.length / width];
  const weights = (count: number) =>
    Float64Array.from({ length: count * count }, (_, pair) => {
      if (unbiased) return Math.floor(pair / count) === pair % count ? 0 : 1 / (count * (count - 1));
      return 1 / count ** 2;
    });
  const withinX = gramGradients(kernel, { x: a, width }, weights(n)).x;
  const withinY = gramGradients(kernel, { x: b, width }, weights(m)).x;
  const between = gramGradients(kernel, { x: a, y: b, width }, new Float64Array(n * m).fill(-2 / (n * m)));
  const sum = (p: typeof withinX, q: typeof withinX | undefined) => ({
    values: p.values.map((value, i) => value + (q?.values[i] ?? Number.NaN)),
    termSums: p.termSums.map((value, i) => value + (q?.termSums[i] ?? Number.NaN)),
  });
  return { x: sum(withinX, between.x), y: sum(withinY, between.y) };
}

describeBackends(() => {
  describe("value and gradients", () => {
    it.each(combinations(ALL_CASES, WIDE_STORAGES))("equal float64's: $name, $storage", async ({ name, make, storage }) => {
      const shape = { n: 5, m: 4, d: 3 };
      const kernel = make({ depth: shape.d, normalize: true });
      const rows = samples(shape, storage);
      for (const estimator of ESTIMATORS) {
        const unbiased = estimator === "unbiased";
        const truth = mmdTruth(kernel, valuesOf(rows.x), valuesOf(rows.y), shape.d, unbiased);
        const bounds = storage === "f64" ? { abs: 1e-13, rel: 1e-12 } : {};
        const { mmd2 } = await resultOf(faces, { ...rows, kernel, estimator });
        expectValue(mmd2, truth, bounds);
        const result = await resultOf(faces, { ...rows, kernel, estimator, gradients: true });
        expectValue(result.mmd2, truth, bounds);
        const grads = truthGradients(kernel, rows, unbiased);
        for (const side of ["x", "y"] as const) {
          const [actual, { values, termSums }] = [result.grads?.[side] as Tensor, grads[side]];
          // In f32, ⟨φ(u), φ(v)⟩ of features that all but agree has few digits left of what tells them apart.
          if (storage === "f32" && name.startsWith("spectral")) expectGradient(actual.data, values, { termSums, nmse: 1e-9 });
          else expectGradientOf(actual, values, termSums, `${estimator}, ${side}`);
        }
      }
    });

    it.each(
      combinations(
        [
          { n: 100, m: 390, d: 8 },
          { n: 1, m: 1, d: 2 },
          { n: 97, m: 2, d: 17 },
          { n: 1600, m: 700, d: 4 },
        ],
        STORAGES,
      ),
    )("is made of the three Gram matrices: $n x $m, $storage", ({ storage, ...shape }) => {
      // More rows than a backend computes at a time; a simulated device takes long over each pair.
      const { n, m, d } = shape.n > 1000 && isSimulating() ? { n: 1040, m: 30, d: 4 } : shape;
      const kernel = kernels.mixture({ rbf: kernels.rbf(), rational: kernels.rationalQuadratic() });
      const { x, y } = samples({ n, m, d }, storage);
      const mean = (k: Tensor, skipped: number) => valuesOf(k).reduce((sum, value) => sum + value, -skipped) / (k.size - skipped);
      for (const estimator of n === 1 ? (["biased"] as const) : ESTIMATORS) {
        const [ofX, ofY] = estimator === "unbiased" ? [n, m] : [0, 0];
        const truth = mean(gramSync({ x, kernel }), ofX) + mean(gramSync({ x: y, kernel }), ofY) - 2 * mean(gramSync({ x, y, kernel }), 0);
        const bounds = storage === "f64" ? { abs: 1e-13 } : { abs: 1e-6 };
        for (const gradients of [false, true]) expectValue(mmdSync({ x, y, kernel, estimator, gradients }).mmd2, truth, bounds);
      }
    });

    it.each([...KERNEL_CASES.filter(({ name }) => ["rbf", "matern 2.5", "mahalanobis, factor"].includes(name)), ...MIXTURE_CASES])(
      "agree with finite differences: $name",
      ({ make }) => {
        const kernel = make({ depth: 3, normalize: true });
        const { x, y } = samples({ n: 3, m: 4, d: 3 }, "f64", 3);
        for (const estimator of ESTIMATORS) {
          const { grads } = mmdSync({ x, y, kernel, estimator, gradients: true });
          const check = (of: Tensor, analytic: Tensor | undefined, label: string): void => {
            const before = of.data.slice();
            const at = (values: Float64Array): number => {
              of.data.set(values);
              return mmdSync({ x, y, kernel, estimator }).mmd2;
            };
            expectFiniteDifferences(at, before, analytic?.data ?? [], { label, step: 2 ** -9, floor: 1e-8 });
            of.data.set(before);
          };
          check(x, grads?.x, "x");
          check(y, grads?.y, "y");
          for (const [name, value] of Object.entries(kernel.parameters)) check(value, grads?.params[name], name);
        }
      },
    );
  });

  describe("laws", () => {
    it.each(combinations(ALL_CASES, STORAGES))("a sample against itself is 0, biased: $name, $storage", ({ make, storage }) => {
      const { x } = samples({ n: 150, m: 1, d: 6 }, storage);
      const kernel = make({ depth: 6, normalize: true });
      const scale = valuesOf(gramSync({ x, kernel })).reduce((most, value) => Math.max(most, value), 1);
      for (const accuracy of ["gemm", "exact"] as const) {
        const { mmd2 } = mmdSync({ x, y: x, kernel, accuracy });
        // A root of a distance of 0 that norms and products leave at 1e-7 is 1e-4 on the diagonal, one of 150 pairs.
        expect(Math.abs(mmd2)).toBeLessThan(scale * (storage === "f64" ? 1e-9 : accuracy === "gemm" ? 1e-5 : 1e-6));
      }
    });

    it.each(WIDE_STORAGES)("the biased estimate is at least 0, and grows with the distance of the samples, %s", (storage) => {
      const kernel = kernels.rbf({ normalize: false, sigma: 2 });
      const values = [0, 0.5, 1, 2].map((shift) => mmdSync({ ...samples({ n: 60, m: 50, d: 4 }, storage, 2, shift), kernel }).mmd2);
      expect(values[0]).toBeGreaterThanOrEqual(0);
      for (let i = 1; i < values.length; i++) expect(values[i]).toBeGreaterThan(values[i - 1] ?? 0);
    });

    it("the unbiased estimate of samples of one distribution is 0 on average, and the biased one is not", () => {
      const kernel = kernels.rbf({ normalize: false, sigma: 1 });
      const draws = Array.from({ length: 400 }, (_, seed) => samples({ n: 6, m: 5, d: 2 }, "f64", 7919 * seed, 0));
      const statistics = (estimator: MmdEstimator) => {
        const values = draws.map((rows) => mmdSync({ ...rows, kernel, estimator }).mmd2);
        const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
        const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
        return { mean, error: Math.sqrt(variance / values.length) };
      };
      const [unbiased, biased] = [statistics("unbiased"), statistics("biased")];
      expect(Math.abs(unbiased.mean)).toBeLessThan(4 * unbiased.error);
      expect(biased.mean).toBeGreaterThan(4 * biased.error);
    });

    it("is symmetric in its samples, gradients included", () => {
      const { x, y } = samples({ n: 40, m: 30, d: 5 }, "f64");
      const kernel = kernels.matern();
      const [there, back] = [mmdSync({ x, y, kernel, gradients: true }), mmdSync({ x: y, y: x, kernel, gradients: true })];
      expectValue(there.mmd2, back.mmd2, { abs: 1e-15, rel: 1e-13 });
      expectGradient(there.grads?.x.data ?? [], back.grads?.y?.data ?? [], { epsilon: 2 ** -52, nmse: 1e-24 });
    });
  });

  it("refuses an unbiased estimate of one row, and samples of different widths", async () => {
    const { x, y } = samples({ n: 3, m: 1, d: 4 }, "f32");
    const kernel = kernels.rbf();
    await expectRefusal(faces, { x, y, kernel, estimator: "unbiased" }, { code: "ERR_SHAPE", message: /at least 2 rows/ });
    expect(mmdSync({ x, y, kernel }).mmd2).toBeGreaterThan(0);
    await expectRefusal(faces, { x, kernel } as unknown as MmdArgs, { code: "ERR_SHAPE", message: /y/ });
  });

  describeCall({
    name: "mmd",
    faces,
    args: () => ({
      ...samples({ n: 230, m: 110, d: 12 }, "f32"),
      kernel: MIXTURE_CASES[0]?.make({ depth: 12, normalize: true }) as Kernel,
      gradients: true,
    }),
    outOf: ({ grads }) => ({ x: grads?.x as Tensor, y: grads?.y as Tensor }),
  });
}, ["gram", "mmd"]);
