import {
  IGNORED_TARGET,
  type Tensor,
  type TokenLogProbs,
  type TokenLogProbsArgs,
  type TokenLogProbsVjpArgs,
  tensor,
  tokenLogProbs,
  tokenLogProbsSync,
  tokenLogProbsVjp,
  tokenLogProbsVjpSync,
  zeros,
} from "dpo-kernels";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LOGIT_SHAPES, shapesFor } from "../bench/shapes.js";
import { describeBackends } from "./support/backends.js";
import { expectBitwiseEqual, expectGradient, expectUlps, expectValue, expectValues } from "./support/bounds.js";
import {
  combinations,
  expectGradientOf,
  expectRefusal,
  expectSameResults,
  expectValuesOf,
  is16,
  type Numbers,
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
import { at, dot, sum } from "./support/truth/numbers.js";
import {
  type LogitOptions,
  type TokenLogProbsVjp,
  tokenLogProbs as truthOf,
  tokenLogProbsVjp as truthOfVjp,
} from "./support/truth/token-log-probs.js";

const forward = { sync: tokenLogProbsSync, async: tokenLogProbs };
const pullBack = { sync: tokenLogProbsVjpSync, async: tokenLogProbsVjp };

interface Case {
  readonly logits: Tensor;
  readonly targets: Int32Array;
  readonly upstream: Float64Array;
  readonly rows: number;
  readonly vocabulary: number;
}

interface CaseOptions {
  readonly rows: number;
  readonly vocabulary: number;
  readonly storage: Storage;
  readonly seed?: number;
  readonly deviation?: number;
  /** Every fifth row, from the third on. */
  readonly ignore?: boolean;
}

function randomCase({ rows, vocabulary, storage, seed = 1, deviation = 3, ignore = true }: CaseOptions): Case {
  const random = createRandom(seed + 1000 * rows + vocabulary);
  const logits = tensorOf(random.normals(rows * vocabulary, 0, deviation), [rows, vocabulary], storage);
  const targets = random.integers(rows, 0, vocabulary).map((target, row) => (ignore && row % 5 === 2 ? IGNORED_TARGET : target));
  return { logits, targets, upstream: Float64Array.from(random.normals(rows), Math.fround), rows, vocabulary };
}

/**
 * Σ|terms| of the gradient, with those that logSumExp brings when it is handed over in f64: for f32 they are nothing, for f64 they are what
 * rounding it costs, L·eps of every probability.
 */
function termsOf(
  truth: TokenLogProbsVjp,
  { logProbs, logSumExp }: { readonly logProbs: Numbers; readonly logSumExp: Numbers },
  upstream: Numbers,
  targets: Numbers,
): Float64Array {
  const vocabulary = truth.logits.length / targets.length;
  return truth.termSums.logits.map((terms, i) => {
    const row = Math.floor(i / vocabulary);
    const atTarget = Math.abs(at(upstream, row)) * Math.exp(at(logProbs, row));
    const share = i % vocabulary === at(targets, row) ? atTarget : Math.abs(at(truth.logits, i));
    return terms + Math.abs(at(logSumExp, row)) * share;
  });
}

/** Checks values and gradient of both faces against float64 on the same rounded inputs. */
async function expectTruth({ logits, targets, upstream, vocabulary }: Case, storage: Storage, options: LogitOptions = {}) {
  const given = options as TokenLogProbsArgs;
  const numbers = valuesOf(logits);
  const result = await resultOf(forward, { ...given, logits, targets, entropy: true, meanLogit: true });
  const truth = truthOf({ logits: numbers, targets, ...options });
  expectValuesOf(result.logProbs, truth.logProbs, storage, "logProbs");
  expectValuesOf(result.logSumExp, truth.logSumExp, storage, "logSumExp");
  expectValuesOf(result.entropy as Tensor, truth.entropy, storage, "entropy");
  const means = Array.from(targets, (target, row) =>
    target === IGNORED_TARGET ? 0 : sum(numbers.subarray(row * vocabulary, (row + 1) * vocabulary)) / vocabulary,
  );
  expectValuesOf(result.meanLogit as Tensor, means, storage, "meanLogit");

  const gradient = await resultOf(pullBack, { ...given, logits, targets, logSumExp: result.logSumExp, upstream });
  const truthGradient = truthOfVjp({ logits: numbers, targets, upstream, ...options });
  const strict = options.softcap === undefined; // 1 − tanh² cancels
  const terms = storage === "f64" ? termsOf(truthGradient, truth, upstream, targets) : truthGradient.termSums.logits;
  expectGradientOf(gradient.logits, truthGradient.logits, terms, "gradient", { strict });
  expectSameResults(pullBack.sync({ ...given, logits, targets, upstream }), gradient, "without logSumExp");
  return { result, gradient };
}

describeBackends(() => {
  describe("values and gradient", () => {
    const fixture = combinations(loadFixture("token_log_probs").cases, WIDE_STORAGES);
    it.each(fixture)("equal PyTorch's: $name, $storage", async ({ n, v, options, expected, storage, ...inputs }) => {
      const logits = tensorOf(inputs.logits, [n, v], storage);
      const targets = Int32Array.from(inputs.targets);
      const upstream = Float64Array.from(inputs.upstream);
      const given = { logits, targets, ...(options as object) };
      const result = await resultOf(forward, { ...given, entropy: true });
      expectValuesOf(result.logProbs, expected.logProbs, storage, "logProbs");
      expectValuesOf(result.logSumExp, expected.logSumExp, storage, "logSumExp");
      expectValuesOf(result.entropy as Tensor, expected.entropy, storage, "entropy");
      const gradient = await resultOf(pullBack, { ...given, logSumExp: result.logSumExp, upstream });
      const truth = truthOfVjp({ ...inputs, ...options });
      const terms = storage === "f64" ? termsOf(truth, expected, upstream, targets) : truth.termSums.logits;
      expectGradientOf(gradient.logits, expected.gradLogits, terms, "gradient");
    });

    it.each(combinations(shapesFor("test", LOGIT_SHAPES), STORAGES))(
      "equal float64's: $name, $rows x $vocabulary, $storage",
      async ({ rows, vocabulary, storage }) => {
        await expectTruth(randomCase({ rows, vocabulary, storage }), storage);
      },
    );

    const options = [
      { temperature: 0.7 },
      { temperature: 0.1 },
      { temperature: 50 },
      { softcap: 30 },
      { softcap: 2 },
      { softcap: 15, temperature: 1.5 },
      { softcap: 5, temperature: 0.2 },
    ].map((logitOptions) => ({ name: JSON.stringify(logitOptions), logitOptions }));
    it.each(combinations(options, STORAGES))("equal float64's: $name, $storage", async ({ logitOptions, storage }) => {
      await expectTruth(randomCase({ rows: 41, vocabulary: 401, storage }), storage, logitOptions);
    });

    // Logits near a softcap as models use it: what tanh's own rounding does to a z of 45 shows in e^z.
    it.each(combinations([{ softcap: 30 }, { softcap: 50 }], STORAGES))(
      "equal float64's for logits that reach the softcap $softcap, $storage",
      async ({ softcap, storage }) => {
        await expectTruth(randomCase({ rows: 41, vocabulary: 401, storage, deviation: softcap / 3 }), storage, { softcap });
      },
    );

    it.each(STORAGES)("equal float64's where many logits are -inf, %s", async (storage) => {
      const random = createRandom(5);
      const { logits, targets, ...rest } = randomCase({ rows: 9, vocabulary: 4500, storage, ignore: false });
      const numbers = valuesOf(logits).map((z) => (random.uniform() < 0.7 ? -Infinity : z));
      numbers.fill(-Infinity, 4500, 4500 + 4200); // the whole first block of a row
      for (const [row, target] of targets.entries()) if (row > 2) numbers[row * 4500 + target] = 1;
      targets[0] = numbers.indexOf(-Infinity); // one target of probability 0
      targets[1] = 4300;
      numbers[4500 + 4300] = 2;
      const masked = tensorOf(numbers, [9, 4500], storage);
      const result = await resultOf(forward, { logits: masked, targets, entropy: true });
      const truth = truthOf({ logits: numbers, targets });
      expect(truth.logProbs[0]).toBe(-Infinity);
      expectValuesOf(result.logProbs, truth.logProbs, storage, "logProbs");
      expectValuesOf(result.entropy as Tensor, truth.entropy, storage, "entropy");
      const gradient = await resultOf(pullBack, { logits: masked, targets, upstream: rest.upstream });
      const truthGradient = truthOfVjp({ logits: numbers, targets, upstream: rest.upstream });
      expectGradientOf(gradient.logits, truthGradient.logits, truthGradient.termSums.logits, "gradient", { strict: true });
      const values = valuesOf(gradient.logits);
      numbers.forEach((z, i) => {
        if (z === -Infinity && i % 4500 !== targets[Math.floor(i / 4500)]) expect(Math.abs(values[i] ?? Number.NaN)).toBe(0);
      });
    });

    it.each(STORAGES)("give -inf for a target of probability 0, and the whole upstream as its gradient, %s", (storage) => {
      const logits = tensorOf([0, -Infinity, 1, 2], [1, 4], storage);
      const targets = Int32Array.of(1);
      expect(forward.sync({ logits, targets }).logProbs.data[0]).toBe(-Infinity);
      expect(valuesOf(pullBack.sync({ logits, targets, upstream: Float32Array.of(-1.5) }).logits)[1]).toBe(-1.5);
    });

    it.each(combinations([{ gap: 8 }, { gap: 12 }, { gap: 17 }, { gap: 20 }, { gap: 24 }, { gap: 80 }], STORAGES))(
      "hold for a target $gap above the rest, $storage",
      async ({ gap, storage }) => {
        const vocabulary = 1000;
        const numbers = valuesOf(tensorOf(createRandom(gap).normals(vocabulary), [vocabulary], storage));
        numbers[17] = gap;
        const logits = tensorOf(numbers, [1, vocabulary], storage);
        // Exactly what the target leaves to the others: 1 − p would have no digit of it.
        const others = numbers.reduce((total, z, j) => (j === 17 ? total : total + Math.exp(z - gap)), 0);
        const targets = Int32Array.of(17);
        const { logProbs, logSumExp } = await resultOf(forward, { logits, targets });
        expectValuesOf(logProbs, [-Math.log1p(others)], storage, "logProbs");
        const gradient = await resultOf(pullBack, { logits, targets, logSumExp, upstream: Float32Array.of(1) });
        const truth = numbers.map((z, j) => (j === 17 ? others : -Math.exp(z - gap)) / (1 + others));
        // Relative precision, however small the others. The target's own cancels: in f32 it may lose what one rounding of 1 is, in 16 bits
        // no more than the storage does, as long as double can still tell p from 1.
        const terms = truth.map((g, j) => (j === 17 ? 1 : Math.abs(g) * (1 + gap)));
        if (storage === "f64") expectGradient(gradient.logits.data, truth, { termSums: terms, epsilon: 2 ** -52, nmse: 1e-16 });
        else expectGradientOf(gradient.logits, truth, terms, "gradient", { strict: gap < 36 });
      },
    );

    it("are in f32 for 16-bit logits, in the logits' dtype for the gradient, and logSumExp always in f64", () => {
      for (const storage of STORAGES) {
        const { logits, targets, upstream } = randomCase({ rows: 3, vocabulary: 5, storage });
        const result = forward.sync({ logits, targets, entropy: true, meanLogit: true });
        const wide = storage === "f64" ? "f64" : "f32";
        const dtypes = [result.logProbs, result.logSumExp, result.entropy, result.meanLogit].map((t) => t?.dtype);
        expect(dtypes).toEqual([wide, "f64", wide, wide]);
        expect(pullBack.sync({ logits, targets, upstream }).logits.dtype).toBe(storage);
        expect(forward.sync({ logits, targets })).not.toHaveProperty("entropy");
        expect(forward.sync({ logits, targets })).not.toHaveProperty("meanLogit");
      }
    });

    it("take f32 upstreams and log-sums", () => {
      const { logits, targets, upstream } = randomCase({ rows: 4, vocabulary: 33, storage: "f32" });
      const logSumExp = Float32Array.from(forward.sync({ logits, targets }).logSumExp.data);
      const { logits: gradient } = pullBack.sync({ logits, targets, logSumExp, upstream: Float32Array.from(upstream) });
      const truth = truthOfVjp({ logits: valuesOf(logits), targets, upstream });
      expectGradientOf(gradient, truth.logits, truth.termSums.logits, "gradient");
    });
  });

  describe("finite differences", () => {
    const options: LogitOptions[] = [{}, { temperature: 0.7 }, { softcap: 4 }, { softcap: 3, temperature: 1.7 }];
    it.each(options)("agree with the gradient in f64: %j", (logitOptions) => {
      const given = logitOptions as Partial<TokenLogProbsArgs>;
      const { logits, targets, upstream } = randomCase({ rows: 4, vocabulary: 7, storage: "f64", seed: 3, deviation: 1 });
      const value = (x: Float64Array): number => dot(forward.sync({ ...given, logits: tensor(x.slice(), [4, 7]), targets }).logProbs.data, upstream);
      const gradient = pullBack.sync({ ...given, logits, targets, upstream }).logits;
      expectFiniteDifferences(value, logits.data, gradient.data);
    });
  });

  describe("laws", () => {
    it.each([1e4, -1e4])("a shift of every f32 logit by %d changes nothing", async (shift) => {
      const { rows, vocabulary, targets, upstream, logits } = randomCase({ rows: 9, vocabulary: 5000, storage: "f32" });
      const exact = valuesOf(logits).map((z) => Math.round(z * 1024) / 1024); // so that the shift rounds nothing off
      const shifted = exact.map((z) => z + shift);
      expectBitwiseEqual(valuesOf(tensorOf(shifted, [rows, vocabulary], "f32")), shifted);
      const truth = truthOf({ logits: exact, targets });
      const truthGradient = truthOfVjp({ logits: exact, targets, upstream });
      const given = { logits: tensorOf(shifted, [rows, vocabulary], "f32"), targets };
      const result = await resultOf(forward, { ...given, entropy: true });
      expectValues(result.logProbs.data, truth.logProbs, { label: "logProbs" });
      expectValues((result.entropy as Tensor).data, truth.entropy, { label: "entropy" });
      const unshifted = Array.from(result.logSumExp.data, (value, row) => (targets[row] === IGNORED_TARGET ? 0 : value - shift));
      expectValues(unshifted, truth.logSumExp, { label: "logSumExp" });
      const gradient = await resultOf(pullBack, { ...given, logSumExp: result.logSumExp, upstream });
      const { nmse } = expectGradient(gradient.logits.data, truthGradient.logits, { termSums: truthGradient.termSums.logits });
      expect(nmse).toBeLessThan(1e-11);
    });

    it("rows do not see each other: their order changes no bit, nor does their number", () => {
      const rowsOf = fc.record({
        rows: fc.integer({ min: 1, max: 40 }),
        vocabulary: fc.integer({ min: 1, max: 300 }),
        seed: fc.nat(1000),
        storage: fc.constantFrom(...STORAGES),
      });
      fc.assert(
        fc.property(rowsOf, ({ rows, vocabulary, seed, storage }) => {
          const { logits, targets, upstream } = randomCase({ rows, vocabulary, seed, storage });
          const whole = {
            ...forward.sync({ logits, targets, entropy: true, meanLogit: true }),
            dz: pullBack.sync({ logits, targets, upstream }).logits,
          };
          const order = permutation(rows, createRandom(seed).integer);
          const permuted = {
            logits: rowsAt(logits, order),
            targets: Int32Array.from(order, (row) => targets[row] ?? 0),
            upstream: Float64Array.from(order, (row) => upstream[row] ?? 0),
          };
          const result = { ...forward.sync({ ...permuted, entropy: true, meanLogit: true }), dz: pullBack.sync(permuted).logits };
          for (const key of ["logProbs", "logSumExp", "entropy", "meanLogit", "dz"] as const) {
            expectBitwiseEqual(result[key]?.data ?? [], rowsAt(whole[key] as Tensor, order).data, { label: key });
          }
          const one = forward.sync({ logits: logits.rows(rows - 1, rows), targets: targets.slice(rows - 1) });
          expectBitwiseEqual(one.logProbs.data, whole.logProbs.data.slice(rows - 1));
        }),
        { seed: 1, numRuns: 60 },
      );
    });

    it("the order of the vocabulary changes nothing but the places of the gradient", () => {
      fc.assert(
        fc.property(fc.integer({ min: 2, max: 9000 }), fc.nat(1000), (vocabulary, seed) => {
          const { logits, targets, upstream } = randomCase({ rows: 3, vocabulary, seed, storage: "f32", ignore: false });
          const order = permutation(vocabulary, createRandom(seed).integer);
          const numbers = valuesOf(logits);
          const columns = (values: ArrayLike<number>) =>
            Float64Array.from(numbers, (_, i) => values[i - (i % vocabulary) + (order[i % vocabulary] ?? 0)] ?? Number.NaN);
          const permuted = {
            logits: tensorOf(columns(numbers), [3, vocabulary], "f32"),
            targets: targets.map((target) => order.indexOf(target)),
          };
          const truth = truthOf({ logits: numbers, targets });
          const truthGradient = truthOfVjp({ logits: numbers, targets, upstream });
          expectValues(forward.sync(permuted).logProbs.data, truth.logProbs);
          const gradient = pullBack.sync({ ...permuted, upstream }).logits;
          expectGradient(gradient.data, columns(truthGradient.logits), { termSums: columns(truthGradient.termSums.logits) });
        }),
        { seed: 1, numRuns: 15 },
      );
    });

    it.each(STORAGES)("ignored rows give exactly 0 and nobody looks at their logits, %s", async (storage) => {
      const { logits, targets, upstream, rows, vocabulary } = randomCase({ rows: 8, vocabulary: 1030, storage });
      const given = { logits, targets };
      const clean = await resultOf(forward, { ...given, entropy: true, meanLogit: true });
      const cleanGradient = await resultOf(pullBack, { ...given, upstream });
      const numbers = valuesOf(logits);
      for (const bad of [Number.NaN, Infinity, -Infinity]) {
        const poisoned = tensorOf(
          numbers.map((z, i) => (targets[Math.floor(i / vocabulary)] === IGNORED_TARGET ? bad : z)),
          [rows, vocabulary],
          storage,
        );
        expectSameResults(await resultOf(forward, { logits: poisoned, targets, entropy: true, meanLogit: true }), clean);
        expectSameResults(await resultOf(pullBack, { logits: poisoned, targets, upstream }), cleanGradient);
      }
      for (const row of [2, 7]) {
        expect(targets[row]).toBe(IGNORED_TARGET);
        for (const result of Object.values(clean) as Tensor[]) expect(Object.is(result.data[row], 0)).toBe(true);
        expectBitwiseEqual(cleanGradient.logits.rows(row, row + 1).data, zeros([1, vocabulary], storage).data);
      }
    });

    it("gives zeros when every row is ignored", async () => {
      const { logits, upstream } = randomCase({ rows: 3, vocabulary: 20, storage: "f32" });
      const targets = new Int32Array(3).fill(IGNORED_TARGET);
      expectBitwiseEqual((await resultOf(forward, { logits, targets })).logProbs.data, [0, 0, 0]);
      expectBitwiseEqual((await resultOf(pullBack, { logits, targets, upstream })).logits.data, new Float32Array(60));
    });

    it.each(combinations([{ vocabulary: 31 }, { vocabulary: 1025 }, { vocabulary: 32_000 }], WIDE_STORAGES))(
      "a row of the gradient adds up to 0: $vocabulary, $storage",
      ({ vocabulary, storage }) => {
        const { logits, targets, upstream } = randomCase({ rows: 8, vocabulary, storage });
        const gradient = pullBack.sync({ logits, targets, upstream }).logits.data;
        for (let row = 0; row < 8; row++) {
          const part = gradient.slice(row * vocabulary, (row + 1) * vocabulary);
          const magnitudes = sum(part.map(Math.abs));
          expectValue(sum(Float64Array.from(part)), 0, { abs: 20 * magnitudes * (storage === "f32" ? 2 ** -23 : 2 ** -52), rel: 0 });
        }
      },
    );

    it("the log-probabilities of all targets of a row are those of one distribution", () => {
      const { logits } = randomCase({ rows: 1, vocabulary: 257, storage: "f32" });
      const every = tensorOf(Array.from({ length: 257 }, () => [...logits.data]).flat(), [257, 257], "f32");
      const { logProbs, entropy } = forward.sync({ logits: every, targets: Int32Array.from({ length: 257 }, (_, v) => v), entropy: true });
      const probabilities = Float64Array.from(logProbs.data, Math.exp);
      expectValue(sum(probabilities), 1, { abs: 1e-5 });
      expectValue(-dot(probabilities, logProbs.data), entropy?.data[0] ?? Number.NaN, { abs: 1e-5 });
    });

    it("uniform logits give -ln V and entropy ln V, and one column gives 0", () => {
      for (const storage of STORAGES) {
        for (const vocabulary of [1, 2, 17, 1000]) {
          const logits = tensorOf(new Float64Array(vocabulary).fill(-3.5), [1, vocabulary], storage);
          const { logProbs, entropy } = forward.sync({ logits, targets: Int32Array.of(0), entropy: true });
          expectUlps(logProbs.data, [-Math.log(vocabulary)], storage === "f64" ? "f64" : "f32");
          expectUlps(entropy?.data ?? [], [Math.log(vocabulary)], storage === "f64" ? "f64" : "f32");
        }
      }
    });

    it.each(combinations([{ rows: 40, vocabulary: 32_003 }], STORAGES))(
      "a gradient past the caches has the same bits as its rows one by one: $storage",
      ({ rows, vocabulary, storage }) => {
        const count = is16(storage) ? 2 * rows : rows; // above 4 MiB it is written around the caches
        const { logits, targets, upstream } = randomCase({ rows: count, vocabulary, storage });
        const whole = pullBack.sync({ logits, targets, upstream }).logits;
        for (let row = 0; row < count; row += 13) {
          const one = { logits: logits.rows(row, row + 1), targets: targets.slice(row, row + 1), upstream: upstream.slice(row, row + 1) };
          expect(Buffer.compare(bytesOf(pullBack.sync(one).logits), bytesOf(whole.rows(row, row + 1)))).toBe(0);
        }
      },
    );
  });

  const large = randomCase({ rows: 11, vocabulary: 16_003, storage: "f32" });
  const large16 = randomCase({ rows: 11, vocabulary: 16_003, storage: "bf16" });
  const full = (given: Case): TokenLogProbsArgs => ({ ...given, entropy: true, meanLogit: true, softcap: 20, temperature: 0.9 });
  const outOf = ({ logProbs, logSumExp, entropy, meanLogit }: TokenLogProbs) =>
    entropy === undefined || meanLogit === undefined ? { logProbs, logSumExp } : { logProbs, logSumExp, entropy, meanLogit };
  describeCall({ name: "tokenLogProbs, f32", faces: forward, args: () => full(large), outOf });
  describeCall({ name: "tokenLogProbs, bf16", faces: forward, args: (): TokenLogProbsArgs => large16, outOf });
  const vjpOut = ({ logits }: { logits: Tensor }) => ({ logits });
  describeCall({ name: "tokenLogProbsVjp, f32", faces: pullBack, args: (): TokenLogProbsVjpArgs => large, outOf: vjpOut });
  describeCall({ name: "tokenLogProbsVjp, bf16", faces: pullBack, args: (): TokenLogProbsVjpArgs => ({ ...large16, softcap: 9 }), outOf: vjpOut });

  describe("refuses", () => {
    const { logits, targets, upstream } = randomCase({ rows: 3, vocabulary: 5, storage: "f32", ignore: false });
    const withLogit = (index: number, value: number, storage: Storage = "f32"): Tensor => {
      const numbers = valuesOf(logits);
      numbers[index] = value;
      return tensorOf(numbers, [3, 5], storage);
    };

    it("no rows and no columns", () => {
      for (const shape of [[0, 5], [3, 0], []]) {
        expect(() => tensor(new Float32Array(0), shape)).toThrow(expect.objectContaining({ code: "ERR_SHAPE" }));
      }
      expect(() => forward.sync({ logits, targets: new Int32Array(0) })).toThrow(expect.objectContaining({ code: "ERR_SHAPE" }));
    });

    it.each(STORAGES)("NaN and +inf, and says where, %s", async (storage) => {
      for (const [index, value] of [
        [7, Number.NaN],
        [14, Infinity],
        [0, Number.NaN],
      ] as const) {
        const bad = withLogit(index, value, storage);
        const error = { code: "ERR_NONFINITE", index, message: /logits.*NaN or \+inf/ };
        await expectRefusal(forward, { logits: bad, targets }, error);
        await expectRefusal(forward, { logits: bad, targets, softcap: 5 }, error);
        await expectRefusal(forward, { logits: bad, targets, entropy: true, meanLogit: true }, error);
        const logSumExp = forward.sync({ logits, targets }).logSumExp;
        await expectRefusal(pullBack, { logits: bad, targets, logSumExp, upstream }, error);
        await expectRefusal(pullBack, { logits: bad, targets, upstream }, error);
      }
    });

    it("names the first of several bad logits", async () => {
      const numbers = valuesOf(logits);
      for (const i of [4, 8, 12]) numbers[i] = Number.NaN;
      await expectRefusal(forward, { logits: tensorOf(numbers, [3, 5], "f32"), targets }, { code: "ERR_NONFINITE", index: 4 });
    });

    it("a row of -inf only", async () => {
      const numbers = valuesOf(logits).fill(-Infinity, 5, 10);
      const bad = tensorOf(numbers, [3, 5], "f32");
      await expectRefusal(forward, { logits: bad, targets }, { code: "ERR_NONFINITE", index: 5, message: /row 1 is -inf/ });
      await expectRefusal(pullBack, { logits: bad, targets, upstream }, { code: "ERR_NONFINITE", message: /row 1 is -inf/ });
    });

    it.each([-1, 5, -99, -101, 2 ** 31 - 1, -(2 ** 31)])("the target %d", async (bad) => {
      const error = { code: "ERR_RANGE", index: 1, message: new RegExp(`targets.*${bad}.*0\\.\\.4.*-100`) };
      await expectRefusal(forward, { logits, targets: Int32Array.of(0, bad, 1) }, error);
      await expectRefusal(pullBack, { logits, targets: Int32Array.of(0, bad, 1), upstream }, error);
    });

    it("options out of range", async () => {
      for (const bad of [0, -1, Number.NaN, Infinity]) {
        await expectRefusal(forward, { logits, targets, temperature: bad }, { code: "ERR_RANGE", message: /temperature/ });
      }
      for (const bad of [-1, Number.NaN, Infinity]) {
        await expectRefusal(pullBack, { logits, targets, upstream, softcap: bad }, { code: "ERR_RANGE", message: /softcap/ });
      }
    });

    it("wrong shapes and dtypes, by the argument's name", async () => {
      const shape = (message: RegExp) => ({ code: "ERR_SHAPE", message });
      const dtype = (message: RegExp) => ({ code: "ERR_DTYPE", message });
      await expectRefusal(forward, { logits: logits.reshape([15]), targets }, shape(/logits/));
      await expectRefusal(forward, { logits, targets: Int32Array.of(1, 2) }, shape(/targets/));
      await expectRefusal(forward, { logits, targets: Float32Array.of(1, 2, 3) }, dtype(/targets/));
      await expectRefusal(forward, { logits: zeros([3, 5], "i32"), targets }, dtype(/logits/));
      await expectRefusal(forward, { logits: [1] as unknown as Tensor, targets }, dtype(/logits/));
      await expectRefusal(pullBack, { logits, targets, upstream: Float32Array.of(1) }, shape(/upstream/));
      await expectRefusal(pullBack, { logits, targets, upstream: zeros([3], "bf16") }, dtype(/upstream/));
      await expectRefusal(pullBack, { logits, targets, upstream, logSumExp: Float32Array.of(1) }, shape(/logSumExp/));
    });

    it("an upstream or log-sum that is not finite", async () => {
      const bad = Float32Array.of(1, Number.NaN, 2);
      await expectRefusal(pullBack, { logits, targets, upstream: bad }, { code: "ERR_NONFINITE", index: 1, message: /upstream/ });
      await expectRefusal(pullBack, { logits, targets, upstream, logSumExp: bad }, { code: "ERR_NONFINITE", index: 1, message: /logSumExp/ });
    });

    it("and leaves supplied results as they were", async () => {
      const out = { logProbs: tensorOf([7, 7, 7], [3], "f32"), logSumExp: tensorOf([8, 8, 8], [3], "f64") };
      const gradient = tensorOf(new Float64Array(15).fill(9), [3, 5], "f32");
      const bad = withLogit(14, Number.NaN);
      await expect(tokenLogProbs({ logits: bad, targets }, { out })).rejects.toThrow();
      await expect(tokenLogProbsVjp({ logits: bad, targets, upstream }, { out: { logits: gradient } })).rejects.toThrow();
      expect([...out.logProbs.data, ...out.logSumExp.data]).toEqual([7, 7, 7, 8, 8, 8]);
      expect([...gradient.data]).toEqual(new Array(15).fill(9));
    });
  });
}, ["tokenLogProbs", "tokenLogProbsVjp"]);

function bytesOf({ data }: Tensor): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
