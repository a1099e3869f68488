/** The forms of wasserstein: on a line (as other divergences are, in divergence.test.ts), and as optimal transport on a cost. */

import {
  BackendError,
  type CostWassersteinOptions,
  type Divergence,
  type DivergenceArgs,
  type DivergenceResult,
  divergence,
  divergenceSync,
  divergences,
  type EmbeddingWassersteinOptions,
  IGNORED_TARGET,
  type Tensor,
  type TransportMetric,
  tensor,
  zeros,
} from "dpo-kernels";
import { describe, expect, it } from "vitest";
import { describeBackends, isSimulated, onCpu, takesExactTransport } from "./support/backends.js";
import { expectGradient, expectValue, expectValues, normalisedSquaredError } from "./support/bounds.js";
import {
  combinations,
  expectGradientOf,
  expectRefusal,
  type Numbers,
  permutation,
  resultOf,
  STORAGES,
  tensorOf,
  valuesOf,
  WIDE_STORAGES,
} from "./support/cases.js";
import { expectFiniteDifferences } from "./support/finite-differences.js";
import { describeCall } from "./support/laws.js";
import { createRandom } from "./support/random.js";
import type { Storage } from "./support/storage.js";
import { filled, floats } from "./support/tensors.js";
import { divergenceTruth } from "./support/truth/divergences.js";
import { loadFixture } from "./support/truth/fixtures.js";
import { at, dot } from "./support/truth/numbers.js";
import type { LogitOptions } from "./support/truth/token-log-probs.js";
import type { TransportSpec } from "./support/truth/transport.js";

const faces = { sync: divergenceSync, async: divergence };

/** Iterated to the end, so that what is left is rounding. */
const SETTLED = { tolerance: 1e-13, maxIterations: 100_000 } as const;

interface Logits {
  readonly policy: Tensor;
  readonly reference: Tensor;
}

function randomLogits(rows: number, width: number, storage: Storage, seed = 1): Logits {
  const random = createRandom(seed + 1000 * rows + width);
  const one = () => tensorOf(random.normals(rows * width, 0, 1.5), [rows, width], storage);
  return { policy: one(), reference: one() };
}

function randomCost(width: number, seed = 5): Float64Array {
  const random = createRandom(seed + width);
  return Float64Array.from({ length: width * width }, (_, i) => (i % (width + 1) === 0 ? 0 : Math.fround(random.uniform(0.1, 2))));
}

function symmetric(cost: Float64Array, width: number): Float64Array {
  return cost.map((c, i) => Math.max(c, at(cost, (i % width) * width + Math.floor(i / width))));
}

function square(cost: Numbers, dtype: "f32" | "f64" = "f64"): Tensor {
  const width = Math.sqrt(cost.length);
  return tensorOf(cost, [width, width], dtype);
}

/** |i − j| */
function distancesOnLine(width: number): Float64Array {
  return Float64Array.from({ length: width * width }, (_, i) => Math.abs((i % width) - Math.floor(i / width)));
}

function distance(metric: TransportMetric, u: Numbers, v: Numbers): number {
  const squared = Array.from(u, (ui, i) => (ui - at(v, i)) ** 2).reduce((total, term) => total + term, 0);
  if (metric === "sqeuclidean") return squared;
  return metric === "euclidean" ? Math.sqrt(squared) : 1 - dot(u, v) / Math.sqrt(dot(u, u) * dot(v, v));
}

function costOf(embeddings: Tensor, metric: TransportMetric): Float64Array {
  const [words = 0] = embeddings.shape;
  const rows = Array.from({ length: words }, (_, i) => valuesOf(embeddings.rows(i, i + 1)));
  return Float64Array.from({ length: words * words }, (_, i) => {
    const [from, to] = [Math.floor(i / words), i % words];
    return from === to ? 0 : distance(metric, rows[from] ?? [], rows[to] ?? []);
  });
}

type Upstreams = LogitOptions & {
  readonly upstream?: Float64Array | number;
  readonly targets?: Int32Array;
  readonly targetUpstream?: Float64Array;
};

