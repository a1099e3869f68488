import {
  IGNORED_TARGET,
  type SequenceLogProbsArgs,
  type SequenceLogProbsVjpArgs,
  type SequenceOptions,
  sequenceLogProbs,
  sequenceLogProbsSync,
  sequenceLogProbsVjp,
  sequenceLogProbsVjpSync,
  type Tensor,
  zeros,
} from "dpo-kernels";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PAIR_SHAPES, shapesFor } from "../bench/shapes.js";
import { describeBackends } from "./support/backends.js";
import { expectBitwiseEqual, expectUlps } from "./support/bounds.js";
import { combinations, expectRefusal, expectSameResults, expectValuesOf, resultOf, tensorOf, valuesOf, WIDE_STORAGES } from "./support/cases.js";
import { expectFiniteDifferences } from "./support/finite-differences.js";
import { describeCall } from "./support/laws.js";
import { createRandom } from "./support/random.js";
import type { Storage } from "./support/storage.js";
import { loadFixture, named } from "./support/truth/fixtures.js";
import { dot } from "./support/truth/numbers.js";
import { reduceSequences as truthOf, reduceSequencesVjp as truthOfVjp } from "./support/truth/sequences.js";

const forward = { sync: sequenceLogProbsSync, async: sequenceLogProbs };
const pullBack = { sync: sequenceLogProbsVjpSync, async: sequenceLogProbsVjp };

interface Case {
  readonly logProbs: Tensor;
  readonly targets: Int32Array;
  readonly offsets: Int32Array;
  readonly upstream: Tensor;
}

const REDUCTIONS: readonly SequenceOptions[] = [
  {},
  { reduction: "sum" },
  { reduction: "mean" },
  { ldAlpha: 0 },
  { ldAlpha: 0.3 },
  { ldAlpha: 1 },
  { ldAlpha: 1.5 },
  { reduction: "mean", ldAlpha: 1 },
];

/** Sequences of 0 to 2·tokens tokens, of which one in four is ignored; ignored ones hold garbage that must not count. */
function randomCase({ pairs, tokens, storage, seed = 1 }: { pairs: number; tokens: number; storage: Storage; seed?: number }): Case {
  const random = createRandom(seed + 100 * pairs + tokens);
  const offsets = new Int32Array(2 * pairs + 1);
  for (let s = 0; s < 2 * pairs; s++) offsets[s + 1] = (offsets[s] ?? 0) + (s === 0 ? tokens : random.integer(0, 2 * tokens + 1));
  const count = offsets[2 * pairs] ?? 0;
  const targets = Int32Array.from({ length: count }, () => (random.uniform() < 0.25 ? IGNORED_TARGET : random.integer(0, 50)));
  const logProbs = tensorOf(random.normals(count, -3, 2), [count], storage);
  return { logProbs, targets, offsets, upstream: tensorOf(random.normals(2 * pairs), [2 * pairs], storage) };
}

function truthOptions({ reduction, ldAlpha }: SequenceOptions) {
  return { reduce: reduction, ldAlpha: reduction === "mean" ? undefined : ldAlpha };
}

async function expectTruth({ upstream, ...given }: Case, storage: Storage, options: SequenceOptions): Promise<void> {
  const inputs = { ...given, logProbs: valuesOf(given.logProbs), ...truthOptions(options) };
  const truth = truthOf(inputs);
  const result = await resultOf(forward, { ...given, ...options });
  expectValuesOf(result.logProbs, truth.logProbs, storage, "logProbs");
  expectBitwiseEqual(result.tokenCounts.data, truth.counts, { label: "tokenCounts" });
  const gradient = await resultOf(pullBack, { ...given, ...options, upstream });
  expect(gradient.logProbs.dtype).toBe(storage);
  expectUlps(gradient.logProbs.data, truthOfVjp({ ...inputs, upstream: valuesOf(upstream) }), storage, { ulps: 1, label: "gradient" });
}

