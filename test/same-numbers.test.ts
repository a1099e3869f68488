/** What is drawn by chance: the same on every backend for a seed, to the bit where it is not solved for, and the same landmarks. */

import { backends, kernels, randomFeaturesSync, type Tensor, tensor, useBackend } from "dpo-kernels";
import { describe, expect, it } from "vitest";
import { Frame } from "../lib/native/frame.js";
import { compound } from "../lib/native/operation.js";
import { hasOperations, nameOf, runnableBackends } from "./support/backends.js";
import { expectBitwiseEqual, expectValues } from "./support/bounds.js";
import { createRandom } from "./support/random.js";

interface Choice {
  readonly x: Tensor<"f64">;
  readonly count: number;
  readonly scores?: Float64Array;
  /** As dpo_landmark_method. */
  readonly method: number;
  readonly seed: number;
}

const choose = compound(function* ({ x, count, scores, method, seed }: Choice) {
  const frame = new Frame("landmarks");
  frame.input("x", x).optionalInput("scores", scores).code(method).integer("seed", seed);
  const indices = frame.result("landmarks", "i32", [count]);
  yield frame;
  return indices;
});

/** What each backend with an operation gives, the CPU's first. */
function ofBackends<Result>(operation: string, run: () => Result): Result[] {
  const before = backends().find(({ selected }) => selected);
  const names = runnableBackends().filter((name) => hasOperations(name, [operation]));
  try {
    return names
      .sort((a, b) => Number(b.startsWith("cpu")) - Number(a.startsWith("cpu")))
      .map((name) => {
        useBackend(name);
        return run();
      });
  } finally {
    if (before) useBackend(nameOf(before));
  }
}

describe("landmarks", () => {
  const shapes = [
    { n: 1, d: 1, m: 1 },
    { n: 40, d: 3, m: 40 },
    { n: 270, d: 70, m: 9 },
    { n: 600, d: 5, m: 8 },
  ];
  it.each(shapes)("are the same rows: $m of $n x $d", ({ n, d, m }) => {
    const random = createRandom(n);
    const x = tensor(random.normals(n * d), [n, d]);
    const scores = random.normals(n).map((value) => Math.max(0, value));
    for (const seed of [0, 1, 2 ** 40]) {
      for (const given of [{ method: 0 }, { method: 1 }, { method: 2, scores }]) {
        const [first, ...others] = ofBackends("landmarks", () => choose.sync({ x, count: m, seed, ...given }).data);
        expect(new Set(first).size).toBe(m);
        for (const other of others) expect([...other]).toEqual([...(first ?? [])]);
      }
    }
  });
});

describe("random frequencies", () => {
  const KERNELS = {
    rbf: kernels.rbf({ sigma: 1.5 }),
    laplacian: kernels.laplacian({ sigma: 2 }),
    matern: kernels.matern({ nu: 1.5, sigma: 2 }),
  };
  it.each(Object.entries(KERNELS))("have the same bits: %s", (_, kernel) => {
    const [first, ...others] = ofBackends(
      "randomFrequencies",
      () => randomFeaturesSync({ kernel, frequencies: 70, depth: 9, seed: 4 }).frequencies.data,
    );
    for (const other of others) expectBitwiseEqual(other, first as Float64Array);
  });

  it("at right angles are the same to rounding", () => {
    const args = { kernel: KERNELS.rbf, frequencies: 70, depth: 33, orthogonal: true, seed: 4 };
    const [first, ...others] = ofBackends("randomFrequencies", () => randomFeaturesSync(args).frequencies.data);
    for (const other of others) expectValues(other, first as Float64Array, { abs: 1e-12, rel: 0 });
  });
});