async function expectTruth(kind: Divergence, spec: Omit<TransportSpec, "name">, logits: Logits, rest: Upstreams = {}, label = ""): Promise<void> {
  const args = { ...logits, ...(rest as Partial<DivergenceArgs>), upstream: rest.upstream ?? 1, kind };
  const { values, gradPolicy } = await resultOf(faces, args);
  const truth = divergenceTruth({
    ...rest,
    spec: { name: "transport", ...spec },
    policy: valuesOf(logits.policy),
    reference: valuesOf(logits.reference),
    rows: logits.policy.shape[0] ?? 0,
  });
  const storage = logits.policy.dtype as Storage;
  expectValues(values.data, truth.values, { ...(storage === "f64" ? { abs: 1e-11, rel: 1e-11 } : {}), label: `values ${label}` });
  expectTransportGradient(gradPolicy as Tensor, truth.gradPolicy, truth.termSums, label);
}

/** Of f64, what a marginal error of 1e-13 leaves. */
function expectTransportGradient(actual: Tensor, truth: Numbers, termSums: Numbers, label: string): void {
  if (actual.dtype === "f64") expectGradient(actual.data, truth, { termSums, epsilon: 1e-12, nmse: 1e-18, label: `gradient ${label}` });
  else expectGradientOf(actual, truth, termSums, `gradient ${label}`);
}

describe("the reference of these tests", () => {
  const cases = loadFixture("divergence").transport.filter(({ options, cost }) => options.method === "sinkhorn" && cost !== undefined);
  it.each(cases)("agrees with POT's: $name", ({ n, options, cost, policy, reference, upstream, expected }) => {
    const spec = { name: "transport", cost: cost ?? [], epsilon: options.epsilon ?? 0, debias: options.debias } as const;
    const truth = divergenceTruth({ spec, policy, reference, upstream, rows: n });
    expectValues(truth.values, expected.values, { abs: 1e-11, rel: 0 });
    expect(normalisedSquaredError(truth.gradPolicy, expected.gradPolicy)).toBeLessThan(1e-20);
  });
});

