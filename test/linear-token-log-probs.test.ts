import {
  type HeadGradients,
  IGNORED_TARGET,
  type LinearTokenLogProbsArgs,
  type LinearTokenLogProbsVjpArgs,
  linearTokenLogProbs,
  linearTokenLogProbsSync,
  linearTokenLogProbsVjp,
  linearTokenLogProbsVjpSync,
  type Tensor,
  type TokenLogProbs,
  tensor,
  tokenLogProbsSync,
  tokenLogProbsVjpSync,
  zeros,
} from "dpo-kernels";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HEAD_SHAPES, shapesFor } from "../bench/shapes.js";
import { describeBackends, isSimulating } from "./support/backends.js";
import { expectBitwiseEqual, expectValue, expectValues } from "./support/bounds.js";
import {
  combinations,
  expectGradientOf,
  expectRefusal,
  expectSameResults,
  expectValuesOf,
  is16,
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
import { loadFixture, named } from "./support/truth/fixtures.js";
import {
  type LinearTokenLogProbsInputs,
  linearLogits,
  linearTokenLogProbs as truthOf,
  linearTokenLogProbsVjp as truthOfVjp,
} from "./support/truth/linear-token-log-probs.js";
import { dot, sum } from "./support/truth/numbers.js";
import type { LogitOptions } from "./support/truth/token-log-probs.js";

const forward = { sync: linearTokenLogProbsSync, async: linearTokenLogProbs };
const pullBack = { sync: linearTokenLogProbsVjpSync, async: linearTokenLogProbsVjp };

interface Case {
  readonly hidden: Tensor;
  readonly weight: Tensor;
  readonly bias?: Tensor;
  readonly targets: Int32Array;
  readonly upstream: Float64Array;
}

interface CaseOptions {
  readonly rows: number;
  readonly depth: number;
  readonly vocabulary: number;
  readonly storage: Storage;
  readonly biased?: boolean;
  readonly seed?: number;
  /** Every fifth row, from the third on. */
  readonly ignore?: boolean;
}

function randomCase({ rows, depth, vocabulary, storage, biased = false, seed = 1, ignore = true }: CaseOptions): Case {
  const random = createRandom(seed + 100_000 * rows + 1000 * depth + vocabulary);
  const hidden = tensorOf(random.normals(rows * depth), [rows, depth], storage);
  const weight = tensorOf(random.normals(vocabulary * depth, 0, 2 / Math.sqrt(depth)), [vocabulary, depth], storage);
  const targets = random.integers(rows, 0, vocabulary).map((target, row) => (ignore && row % 5 === 2 ? IGNORED_TARGET : target));
  const upstream = Float64Array.from(random.normals(rows), Math.fround);
  const given = { hidden, weight, targets, upstream };
  return biased ? { ...given, bias: tensorOf(random.normals(vocabulary), [vocabulary], storage) } : given;
}

function truthInputs({ hidden, weight, bias, targets }: Case, options: LogitOptions = {}): LinearTokenLogProbsInputs {
  const width = hidden.shape[1] ?? 0;
  const numbers = { hidden: valuesOf(hidden), weight: valuesOf(weight), bias: bias === undefined ? undefined : valuesOf(bias) };
  return { ...numbers, targets, width, ...options };
}

/** Checks values and gradients of both faces against float64 on the same rounded inputs. */
async function expectTruth(given: Case, storage: Storage, options: LogitOptions & { readonly memoryLimit?: number } = {}): Promise<void> {
  const { memoryLimit: _, ...logitOptions } = options;
  const args = { ...given, ...(options as object) };
  const result = await resultOf(forward, { ...args, entropy: true, meanLogit: true });
  const inputs = truthInputs(given, logitOptions);
  const truth = truthOf(inputs);
  expectValuesOf(result.logProbs, truth.logProbs, storage, "logProbs");
  expectValuesOf(result.logSumExp, truth.logSumExp, storage, "logSumExp");
  expectValuesOf(result.entropy as Tensor, truth.entropy, storage, "entropy");
  expectValuesOf(result.meanLogit as Tensor, meanLogits(inputs), storage, "meanLogit");
  const grads = await resultOf(pullBack, { ...args, logSumExp: result.logSumExp });
  expectTruthGradients(grads, given, logitOptions);
  expectSameResults(pullBack.sync(args), grads, "without logSumExp");
}

function expectTruthGradients(grads: HeadGradients, given: Case, options: LogitOptions = {}): void {
  const truth = truthOfVjp({ ...truthInputs(given, options), upstream: given.upstream });
  for (const key of ["hidden", "weight", "bias"] as const) {
    const gradient = grads[key];
    expect(gradient === undefined).toBe(given[key] === undefined);
    if (gradient !== undefined) expectGradientOf(gradient, truth[key], truth.termSums[key], `gradient of ${key}`);
  }
}

function meanLogits(inputs: LinearTokenLogProbsInputs): Float64Array {
  const logits = linearLogits(inputs);
  const vocabulary = logits.length / inputs.targets.length;
  return Float64Array.from(inputs.targets, (target, row) =>
    target === IGNORED_TARGET ? 0 : sum(logits.subarray(row * vocabulary, (row + 1) * vocabulary)) / vocabulary,
  );
}

describeBackends(() => {
  describe("values and gradients", () => {
    const { cases, shapes } = loadFixture("linear_token_log_probs");
    it.each(combinations(cases, WIDE_STORAGES))(
      "equal PyTorch's: $name, $storage",
      async ({ shape, biased, options, expected, storage, ...inputs }) => {
        const { n, d, v, ...numbers } = named(shapes, shape);
        const given: Case = {
          hidden: tensorOf(numbers.hidden, [n, d], storage),
          weight: tensorOf(numbers.weight, [v, d], storage),
          ...(biased ? { bias: tensorOf(numbers.bias, [v], storage) } : {}),
          targets: Int32Array.from(inputs.targets),
          upstream: Float64Array.from(inputs.upstream),
        };
        const args = { ...given, ...(options as object) };
        const result = await resultOf(forward, { ...args, entropy: true });
        expectValuesOf(result.logProbs, expected.logProbs, storage, "logProbs");
        expectValuesOf(result.logSumExp, expected.logSumExp, storage, "logSumExp");
        expectValuesOf(result.entropy as Tensor, expected.entropy, storage, "entropy");
        const grads = await resultOf(pullBack, { ...args, logSumExp: result.logSumExp });
        const { termSums } = truthOfVjp({ ...truthInputs(given, options), upstream: inputs.upstream });
        expectGradientOf(grads.hidden, expected.gradHidden, termSums.hidden, "gradient of hidden");
        expectGradientOf(grads.weight, expected.gradWeight, termSums.weight, "gradient of weight");
        expect(grads.bias === undefined).toBe(expected.gradBias === undefined);
        if (grads.bias !== undefined) expectGradientOf(grads.bias, expected.gradBias ?? [], termSums.bias, "gradient of bias");
      },
    );

    it.each(combinations(shapesFor("test", HEAD_SHAPES), STORAGES))(
      "equal float64's: $name, $rows x $depth x $vocabulary, $storage",
      async ({ rows, depth, vocabulary, storage }) => {
        await expectTruth(randomCase({ rows, depth, vocabulary, storage, biased: (rows + depth + vocabulary) % 2 === 0 }), storage);
      },
    );

    const options = [{ temperature: 0.5 }, { softcap: 4 }, { softcap: 3, temperature: 1.5 }].map((logitOptions) => ({
      name: JSON.stringify(logitOptions),
      logitOptions,
    }));
    it.each(combinations(options, STORAGES))("equal float64's: $name, $storage", async ({ logitOptions, storage }) => {
      await expectTruth(randomCase({ rows: 19, depth: 17, vocabulary: 801, storage, biased: true }), storage, logitOptions);
    });

    it.each(combinations([{ gap: 4 }, { gap: 8 }, { gap: 17 }], WIDE_STORAGES))(
      "hold where every row's target is far above the rest, $gap, $storage",
      async ({ gap, storage }) => {
        const given = randomCase({ rows: 6, depth: 16, vocabulary: 900, storage, biased: true, ignore: false });
        const targets = new Int32Array(6).fill(17);
        const bias = valuesOf(given.bias as Tensor);
        bias[17] = gap + 8;
        const peaked = { ...given, targets, bias: tensorOf(bias, [900], storage) };
        const result = await resultOf(forward, peaked);
        expectValuesOf(result.logProbs, truthOf(truthInputs(peaked)).logProbs, storage, "logProbs");
        expectTruthGradients(await resultOf(pullBack, peaked), peaked);
      },
    );

    it("are stored: values as f32 for 16-bit inputs, the gradient of hidden as hidden, those of weight and bias as sums", () => {
      for (const storage of STORAGES) {
        const given = randomCase({ rows: 3, depth: 4, vocabulary: 5, storage, biased: true });
        const wide = storage === "f64" ? "f64" : "f32";
        const { logProbs, logSumExp } = forward.sync(given);
        expect([logProbs.dtype, logSumExp.dtype]).toEqual([wide, "f64"]);
        const { hidden, weight, bias } = pullBack.sync(given);
        expect([hidden.dtype, weight.dtype, bias?.dtype]).toEqual([storage, wide, wide]);
        expect([hidden.shape, weight.shape, bias?.shape]).toEqual([[3, 4], [5, 4], [5]]);
      }
      const { bias: _, ...unbiased } = randomCase({ rows: 3, depth: 4, vocabulary: 5, storage: "f32" });
      expect(pullBack.sync(unbiased)).not.toHaveProperty("bias");
    });
  });

  describe("finite differences", () => {
    const options: LogitOptions[] = [{}, { temperature: 0.7 }, { softcap: 3, temperature: 1.7 }];
    it.each(options)("agree with the gradients of hidden, weight and bias in f64: %j", (logitOptions) => {
      const given = { ...randomCase({ rows: 4, depth: 3, vocabulary: 5, storage: "f64", biased: true, seed: 9 }), ...(logitOptions as object) };
      const grads = pullBack.sync(given);
      for (const key of ["hidden", "weight", "bias"] as const) {
        const { shape, data } = given[key] as Tensor;
        const value = (x: Float64Array): number => dot(forward.sync({ ...given, [key]: tensor(x.slice(), shape) }).logProbs.data, given.upstream);
        expectFiniteDifferences(value, data, grads[key]?.data ?? [], { label: key });
      }
    });
  });

  describe("laws", () => {
    it("equals token_log_probs of the explicit logits", () => {
      const shapeOf = fc.record({
        rows: fc.integer({ min: 1, max: 50 }),
        depth: fc.integer({ min: 1, max: 70 }),
        vocabulary: fc.integer({ min: 1, max: 900 }),
        seed: fc.nat(1000),
        biased: fc.boolean(),
        storage: fc.constantFrom(...WIDE_STORAGES),
      });
      fc.assert(
        fc.property(shapeOf, ({ storage, ...shape }) => {
          const given = randomCase({ ...shape, storage });
          const { hidden, targets, upstream } = given;
          const width = hidden.shape[1] ?? 0;
          const logits = tensor(linearLogits(truthInputs(given)), [shape.rows, shape.vocabulary]);
          const explicit = tokenLogProbsSync({ logits, targets, entropy: true });
          const result = forward.sync({ ...given, entropy: true });
          expectValuesOf(result.logProbs, explicit.logProbs.data, storage, "logProbs");
          expectValuesOf(result.logSumExp, explicit.logSumExp.data, storage, "logSumExp");
          expectValuesOf(result.entropy as Tensor, (explicit.entropy as Tensor).data, storage, "entropy");
          // The gradient of hidden is that of the logits times the weights.
          const dz = tokenLogProbsVjpSync({ logits, targets, upstream }).logits.data;
          const weight = valuesOf(given.weight);
          const product = new Float64Array(hidden.size);
          const terms = new Float64Array(hidden.size);
          for (let row = 0; row < shape.rows; row++) {
            for (let v = 0; v < shape.vocabulary; v++) {
              for (let d = 0; d < width; d++) {
                const term = (dz[row * shape.vocabulary + v] ?? 0) * (weight[v * width + d] ?? 0);
                product[row * width + d] = (product[row * width + d] ?? 0) + term;
                terms[row * width + d] = (terms[row * width + d] ?? 0) + Math.abs(term) * 8;
              }
            }
          }
          expectGradientOf(pullBack.sync(given).hidden, product, terms, "gradient of hidden");
        }),
        { seed: 1, numRuns: 25 },
      );
    });

    const limits = [1, 100_000, 1_000_000, 56 * 2 ** 20, 2 ** 40];
    it.each(STORAGES)("any memoryLimit gives the same bits of the values and gradients within bounds, %s", async (storage) => {
      const given = randomCase({ rows: 83, depth: 24, vocabulary: 2500, storage, biased: true });
      const whole = forward.sync({ ...given, entropy: true, meanLogit: true });
      const truth = truthOfVjp({ ...truthInputs(given), upstream: given.upstream });
      for (const memoryLimit of isSimulating() ? [1, 100_000, 2 ** 40] : limits) {
        expectSameResults(await resultOf(forward, { ...given, memoryLimit, entropy: true, meanLogit: true }), whole, `memoryLimit ${memoryLimit}`);
        const grads = await resultOf(pullBack, { ...given, memoryLimit });
        expectGradientOf(grads.hidden, truth.hidden, truth.termSums.hidden, `hidden, ${memoryLimit}`);
        expectGradientOf(grads.weight, truth.weight, truth.termSums.weight, `weight, ${memoryLimit}`);
        expectGradientOf(grads.bias as Tensor, truth.bias, truth.termSums.bias, `bias, ${memoryLimit}`);
      }
    });

    it.each(STORAGES)("the order of rows changes no bit of the values and of the gradient of hidden, %s", (storage) => {
      for (const rows of [2, 17, 600]) {
        const given = randomCase({ rows, depth: 12, vocabulary: 70, storage });
        const order = permutation(rows, createRandom(rows).integer);
        const permuted = {
          hidden: rowsAt(given.hidden, order),
          weight: given.weight,
          targets: Int32Array.from(order, (row) => given.targets[row] ?? 0),
          upstream: Float64Array.from(order, (row) => given.upstream[row] ?? 0),
        };
        const [values, whole] = [forward.sync(permuted), forward.sync(given)];
        expectBitwiseEqual(values.logProbs.data, rowsAt(whole.logProbs, order).data, { label: "logProbs" });
        const [grads, wholeGrads] = [pullBack.sync(permuted), pullBack.sync(given)];
        expectBitwiseEqual(grads.hidden.data, rowsAt(wholeGrads.hidden, order).data, { label: "gradient of hidden" });
        const { weight, termSums } = truthOfVjp({ ...truthInputs(given), upstream: given.upstream });
        expectGradientOf(grads.weight, weight, termSums.weight, "gradient of weight");
      }
    });

    it("the order of the vocabulary changes nothing but the places of the gradient of weight and bias", () => {
      const vocabulary = 1600;
      const given = randomCase({ rows: 12, depth: 9, vocabulary, storage: "f32", biased: true });
      const order = permutation(vocabulary, createRandom(4).integer);
      const permuted: Case = {
        ...given,
        weight: rowsAt(given.weight, order),
        bias: rowsAt(given.bias as Tensor, order),
        targets: given.targets.map((target) => (target === IGNORED_TARGET ? target : order.indexOf(target))),
      };
      const truth = truthOfVjp({ ...truthInputs(given), upstream: given.upstream });
      expectValues(forward.sync(permuted).logProbs.data, truthOf(truthInputs(given)).logProbs);
      const grads = pullBack.sync(permuted);
      expectGradientOf(grads.hidden, truth.hidden, truth.termSums.hidden, "hidden");
      const back = new Int32Array(vocabulary);
      for (const [to, from] of order.entries()) back[from] = to;
      expectGradientOf(rowsAt(grads.weight, back), truth.weight, truth.termSums.weight, "weight");
      expectGradientOf(rowsAt(grads.bias as Tensor, back), truth.bias, truth.termSums.bias, "bias");
    });

    it("a common shift of the bias changes nothing: f32, by 1e4", async () => {
      const given = randomCase({ rows: 8, depth: 16, vocabulary: 1000, storage: "f32", biased: true });
      // What the logits lose at 1e4, an ulp of 2^-10, is no fault: so the products are exact there. Whole numbers, small.
      const random = createRandom(8);
      const exact = {
        ...given,
        hidden: tensorOf(random.integers(8 * 16, -2, 3), [8, 16], "f32"),
        weight: tensorOf(random.integers(1000 * 16, -1, 2), [1000, 16], "f32"),
        bias: tensorOf(random.integers(1000, -3, 4), [1000], "f32"),
      };
      for (const shift of [1e4, -1e4]) {
        const shifted = {
          ...exact,
          bias: tensorOf(
            valuesOf(exact.bias).map((b) => b + shift),
            [1000],
            "f32",
          ),
        };
        expectValues((await resultOf(forward, shifted)).logProbs.data, truthOf(truthInputs(exact)).logProbs);
        expectTruthGradients(await resultOf(pullBack, shifted), exact);
      }
    });

    it.each(STORAGES)("ignored rows give exactly 0, and the rest the same bits as without them, %s", async (storage) => {
      const given = randomCase({ rows: 21, depth: 18, vocabulary: 830, storage, biased: true });
      const result = await resultOf(forward, { ...given, entropy: true, meanLogit: true });
      const grads = await resultOf(pullBack, given);
      const counted = [...given.targets.keys()].filter((row) => given.targets[row] !== IGNORED_TARGET);
      expect(counted.length).toBeLessThan(21);
      const rest = {
        ...given,
        hidden: rowsAt(given.hidden, counted),
        targets: Int32Array.from(counted, (row) => given.targets[row] ?? 0),
        upstream: Float64Array.from(counted, (row) => given.upstream[row] ?? 0),
      };
      const restResult = forward.sync({ ...rest, entropy: true, meanLogit: true });
      for (const key of ["logProbs", "logSumExp", "entropy", "meanLogit"] as const) {
        const values = result[key]?.data ?? [];
        expectBitwiseEqual(
          counted.map((row) => values[row] ?? Number.NaN),
          restResult[key]?.data ?? [],
          { label: key },
        );
        for (const [row, target] of given.targets.entries()) if (target === IGNORED_TARGET) expect(Object.is(values[row], 0)).toBe(true);
      }
      const restGrads = pullBack.sync(rest);
      expectBitwiseEqual(rowsAt(grads.hidden, counted).data, restGrads.hidden.data, { label: "gradient of hidden" });
      expectSameResults({ weight: grads.weight, bias: grads.bias }, { weight: restGrads.weight, bias: restGrads.bias });
      for (const [row, target] of given.targets.entries()) {
        if (target === IGNORED_TARGET) expectBitwiseEqual(grads.hidden.rows(row, row + 1).data, zeros([1, 18], storage).data);
      }
    });

    it.each(STORAGES)("gives zeros when every row is ignored, %s", async (storage) => {
      const given = { ...randomCase({ rows: 3, depth: 4, vocabulary: 20, storage, biased: true }), targets: new Int32Array(3).fill(IGNORED_TARGET) };
      const out = { hidden: filled([3, 4], storage), weight: filled([20, 4], storage === "f64" ? "f64" : "f32") };
      expectBitwiseEqual((await resultOf(forward, given)).logProbs.data, [0, 0, 0]);
      const grads = linearTokenLogProbsVjpSync(given, { out });
      for (const gradient of [grads.hidden, grads.weight, grads.bias as Tensor]) expectBitwiseEqual(gradient.data, new Float64Array(gradient.size));
    });

    it.each(WIDE_STORAGES)("the gradient of the bias adds up to 0, %s", (storage) => {
      const given = randomCase({ rows: 30, depth: 8, vocabulary: 3000, storage, biased: true });
      const { data } = pullBack.sync(given).bias as Tensor;
      const { termSums } = truthOfVjp({ ...truthInputs(given), upstream: given.upstream });
      expectValue(sum(Float64Array.from(data)), 0, { abs: sum(termSums.bias) * (storage === "f32" ? 2 ** -23 : 2 ** -52), rel: 0 });
    });

    it("the gradient is linear in the upstream", () => {
      const given = randomCase({ rows: 20, depth: 10, vocabulary: 300, storage: "f32" });
      const [one, eight] = [pullBack.sync(given), pullBack.sync({ ...given, upstream: given.upstream.map((g) => -8 * g) })];
      for (const key of ["hidden", "weight"] as const) {
        expectValues(
          eight[key].data,
          one[key].data.map((g) => -8 * g),
          { abs: 0, rel: 0, label: key },
        );
      }
    });

    it("rows of no upstream give no gradient", () => {
      const given = { ...randomCase({ rows: 20, depth: 10, vocabulary: 300, storage: "f32" }), upstream: new Float64Array(20) };
      const { hidden, weight } = pullBack.sync(given);
      for (const { data } of [hidden, weight]) expectValues(data, new Float64Array(data.length), { abs: 0 });
    });
  });

  // Several blocks of rows and of the vocabulary, so that threads have something to share.
  const large = randomCase({ rows: 70, depth: 40, vocabulary: 4000, storage: "f32", biased: true });
  const large16 = randomCase({ rows: 70, depth: 40, vocabulary: 4000, storage: "bf16", biased: true });
  const many = randomCase({ rows: 1100, depth: 9, vocabulary: 800, storage: "f32" });
  const outOf = ({ logProbs, logSumExp, entropy, meanLogit }: TokenLogProbs) =>
    entropy === undefined || meanLogit === undefined ? { logProbs, logSumExp } : { logProbs, logSumExp, entropy, meanLogit };
  const gradientsOf = ({ hidden, weight, bias }: HeadGradients) => (bias === undefined ? { hidden, weight } : { hidden, weight, bias });
  const valueCalls: [string, () => LinearTokenLogProbsArgs][] = [
    ["f32", () => ({ ...large, entropy: true, meanLogit: true, softcap: 9, temperature: 1.1 })],
    ["f32 in little memory", () => ({ ...large, memoryLimit: 1 })],
    ["bf16", () => large16],
    ["many rows", () => many],
  ];
  const gradientCalls: [string, () => LinearTokenLogProbsVjpArgs][] = [
    ["f32", () => ({ ...large, softcap: 9, temperature: 1.1 })],
    ["f32 in little memory", () => ({ ...large, memoryLimit: 1 })],
    ["bf16", () => large16],
    ["many rows", () => many],
  ];
  for (const [name, args] of valueCalls) describeCall({ name: `linearTokenLogProbs, ${name}`, faces: forward, args, outOf });
  for (const [name, args] of gradientCalls) describeCall({ name: `linearTokenLogProbsVjp, ${name}`, faces: pullBack, args, outOf: gradientsOf });

  describe("refuses", () => {
    const given = randomCase({ rows: 3, depth: 4, vocabulary: 5, storage: "f32", biased: true, ignore: false });
    const changed = (key: "hidden" | "weight" | "bias", index: number, value: number, storage: Storage = "f32") => {
      const { shape } = given[key] as Tensor;
      const all = Object.fromEntries(
        (["hidden", "weight", "bias"] as const).map((name) => {
          const numbers = valuesOf(given[name] as Tensor);
          if (name === key) numbers[index] = value;
          return [name, tensorOf(numbers, name === key ? shape : (given[name] as Tensor).shape, storage)];
        }),
      );
      return { ...given, ...all } as Case;
    };

    it.each(STORAGES)("an input that is not finite, by name and index, %s", async (storage) => {
      for (const key of ["hidden", "weight", "bias"] as const) {
        for (const value of [Number.NaN, Infinity, -Infinity]) {
          const error = { code: "ERR_NONFINITE", index: 3, message: new RegExp(`^${key}: element 3`) };
          await expectRefusal(pullBack, { ...changed(key, 3, value, storage), logSumExp: Float64Array.of(1, 1, 1) }, error);
          await expectRefusal(forward, changed(key, 3, value, storage), error);
          await expectRefusal(forward, { ...changed(key, 3, value, storage), softcap: 3 }, error);
        }
      }
    });

    it("products that overflow", async () => {
      await expectRefusal(
        forward,
        { ...changed("hidden", 0, 3e38), weight: tensorOf(new Float64Array(20).fill(3e38), [5, 4], "f32") },
        { code: "ERR_NONFINITE" },
      );
    });

    it.each([-1, 5, -99, 2 ** 31 - 1])("the target %d", async (bad) => {
      const error = { code: "ERR_RANGE", index: 2, message: new RegExp(`targets.*${bad}.*0\\.\\.4`) };
      await expectRefusal(forward, { ...given, targets: Int32Array.of(0, 1, bad) }, error);
      await expectRefusal(pullBack, { ...given, targets: Int32Array.of(0, 1, bad) }, error);
    });

    it("options out of range", async () => {
      await expectRefusal(forward, { ...given, temperature: 0 }, { code: "ERR_RANGE", message: /temperature/ });
      await expectRefusal(pullBack, { ...given, softcap: -2 }, { code: "ERR_RANGE", message: /softcap/ });
      for (const memoryLimit of [0, -1]) await expectRefusal(forward, { ...given, memoryLimit }, { code: "ERR_RANGE", message: /memoryLimit/ });
      for (const memoryLimit of [1.5, Number.NaN, Infinity]) {
        await expectRefusal(
          pullBack,
          { ...given, memoryLimit },
          { code: expect.stringMatching(/^ERR_(RANGE|SHAPE)$/) as string, message: /memoryLimit/ },
        );
      }
    });

    it("wrong shapes and dtypes, by the argument's name", async () => {
      const shape = (message: RegExp) => ({ code: "ERR_SHAPE", message });
      const dtype = (message: RegExp) => ({ code: "ERR_DTYPE", message });
      await expectRefusal(forward, { ...given, hidden: given.hidden.reshape([12]) }, shape(/^hidden/));
      await expectRefusal(forward, { ...given, weight: zeros([5, 3], "f32") }, shape(/^weight/));
      await expectRefusal(forward, { ...given, bias: zeros([4], "f32") }, shape(/^bias/));
      await expectRefusal(forward, { ...given, targets: Int32Array.of(0) }, shape(/^targets/));
      await expectRefusal(forward, { ...given, weight: zeros([5, 4], "f64") }, dtype(/^weight/));
      await expectRefusal(forward, { ...given, bias: zeros([5], "bf16") }, dtype(/^bias/));
      await expectRefusal(forward, { ...given, hidden: zeros([3, 4], "i32") }, dtype(/^hidden/));
      await expectRefusal(pullBack, { ...given, upstream: Float32Array.of(1, 2) }, shape(/^upstream/));
      await expectRefusal(pullBack, { ...given, logSumExp: Float32Array.of(1, 2) }, shape(/^logSumExp/));
      expect(() => zeros([0, 4], "f32")).toThrow(expect.objectContaining({ code: "ERR_SHAPE" }));
    });

    it("an upstream or log-sum that is not finite", async () => {
      const bad = Float64Array.of(0, 1, Infinity);
      await expectRefusal(pullBack, { ...given, upstream: bad }, { code: "ERR_NONFINITE", index: 2, message: /^upstream/ });
      await expectRefusal(pullBack, { ...given, logSumExp: bad }, { code: "ERR_NONFINITE", index: 2, message: /^logSumExp/ });
    });
  });
}, ["tokenLogProbs", "tokenLogProbsVjp", "linearTokenLogProbs", "linearTokenLogProbsVjp"]);

function filled(shape: readonly number[], dtype: Storage): Tensor {
  const result = zeros(shape, dtype);
  result.data.fill(is16(dtype) ? 0x7fff : Number.NaN);
  return result;
}
