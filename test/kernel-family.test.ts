/** pair_kernel for every kernel of the family and for mixtures of them. What rbf shows of the operation itself is in pair-kernel.test.ts. */

import {
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
import { logKernelVjpSteps } from "../lib/pair-kernel.js";
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
import { KERNEL_CASES, type KernelShape, landmarkRows, MIXTURE_CASES, randomFourier, spectral, spread } from "./support/kernel-cases.js";
import { describeCall } from "./support/laws.js";
import { createRandom } from "./support/random.js";
import type { Storage } from "./support/storage.js";
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

describeBackends(() => {
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
  });
});