describeBackends((backend) => {
  const hasExact = takesExactTransport(backend);
  /** With what goes only where there is an exact method. */
  const withExact = <Case>(cases: readonly Case[], exactCases: readonly Case[]): Case[] => [...cases, ...(hasExact ? exactCases : [])];

  if (!hasExact)
    it("the exact method is refused by a BackendError", async () => {
      const logits = floats(createRandom(1), [2, 3], "f32");
      const kind = divergences.wasserstein({ cost: floats(createRandom(2), [3, 3], "f32", 0, 2), method: "exact" });
      await expect(divergence({ policy: logits, reference: logits, kind })).rejects.toThrow(BackendError);
      expect(() => divergenceSync({ policy: logits, reference: logits, kind })).toThrow(/not supported on this backend/);
    });

  describe("values and gradient", () => {
    const transport = loadFixture("divergence").transport.filter(({ options }) => hasExact || options.method !== "exact");
    it.each(combinations(transport, WIDE_STORAGES))(
      "equal POT's: $name, $storage",
      async ({ n, v, d, options, cost, embeddings, expected, storage, ...given }) => {
        const ground = cost ? { cost: tensorOf(cost, [v, v], storage) } : { embeddings: tensorOf(embeddings ?? [], [v, d], storage) };
        const kind = divergences.wasserstein({ ...options, ...ground, ...SETTLED } as CostWassersteinOptions | EmbeddingWassersteinOptions);
        const logits = { policy: tensorOf(given.policy, [n, v], storage), reference: tensorOf(given.reference, [n, v], storage) };
        const { values, gradPolicy } = await resultOf(faces, { ...logits, kind, upstream: Float64Array.from(given.upstream) });
        expectValues(values.data, expected.values, storage === "f64" ? { abs: 1e-10, rel: 1e-10 } : {});
        if (storage === "f64") expect(normalisedSquaredError(gradPolicy?.data ?? [], expected.gradPolicy)).toBeLessThan(1e-18);
        else expectGradient(gradPolicy?.data ?? [], expected.gradPolicy);
      },
    );

    const problems = [
      { epsilon: 0.05, debias: false },
      { epsilon: 0.5, debias: false },
      { epsilon: 5, debias: false },
      { epsilon: 0.2, debias: true },
    ];
    it.each(combinations(problems, STORAGES))("equal float64's: epsilon $epsilon, debias $debias, $storage", async ({ storage, ...options }) => {
      for (const [rows, width] of [
        [3, 1],
        [3, 2],
        [2, 5],
        [1, 9],
        [2, 12],
      ] as const) {
        const cost = options.debias ? symmetric(randomCost(width), width) : randomCost(width);
        const kind = divergences.wasserstein({ cost: square(cost, width % 2 === 0 ? "f32" : "f64"), ...options, ...SETTLED });
        await expectTruth(kind, { cost, ...options }, randomLogits(rows, width, storage), {}, `${rows}x${width}`);
      }
    });

    it.each(combinations([{ metric: "euclidean" }, { metric: "sqeuclidean" }, { metric: "cosine" }] as const, STORAGES))(
      "equal float64's on the likeliest words' embeddings: $metric, $storage",
      async ({ metric, storage }) => {
        const embeddings = tensorOf(createRandom(8).normals(40 * 6), [40, 6], storage);
        const cost = costOf(embeddings, metric);
        for (const topK of [1, 3, 8]) {
          const kind = divergences.wasserstein({ embeddings, metric, topK, epsilon: 0.3, ...SETTLED });
          await expectTruth(kind, { cost, epsilon: 0.3, topK }, randomLogits(4, 40, storage), {}, `top ${topK}`);
        }
        const all = divergences.wasserstein({ embeddings, metric, epsilon: 0.3, ...SETTLED }); // 64 by default: all of them
        await expectTruth(all, { cost, epsilon: 0.3 }, randomLogits(1, 40, storage), {}, "all");
      },
    );

    it.each(STORAGES)("go through temperature, softcap, upstreams, targets and words of no probability, %s", async (storage) => {
      const cost = randomCost(7);
      const kind = divergences.wasserstein({ cost: square(cost), epsilon: 0.2, ...SETTLED });
      const spec = { cost, epsilon: 0.2 };
      const logits = randomLogits(4, 7, storage);
      const targets = Int32Array.of(2, IGNORED_TARGET, 0, 6);
      const upstream = Float64Array.of(1.5, 1, -0.5, 0);
      await expectTruth(kind, spec, logits, { temperature: 0.6, upstream }, "temperature");
      await expectTruth(kind, spec, logits, { softcap: 3, temperature: 1.25 }, "softcap");
      await expectTruth(kind, spec, logits, { targets, upstream, targetUpstream: Float64Array.of(2, 1, -1, 0.5) }, "targets");
      const masked = (logit: Tensor, at: readonly number[]) =>
        tensorOf(
          valuesOf(logit).map((z, i) => (at.includes(i % 7) ? -Infinity : z)),
          [4, 7],
          storage,
        );
      await expectTruth(kind, spec, { policy: masked(logits.policy, [1, 4]), reference: masked(logits.reference, [1, 5, 6]) }, {}, "masked");
    });

    it("need no more than the default tolerance promises", () => {
      for (const epsilon of [0.05, 0.3]) {
        const cost = randomCost(16);
        const logits = randomLogits(6, 16, "f64");
        const truth = divergenceTruth({
          spec: { name: "transport", cost, epsilon },
          policy: valuesOf(logits.policy),
          reference: valuesOf(logits.reference),
          rows: 6,
        });
        const { values, gradPolicy } = divergenceSync({ ...logits, kind: divergences.wasserstein({ cost: square(cost), epsilon }), upstream: 1 });
        expectValues(values.data, truth.values, { abs: 1e-5 });
        expect(normalisedSquaredError(gradPolicy?.data ?? [], truth.gradPolicy)).toBeLessThan(1e-8);
      }
    });
  });

  describe("on a line", () => {
    const logs = (masses: readonly number[]) => masses.map(Math.log);
    const value = (p: readonly number[], q: readonly number[], exponent: number) => {
      const [policy, reference] = [tensorOf(logs(p), [1, p.length], "f64"), tensorOf(logs(q), [1, q.length], "f64")];
      return divergenceSync({ policy, reference, kind: divergences.wasserstein({ exponent }) }).values.data[0] ?? Number.NaN;
    };

    it("is the sum of the powers of the differences of the cumulated masses", () => {
      expectValue(value([1, 0, 0, 0], [0, 0, 0, 1], 1), 3, { abs: 1e-14 });
      expectValue(value([1, 0, 0, 0], [0, 0, 0, 1], 4), 3, { abs: 1e-14 });
      expectValue(value([0.5, 0, 0.5], [0, 1, 0], 1), 1, { abs: 1e-14 });
      expectValue(value([0.5, 0, 0.5], [0, 1, 0], 3), 0.25, { abs: 1e-14 });
      expectValue(value([0.25, 0.25, 0.5], [0.5, 0.25, 0.25], 2), 0.125, { abs: 1e-14 });
    });

    if (hasExact)
      it.each(WIDE_STORAGES)("is the exact transport on the distances |i − j|, %s", (storage) => {
        for (const width of [2, 5, 30]) {
          const logits = randomLogits(4, width, storage);
          const ordered = divergenceSync({ ...logits, kind: divergences.wasserstein(), upstream: 1 });
          const exact = divergenceSync({
            ...logits,
            kind: divergences.wasserstein({ cost: square(distancesOnLine(width)), method: "exact" }),
            upstream: 1,
          });
          expectValues(ordered.values.data, exact.values.data, { ...(storage === "f64" ? { abs: 1e-12 } : {}) });
          expect(normalisedSquaredError(ordered.gradPolicy?.data ?? [], exact.gradPolicy?.data ?? [])).toBeLessThan(
            storage === "f64" ? 1e-22 : 1e-11,
          );
        }
      });
  });

  describe("finite differences", () => {
    const width = 6;
    const cost = square(randomCost(width));
    const even = square(symmetric(randomCost(width), width));
    const embeddings = tensorOf(createRandom(2).normals(width * 3), [width, 3], "f64");
    type Case = [string, Divergence, number | undefined];
    const kinds: Case[] = [
      ["sinkhorn", divergences.wasserstein({ cost, epsilon: 0.3, ...SETTLED }), undefined],
      ["sinkhorn, debiased", divergences.wasserstein({ cost: even, epsilon: 0.3, debias: true, ...SETTLED }), undefined],
      ["sinkhorn, debiased, of an asymmetric cost", divergences.wasserstein({ cost, epsilon: 0.3, debias: true, ...SETTLED }), undefined],
      // The support is fixed as long as the step changes no rank.
      ["of the likeliest words", divergences.wasserstein({ embeddings, topK: 2, epsilon: 0.5, ...SETTLED }), 2 ** -9],
    ];
    const exactKinds: Case[] = [["exact", divergences.wasserstein({ cost, method: "exact" }), 2 ** -9]];
    it.each(withExact(kinds, exactKinds))("agree with the gradient in f64: %s", (_, kind, step) => {
      const logits = randomLogits(2, width, "f64", 3);
      for (const options of isSimulated(backend) ? [{ temperature: 1.4, softcap: 4 }] : [{}, { temperature: 1.4, softcap: 4 }]) {
        const value = (x: Float64Array): number => {
          const { values } = divergenceSync({ ...logits, ...options, policy: tensor(x.slice(), [2, width]), kind });
          return 2 * (values.data[0] ?? Number.NaN) - (values.data[1] ?? Number.NaN);
        };
        const { gradPolicy } = divergenceSync({ ...logits, ...options, kind, upstream: Float64Array.of(2, -1) });
        expectFiniteDifferences(value, logits.policy.data, gradPolicy?.data ?? [], { rel: 1e-6, floor: 1e-8, step });
      }
    });
  });

  describe("laws", () => {
    const width = 12;
    const cost = symmetric(randomCost(width), width);
    const logits = randomLogits(3, width, "f64");
    const same = { policy: logits.policy, reference: logits.policy };
    const of = (options: Partial<CostWassersteinOptions>, pair: Logits = logits) =>
      divergenceSync({ ...pair, kind: divergences.wasserstein({ cost: square(cost), ...SETTLED, ...options }), upstream: 1 });

    if (hasExact)
      it("nothing is carried between equal rows by the exact method: exactly 0", () => {
        expectValues(of({ method: "exact" }, same).values.data, [0, 0, 0], { abs: 1e-15 });
      });

    it("nothing is left of equal rows when debiased", () => {
      const debiased = of({ debias: true, epsilon: 0.3 }, same);
      expectValues(debiased.values.data, [0, 0, 0], { abs: 1e-12 });
      expectValues(debiased.gradPolicy?.data ?? [], new Float64Array(3 * width), { abs: 1e-12 });
    });

    it("the entropic value is never below the exact one, and tends to it", () => {
      const exact = onCpu(() => of({ method: "exact" })).values.data;
      let previous = [Infinity, Infinity, Infinity];
      for (const epsilon of [1, 0.3, 0.1, 0.03, 0.01]) {
        const values = [...of({ epsilon, tolerance: 1e-10 }).values.data];
        values.forEach((value, row) => {
          const least = exact[row] ?? Number.NaN;
          expect(value).toBeGreaterThanOrEqual(least - 1e-9);
          expect(value).toBeLessThanOrEqual(least + epsilon * 2 * Math.log(width)); // KL(P‖p⊗q) ≤ H(p) ≤ ln n
          expect(value).toBeLessThan(previous[row] ?? Number.NaN);
        });
        previous = values;
      }
    });

    it("debiased values are at least 0", () => {
      for (const value of of({ debias: true, epsilon: 0.4, cost: square(distancesOnLine(width)) }).values.data) expect(value).toBeGreaterThan(0);
    });

    it("a multiple of cost and epsilon is one of the value; a constant in the cost is added to it", () => {
      for (const options of withExact<Partial<CostWassersteinOptions>>([{ epsilon: 0.3 }], [{ method: "exact" }])) {
        const plain = of(options);
        const epsilon = options.epsilon === undefined ? {} : { epsilon: 8 * options.epsilon };
        const eightfold = of({ ...options, ...epsilon, cost: square(cost.map((c) => 8 * c)) });
        expectValues(
          eightfold.values.data,
          Float64Array.from(plain.values.data, (d) => 8 * d),
          { abs: 1e-11 },
        );
        expect(
          normalisedSquaredError(
            eightfold.gradPolicy?.data ?? [],
            Float64Array.from(plain.gradPolicy?.data ?? [], (g) => 8 * g),
          ),
        ).toBeLessThan(1e-20);
        const raised = of({ ...options, cost: square(cost.map((c) => c + 3)) });
        expectValues(
          raised.values.data,
          Float64Array.from(plain.values.data, (d) => d + 3),
          { abs: 1e-11 },
        );
        expect(normalisedSquaredError(raised.gradPolicy?.data ?? [], plain.gradPolicy?.data ?? [])).toBeLessThan(1e-20);
      }
    });

    it("a symmetric cost makes it symmetric; the order of the words changes nothing", () => {
      const order = permutation(width, createRandom(1).integer);
      const columns = ({ data }: Tensor) =>
        tensorOf(
          Float64Array.from(data, (_, i) => at(data, i - (i % width) + at(order, i % width))),
          [3, width],
          "f64",
        );
      const moved = Float64Array.from(cost, (_, i) => at(cost, at(order, Math.floor(i / width)) * width + at(order, i % width)));
      for (const options of withExact<Partial<CostWassersteinOptions>>([{ epsilon: 0.3 }, { epsilon: 0.3, debias: true }], [{ method: "exact" }])) {
        const { values, gradPolicy } = of(options);
        expectValues(of(options, { policy: logits.reference, reference: logits.policy }).values.data, values.data, { abs: 1e-11 });
        const permuted = of({ ...options, cost: square(moved) }, { policy: columns(logits.policy), reference: columns(logits.reference) });
        expectValues(permuted.values.data, values.data, { abs: 1e-11 });
        expect(normalisedSquaredError(permuted.gradPolicy?.data ?? [], columns(gradPolicy as Tensor).data)).toBeLessThan(1e-20);
      }
    });

    it("all words' embeddings are what their distances as a cost are", () => {
      const embeddings = tensorOf(createRandom(4).normals(width * 5), [width, 5], "f64");
      for (const metric of ["euclidean", "sqeuclidean", "cosine"] as const) {
        for (const options of withExact<{ method?: "exact"; epsilon?: number }>([{ epsilon: 0.3 }], [{ method: "exact" }])) {
          const byEmbeddings = divergenceSync({
            ...logits,
            kind: divergences.wasserstein({ embeddings, metric, topK: width, ...SETTLED, ...options } as EmbeddingWassersteinOptions),
            upstream: 1,
          });
          const byCost = of({ ...options, cost: square(costOf(embeddings, metric)) } as Partial<CostWassersteinOptions>);
          expectValues(byEmbeddings.values.data, byCost.values.data, { abs: 1e-12 });
          expect(normalisedSquaredError(byEmbeddings.gradPolicy?.data ?? [], byCost.gradPolicy?.data ?? [])).toBeLessThan(1e-20);
        }
      }
    });

    it("words outside of the support have no gradient", () => {
      const embeddings = tensorOf(createRandom(4).normals(50 * 5), [50, 5], "f32");
      const kind = divergences.wasserstein({ embeddings, topK: 4, epsilon: 0.5 });
      const { gradPolicy } = divergenceSync({ ...randomLogits(3, 50, "f32"), kind, upstream: 1 });
      for (let row = 0; row < 3; row++) {
        const nonzero = valuesOf((gradPolicy as Tensor).rows(row, row + 1)).filter((g) => g !== 0).length;
        expect(nonzero).toBeGreaterThanOrEqual(4);
        expect(nonzero).toBeLessThanOrEqual(8);
      }
    });

    it("a support of hundreds of words: the exact plan costs what the dual says, within what the entropic one does", () => {
      const size = 300;
      const large = randomLogits(2, size, "f32");
      const embeddings = tensorOf(createRandom(6).normals(size * 8), [size, 8], "f32");
      const value = (options: Partial<EmbeddingWassersteinOptions>) =>
        divergenceSync({ ...large, kind: divergences.wasserstein({ embeddings, topK: size, ...options }) }).values.data;
      const exact = onCpu(() => value({ method: "exact" }));
      const entropic = value({ epsilon: 0.05 });
      exact.forEach((least, row) => {
        expect(entropic[row]).toBeGreaterThan(least);
        expect(entropic[row]).toBeLessThan(least + 0.05 * Math.log(size));
      });
    });
  });

  const outOf = ({ values, gradPolicy }: DivergenceResult) => (gradPolicy === undefined ? { values } : { values, gradPolicy });
  const rows = isSimulated(backend) ? 8 : 40;
  const many = randomLogits(rows, 60, "f32");
  const cost = square(randomCost(60), "f32");
  const embeddings = tensorOf(createRandom(4).normals(60 * 5), [60, 5], "bf16");
  const calls: [string, () => DivergenceArgs][] = [
    ["sinkhorn", () => ({ ...many, kind: divergences.wasserstein({ cost, epsilon: 0.3 }), upstream: new Float64Array(rows).fill(1) })],
    [
      "of embeddings",
      () => ({
        ...randomLogits(rows, 60, "bf16"),
        kind: divergences.wasserstein({ embeddings, topK: 9, epsilon: 0.3, debias: true }),
        upstream: new Float64Array(rows).fill(1),
      }),
    ],
  ];
  const exactCalls: typeof calls = [
    ["exact", () => ({ ...many, kind: divergences.wasserstein({ cost, method: "exact" }), upstream: new Float64Array(rows).fill(1) })],
  ];
  for (const [name, args] of withExact(calls, exactCalls)) describeCall({ name: `divergence, wasserstein ${name}`, faces, args, outOf });

  describe("refuses", () => {
    const logits = randomLogits(2, 5, "f32");
    const refused = (kind: () => Divergence, code: string, message?: RegExp, index?: number) =>
      expectRefusal(faces, { ...logits, kind: kind() }, { code, ...(message && { message }), ...(index !== undefined && { index }) });

    it("a cost or embeddings that do not fit the vocabulary", async () => {
      await refused(() => divergences.wasserstein({ cost: zeros([4, 4], "f64") }), "ERR_SHAPE", /cost/);
      await refused(() => divergences.wasserstein({ embeddings: zeros([4, 2], "f32") }), "ERR_SHAPE", /embeddings/);
    });

    it("a cost or embeddings that are not finite", async () => {
      for (const bad of [Number.NaN, Infinity, -Infinity]) {
        for (const dtype of ["f32", "f64"] as const) {
          const broken = randomCost(5);
          broken[7] = bad;
          await refused(() => divergences.wasserstein({ cost: square(broken, dtype) }), "ERR_NONFINITE", /cost/, 7);
        }
        for (const storage of STORAGES) {
          const numbers = createRandom(1).normals(10);
          numbers[3] = bad;
          await refused(() => divergences.wasserstein({ embeddings: tensorOf(numbers, [5, 2], storage) }), "ERR_NONFINITE", /embeddings/, 3);
        }
      }
    });

    it("rows that do not get to the tolerance, by their index, and leaves supplied results as they were", async () => {
      const kind = divergences.wasserstein({ cost: square(randomCost(5)), epsilon: 0.01, maxIterations: 2, tolerance: 1e-12 });
      const out = { values: filled([2], "f32"), gradPolicy: filled([2, 5], "f32") };
      await expectRefusal(faces, { ...logits, kind }, { code: "ERR_RANGE", message: /maxIterations/, index: 0 });
      expect(() => divergenceSync({ ...logits, kind, upstream: 1 }, { out })).toThrow();
      expect([...out.values.data, ...out.gradPolicy.data]).toEqual([...filled([2], "f32").data, ...filled([2, 5], "f32").data]);
    });

    it("supports that no matrix of costs is made for", async () => {
      const wide = randomLogits(1, 5000, "f32");
      const wideEmbeddings = tensorOf(createRandom(1).normals(5000), [5000, 1], "f32");
      const range = { code: "ERR_RANGE", message: /support/ };
      await expectRefusal(faces, { ...wide, kind: divergences.wasserstein({ embeddings: wideEmbeddings, topK: 4000 }) }, range);
      await expectRefusal(faces, { ...wide, kind: divergences.wasserstein({ embeddings: wideEmbeddings, topK: 600, method: "exact" }) }, range);
    });

    const good = { cost: square(randomCost(5)) };
    const made: [string, () => unknown][] = [
      ...[0, -1, Number.NaN, Infinity, "1"].map((epsilon): [string, () => unknown] => [
        `epsilon ${epsilon}`,
        () => divergences.wasserstein({ ...good, epsilon } as never),
      ]),
      ...[0, -1, Number.NaN, Infinity].map((tolerance): [string, () => unknown] => [
        `tolerance ${tolerance}`,
        () => divergences.wasserstein({ ...good, tolerance }),
      ]),
      ...[0, -1, 1.5, Number.NaN, Infinity].map((maxIterations): [string, () => unknown] => [
        `maxIterations ${maxIterations}`,
        () => divergences.wasserstein({ ...good, maxIterations }),
      ]),
      ...[0, -1, 1.5, Number.NaN].map((topK): [string, () => unknown] => [
        `topK ${topK}`,
        () => divergences.wasserstein({ embeddings: zeros([5, 2], "f32"), topK }),
      ]),
      ["debias 1", () => divergences.wasserstein({ ...good, debias: 1 } as never)],
      ["method simplex", () => divergences.wasserstein({ ...good, method: "simplex" } as never)],
      ["metric manhattan", () => divergences.wasserstein({ embeddings: zeros([5, 2], "f32"), metric: "manhattan" } as never)],
      ["topK with a cost", () => divergences.wasserstein({ ...good, topK: 3 } as never)],
      ["cost and embeddings", () => divergences.wasserstein({ ...good, embeddings: zeros([5, 2], "f32") } as never)],
      ["a cost that is not square", () => divergences.wasserstein({ cost: zeros([5, 4], "f32") })],
      ["a cost of 16 bits", () => divergences.wasserstein({ cost: zeros([5, 5], "bf16") })],
      ["a cost that is no tensor", () => divergences.wasserstein({ cost: [[0]] } as never)],
      ["embeddings of integers", () => divergences.wasserstein({ embeddings: zeros([5, 2], "i32") })],
    ];
    it.each(made)("%s", (_, make) => {
      expect(make).toThrow(expect.objectContaining({ code: expect.stringMatching(/^ERR_(RANGE|DTYPE|SHAPE)$/) }));
    });
  });
});