describeBackends(() => {
  describe("values and gradient", () => {
    const { cases, batches } = loadFixture("sequence");
    it.each(combinations(cases, WIDE_STORAGES))("equal PyTorch's: $name, $storage", async ({ batch, options, expected, storage }) => {
      const inputs = named(batches, batch);
      const { reduce, ldAlpha } = options;
      const given = {
        logProbs: tensorOf(inputs.logProbs, [inputs.logProbs.length], storage),
        targets: Int32Array.from(inputs.targets),
        offsets: Int32Array.from(inputs.offsets),
        ...(reduce === undefined ? {} : { reduction: reduce }),
        ...(ldAlpha === undefined ? {} : { ldAlpha }),
      };
      const result = await resultOf(forward, given);
      expectValuesOf(result.logProbs, expected.sequenceLogProbs, storage, "logProbs");
      expectBitwiseEqual(result.tokenCounts.data, expected.tokenCounts, { label: "tokenCounts" });
      const upstream = tensorOf(inputs.upstream, [inputs.upstream.length], storage);
      const gradient = await resultOf(pullBack, { ...given, upstream });
      expectUlps(gradient.logProbs.data, expected.gradLogProbs, storage, { ulps: 1, label: "gradient" });
    });

    it.each(combinations(shapesFor("test", PAIR_SHAPES), WIDE_STORAGES))(
      "equal float64's: $name, $pairs pairs of $tokens, $storage",
      async ({ pairs, tokens, storage }) => {
        for (const options of REDUCTIONS) await expectTruth(randomCase({ pairs, tokens, storage }), storage, options);
      },
    );
  });

  it.each(REDUCTIONS)("finite differences agree with the gradient in f64: %j", (options) => {
    const { upstream, ...given } = randomCase({ pairs: 3, tokens: 4, storage: "f64", seed: 3 });
    const value = (x: Float64Array): number => dot(forward.sync({ ...given, ...options, logProbs: x.slice() }).logProbs.data, upstream.data);
    expectFiniteDifferences(value, given.logProbs.data, pullBack.sync({ ...given, ...options, upstream }).logProbs.data);
  });

  describe("laws", () => {
    const lengths = fc
      .array(fc.integer({ min: 0, max: 12 }), { minLength: 2, maxLength: 16 })
      .filter((l) => l.length % 2 === 0 && l.some((n) => n > 0));

    it("the sum with ldAlpha 1 is the plain sum; with 0 it is that of the shared lengths", () => {
      fc.assert(
        fc.property(lengths, fc.nat(), (counts, seed) => {
          const random = createRandom(seed);
          const offsets = Int32Array.from([0, ...counts.map((_, s) => counts.slice(0, s + 1).reduce((a, b) => a + b, 0))]);
          const total = offsets[counts.length] ?? 0;
          const given = { logProbs: random.normals(total, -2), targets: random.integers(total, 0, 9), offsets };
          expectSameResults(forward.sync({ ...given, ldAlpha: 1 }), forward.sync(given));
          const shared = forward.sync({ ...given, ldAlpha: 0 }).logProbs.data;
          counts.forEach((count, s) => {
            const least = Math.min(count, counts[(s + counts.length / 2) % counts.length] ?? 0);
            const begin = offsets[s] ?? 0;
            const truth = given.logProbs.subarray(begin, begin + least).reduce((a, b) => a + b, 0);
            expect(Math.abs((shared[s] ?? Number.NaN) - truth)).toBeLessThanOrEqual(1e-13 * (1 + Math.abs(truth)));
          });
        }),
        { seed: 1, numRuns: 60 },
      );
    });

    it.each(WIDE_STORAGES)("the mean times the counts is the sum, and nothing counted gives 0, %s", (storage) => {
      const given = randomCase({ pairs: 20, tokens: 2, storage });
      const [mean, whole] = [forward.sync({ ...given, reduction: "mean" }), forward.sync(given)];
      const product = Array.from(mean.logProbs.data, (value, s) => value * (mean.tokenCounts.data[s] ?? 0));
      expect([...mean.tokenCounts.data]).toContain(0);
      expectValuesOf(whole.logProbs, product, storage, "mean · count");
      for (const [s, count] of mean.tokenCounts.data.entries()) if (count === 0) expect(mean.logProbs.data[s]).toBe(0);
    });

    it.each(WIDE_STORAGES)("ignored tokens neither count nor get a gradient, whatever they hold, %s", (storage) => {
      const given = randomCase({ pairs: 8, tokens: 20, storage });
      const numbers = valuesOf(given.logProbs).map((value, i) => (given.targets[i] === IGNORED_TARGET ? 1e30 : value));
      for (const options of REDUCTIONS) {
        const changed = { ...given, logProbs: tensorOf(numbers, given.logProbs.shape, storage), ...options };
        expectSameResults(forward.sync(changed), forward.sync({ ...given, ...options }));
        const gradient = pullBack.sync({ ...given, ...options }).logProbs.data;
        for (const [i, target] of given.targets.entries()) if (target === IGNORED_TARGET) expect(Object.is(gradient[i], 0)).toBe(true);
      }
    });

    it("the order of the pairs changes no bit", () => {
      const given = randomCase({ pairs: 3, tokens: 7, storage: "f32" });
      const order = [2, 0, 1, 5, 3, 4]; // both halves alike
      const parts = order.map((s) => [given.offsets[s] ?? 0, given.offsets[s + 1] ?? 0] as const);
      const permuted = {
        logProbs: Float32Array.from(parts.flatMap(([begin, end]) => [...given.logProbs.data.subarray(begin, end)])),
        targets: Int32Array.from(parts.flatMap(([begin, end]) => [...given.targets.subarray(begin, end)])),
        offsets: Int32Array.from([0, ...parts.map((_, i) => parts.slice(0, i + 1).reduce((total, [begin, end]) => total + end - begin, 0))]),
      };
      for (const options of REDUCTIONS) {
        const [result, whole] = [forward.sync({ ...permuted, ...options }), forward.sync({ ...given, ...options })];
        expectBitwiseEqual(
          result.logProbs.data,
          order.map((s) => whole.logProbs.data[s] ?? Number.NaN),
        );
      }
    });
  });

  for (const storage of WIDE_STORAGES) {
    const given = randomCase({ pairs: 64, tokens: 200, storage });
    describeCall({
      name: `sequenceLogProbs, ${storage}`,
      faces: forward,
      args: (): SequenceLogProbsArgs => ({ ...given, ldAlpha: 0.4 }),
      outOf: ({ logProbs, tokenCounts }) => ({ logProbs, tokenCounts }),
    });
    describeCall({
      name: `sequenceLogProbsVjp, ${storage}`,
      faces: pullBack,
      args: (): SequenceLogProbsVjpArgs => ({ targets: given.targets, offsets: given.offsets, upstream: given.upstream, reduction: "mean" }),
      outOf: ({ logProbs }) => ({ logProbs }),
    });
  }

  describe("refuses", () => {
    const given = { logProbs: Float64Array.of(-1, -2, -3, -4), targets: Int32Array.of(1, 2, 3, 4), offsets: Int32Array.of(0, 2, 4) };
    const upstream = Float64Array.of(1, 2);

    it.each([
      [[1, 2, 4], 0],
      [[0, 3, 2, 4, 4], 2],
      [[0, -1, 4], 1],
      [[0, 2, 3], 2],
      [[0, 2, 5], 2],
    ])("the offsets %j, and says which", async (bad, index) => {
      const offsets = Int32Array.from(bad);
      const error = { code: "ERR_RANGE", index, message: /^offsets/ };
      await expectRefusal(forward, { ...given, offsets }, error);
      await expectRefusal(pullBack, { ...given, offsets, upstream: new Float64Array(offsets.length - 1) }, error);
    });

    it("offsets that are not those of pairs", async () => {
      for (const offsets of [Int32Array.of(0), Int32Array.of(0, 4), Int32Array.of(0, 1, 2, 4)]) {
        await expectRefusal(forward, { ...given, offsets }, { code: "ERR_SHAPE", message: /offsets.*2B \+ 1/ });
      }
    });

    it("ldAlpha out of range, or with the mean", async () => {
      for (const ldAlpha of [-0.1, Number.NaN, Infinity])
        await expectRefusal(forward, { ...given, ldAlpha }, { code: "ERR_RANGE", message: /ldAlpha/ });
      await expectRefusal(forward, { ...given, reduction: "mean", ldAlpha: 0.5 }, { code: "ERR_RANGE", message: /ldAlpha.*sum/ });
      await expectRefusal(pullBack, { ...given, upstream, reduction: "mean", ldAlpha: 0.5 }, { code: "ERR_RANGE", message: /ldAlpha.*sum/ });
    });

    it("an unknown reduction", async () => {
      const reduction = "max" as unknown as "sum";
      await expectRefusal(forward, { ...given, reduction }, { code: "ERR_RANGE", message: /reduction.*"sum" or "mean".*max/ });
      await expectRefusal(pullBack, { ...given, upstream, reduction }, { code: "ERR_RANGE", message: /reduction/ });
    });

    it("wrong shapes and dtypes, by the argument's name", async () => {
      await expectRefusal(forward, { ...given, targets: Int32Array.of(1) }, { code: "ERR_SHAPE" });
      await expectRefusal(forward, { ...given, logProbs: Float64Array.of(1) }, { code: "ERR_SHAPE", message: /logProbs/ });
      await expectRefusal(forward, { ...given, logProbs: new Float64Array(0) }, { code: "ERR_SHAPE", message: /logProbs/ });
      await expectRefusal(forward, { ...given, logProbs: zeros([4], "bf16") }, { code: "ERR_DTYPE", message: /logProbs/ });
      await expectRefusal(forward, { ...given, logProbs: zeros([4], "i32") }, { code: "ERR_DTYPE", message: /logProbs/ });
      await expectRefusal(forward, { ...given, targets: Float32Array.of(1, 2, 3, 4) }, { code: "ERR_DTYPE", message: /targets/ });
      await expectRefusal(forward, { ...given, offsets: Float64Array.of(0, 2, 4) }, { code: "ERR_DTYPE", message: /offsets/ });
      await expectRefusal(pullBack, { ...given, upstream: Float64Array.of(1) }, { code: "ERR_SHAPE", message: /upstream/ });
    });

    it("numbers that are not finite", async () => {
      await expectRefusal(
        forward,
        { ...given, logProbs: Float64Array.of(0, 1, Number.NaN, 1) },
        { code: "ERR_NONFINITE", index: 2, message: /logProbs/ },
      );
      await expectRefusal(pullBack, { ...given, upstream: Float64Array.of(0, Infinity) }, { code: "ERR_NONFINITE", index: 1, message: /upstream/ });
    });
  });
}, ["sequenceLogProbs", "sequenceLogProbsVjp"]);
