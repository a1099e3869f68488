import {
  type Divergence,
  divergenceSync,
  divergences,
  type HeadGradients,
  IGNORED_TARGET,
  type LinearDivergenceArgs,
  type LinearDivergenceResult,
  type LinearHead,
  linearDivergence,
  linearDivergenceSync,
  type Tensor,
  tensor,
  zeros,
} from "dpo-kernels";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HEAD_SHAPES, shapesFor } from "../bench/shapes.js";
import { describeBackends, isSimulating } from "./support/backends.js";
import { expectBitwiseEqual, expectGradient, expectValue, expectValues, FLOAT32_EPSILON } from "./support/bounds.js";
import {
  combinations,
  expectGradientOf,
  expectRefusal,
  expectSameResults,
  type Numbers,
  permutation,
  resultOf,
  rowsAt,
  STORAGES,
  tensorOf,
  valuesOf,
  WIDE_STORAGES,
} from "./support/cases.js";
import { KINDS, kindOf } from "./support/divergence-cases.js";
import { expectFiniteDifferences } from "./support/finite-differences.js";
import { describeCall } from "./support/laws.js";
import { createRandom } from "./support/random.js";
import type { Storage } from "./support/storage.js";
import { type DivergenceSpec, divergenceTruth, type Reduction, specOfFixture } from "./support/truth/divergences.js";
import { loadFixture } from "./support/truth/fixtures.js";
import {
  type LinearTokenLogProbsInputs,
  type LinearTokenLogProbsVjp,
  linearLogits,
  linearLogitTerms,
  linearPullBack,
} from "./support/truth/linear-token-log-probs.js";
import { at, dot } from "./support/truth/numbers.js";
import type { LogitOptions } from "./support/truth/token-log-probs.js";

const faces = { sync: linearDivergenceSync, async: linearDivergence };

/** Arguments without the kind. */
interface Given extends LogitOptions {
  readonly policy: LinearHead;
  readonly reference: LinearHead;
  readonly targets?: Int32Array;
  readonly upstream: Float64Array | number;
  readonly targetUpstream?: Float64Array;
  readonly reduction?: Reduction;
  readonly memoryLimit?: number;
}

interface CaseOptions {
  readonly rows: number;
  readonly depth: number;
  /** Width of the reference; by default that of the policy. */
  readonly otherDepth?: number;
  readonly vocabulary: number;
  readonly storage: Storage;
  readonly biased?: "both" | "policy" | "reference" | "none";
  readonly seed?: number;
}

function randomCase({ rows, depth, otherDepth = depth, vocabulary, storage, biased = "none", seed = 1 }: CaseOptions) {
  const random = createRandom(seed + 100_000 * rows + 1000 * depth + vocabulary);
  const head = (width: number, withBias: boolean): LinearHead => {
    const hidden = tensorOf(random.normals(rows * width), [rows, width], storage);
    const weight = tensorOf(random.normals(vocabulary * width, 0, 1.2 / Math.sqrt(width)), [vocabulary, width], storage);
    return withBias ? { hidden, weight, bias: tensorOf(random.normals(vocabulary, 0, 0.5), [vocabulary], storage) } : { hidden, weight };
  };
  return {
    policy: head(depth, biased === "both" || biased === "policy"),
    reference: head(otherDepth, biased === "both" || biased === "reference"),
    upstream: Float64Array.from(random.normals(rows), Math.fround),
  };
}

/** Every third row from the second on takes no part. */
function someIgnored(rows: number, vocabulary: number, seed = 3): Int32Array {
  return createRandom(seed)
    .integers(rows, 0, vocabulary)
    .map((target, row) => (row % 3 === 1 ? IGNORED_TARGET : target));
}

interface Truth {
  readonly values: Float64Array;
  readonly value: number;
  readonly grads: LinearTokenLogProbsVjp;
  /** What one epsilon in each of the terms of the logits moves each value by. */
  readonly valueTerms: Float64Array;
}

function inputsOf({ hidden, weight, bias }: LinearHead): LinearTokenLogProbsInputs {
  const [rows = 0, width = 0] = hidden.shape;
  return { hidden: valuesOf(hidden), weight: valuesOf(weight), bias: bias && valuesOf(bias), targets: new Int32Array(rows), width };
}

function truthOf(spec: DivergenceSpec, { policy, reference, memoryLimit: _, ...rest }: Given): Truth {
  const [mine, other] = [inputsOf(policy), inputsOf(reference)];
  const rows = mine.targets.length;
  const inputs = {
    ...rest,
    spec,
    rows,
    policy: linearLogits(mine),
    reference: linearLogits(other),
    policyTerms: linearLogitTerms(mine),
    referenceTerms: linearLogitTerms(other),
  };
  const { values, value, gradPolicy, termSums } = divergenceTruth(inputs);
  // The reference's logits are as uncertain as the policy's, and move the value about as much.
  const plain = divergenceTruth({ ...inputs, reduction: "none", upstream: 1, targetUpstream: undefined }).gradPolicy;
  const width = plain.length / rows;
  const part = (numbers: Float64Array, row: number) => numbers.subarray(row * width, (row + 1) * width);
  const valueTerms = values.map((__, row) => 2 * dot(part(plain, row).map(Math.abs), part(inputs.policyTerms, row)));
  return { values, value, grads: linearPullBack(mine, gradPolicy, termSums), valueTerms };
}

function storageOf({ policy }: Given): Storage {
  return policy.hidden.dtype as Storage;
}

/** SPEC 9 of the divergence, and what the rounding of its logits costs. */
function expectDivergences(actual: Tensor, truth: Truth, storage: Storage, label: string): void {
  const [abs, rel, epsilon] = storage === "f64" ? [1e-12, 1e-12, 2 ** -52] : [1e-5, 1e-6, FLOAT32_EPSILON];
  const bounds = truth.values.map((value, row) => abs + rel * Math.abs(value) + 4 * epsilon * at(truth.valueTerms, row));
  const scaled = Float64Array.from(actual.data, (value, row) => (value - at(truth.values, row)) / at(bounds, row));
  expectValues(scaled, new Float64Array(scaled.length), { abs: 1, rel: 0, label: `${label}, in bounds` });
}

function expectGradients(
  grads: HeadGradients,
  truth: LinearTokenLogProbsVjp,
  { hidden, weight, bias }: LinearHead,
  label: string,
  epsilon = 2 ** -52,
): void {
  expect(Object.keys(grads).sort()).toEqual(bias === undefined ? ["hidden", "weight"] : ["bias", "hidden", "weight"]);
  for (const [key, input] of Object.entries({ hidden, weight, bias })) {
    if (input === undefined) continue;
    const name = key as keyof HeadGradients;
    const gradient = grads[name] as Tensor;
    const [expected, termSums] = [truth[name], truth.termSums[name]];
    if (gradient.dtype === "f64") expectGradient(gradient.data, expected, { termSums, epsilon, nmse: 1e-18, label: `${label}: ${key}` });
    else expectGradientOf(gradient, expected, termSums, `${label}: gradient of ${key}`);
  }
}

/** Checks values and gradients of both faces against float64 on the same rounded inputs. */
async function expectTruth(kind: Divergence, spec: DivergenceSpec, given: Given, label = ""): Promise<LinearDivergenceResult> {
  const result = await resultOf(faces, { ...(given as LinearDivergenceArgs), kind });
  const truth = truthOf(spec, given);
  expectDivergences(result.values, truth, storageOf(given), `values ${label}`);
  // Iterations end at a marginal error of 1e-13.
  expectGradients(result.grads as HeadGradients, truth.grads, given.policy, label, spec.name === "transport" ? 1e-12 : 2 ** -52);
  return result;
}

describeBackends(() => {
  describe("values and gradients", () => {
    it.each(combinations(loadFixture("divergence").heads, WIDE_STORAGES))(
      "equal PyTorch's: $name, $storage",
      async ({ n, d, e, v, storage, ...one }) => {
        const given: Given = {
          policy: {
            hidden: tensorOf(one.policyHidden, [n, d], storage),
            weight: tensorOf(one.policyWeight, [v, d], storage),
            bias: tensorOf(one.policyBias, [v], storage),
          },
          reference: { hidden: tensorOf(one.referenceHidden, [n, e], storage), weight: tensorOf(one.referenceWeight, [v, e], storage) },
          targets: Int32Array.from(one.targets),
          upstream: Float64Array.from(one.upstream),
          targetUpstream: Float64Array.from(one.targetUpstream),
          ...one.options,
        };
        const spec = specOfFixture(one.kind);
        const { values, grads } = await expectTruth(kindOf(spec), spec, given);
        expectValues(values.data, one.expected.values, storage === "f64" ? { abs: 1e-13, rel: 1e-12 } : {});
        const { termSums } = truthOf(spec, given).grads;
        const bounds = storage === "f64" ? { epsilon: 2 ** -52, nmse: 1e-24 } : {};
        expectGradient(grads?.hidden.data ?? [], one.expected.gradHidden, { ...bounds, termSums: termSums.hidden });
        expectGradient(grads?.weight.data ?? [], one.expected.gradWeight, { ...bounds, termSums: termSums.weight });
        expectGradient(grads?.bias?.data ?? [], one.expected.gradBias, { ...bounds, termSums: termSums.bias });
      },
    );

    const biases = ["none", "both", "policy", "reference"] as const;
    const specs: DivergenceSpec[] = [{ name: "kl" }, { name: "js" }, { name: "renyi", alpha: 0.5 }, { name: "tv" }, { name: "chi2" }];
    const shapes = shapesFor("test", HEAD_SHAPES).map((shape, i) => ({
      ...shape,
      biased: biases[i % biases.length] ?? "none",
      otherDepth: Math.max(1, shape.depth + ((i % 5) - 2)),
      spec: specs[i % specs.length] ?? { name: "kl" as const },
    }));
    const large = ({ rows, vocabulary }: { rows: number; vocabulary: number }) => rows * vocabulary > 9000;
    const everyShape = [
      ...combinations(shapes.filter(large), ["f32", "bf16"]),
      ...combinations(
        shapes.filter((shape) => !large(shape)),
        STORAGES,
      ),
    ];
    it.each(everyShape)("equal float64's: $name, $rows x $depth and $otherDepth x $vocabulary, $spec.name, $storage", async ({ spec, ...shape }) => {
      await expectTruth(kindOf(spec), spec, randomCase(shape));
    });

    it.each(combinations(KINDS, STORAGES))("equal float64's: $name, $storage", async ({ kind, spec, storage }) => {
      const given = randomCase({ rows: 13, depth: 7, otherDepth: 4, vocabulary: 61, storage, biased: "both" });
      await expectTruth(kind, spec, given);
      const targets = someIgnored(13, 61);
      const targetUpstream = Float64Array.from(createRandom(5).normals(13), Math.fround);
      await expectTruth(kind, spec, { ...given, targets, targetUpstream, temperature: 1.25 }, "with targets");
      await expectTruth(kind, spec, { ...given, targets, softcap: 4, reduction: "mean", upstream: 1.5 }, "mean");
    });

    it.each(STORAGES)("equal float64's by optimal transport, %s", async (storage) => {
      const given = { ...randomCase({ rows: 4, depth: 5, otherDepth: 3, vocabulary: 9, storage }), upstream: 1 };
      const settled = { epsilon: 0.3, tolerance: 1e-13, maxIterations: 100_000 };
      const cost = createRandom(1).uniforms(81, 0, 2);
      await expectTruth(
        divergences.wasserstein({ cost: tensorOf(cost, [9, 9], "f64"), ...settled }),
        { name: "transport", cost, epsilon: 0.3 },
        given,
        "cost",
      );
      const points = createRandom(2).normals(9);
      const embeddings = tensorOf(points, [9, 1], "f64");
      const distances = Float64Array.from({ length: 81 }, (_, i) => Math.abs(at(points, Math.floor(i / 9)) - at(points, i % 9)));
      const spec: DivergenceSpec = { name: "transport", cost: distances, epsilon: 0.3, topK: 3 };
      await expectTruth(divergences.wasserstein({ embeddings, topK: 3, ...settled }), spec, given, "embeddings");
    });

    it.each(combinations([{ temperature: 0.5 }, { softcap: 4 }, { softcap: 3, temperature: 1.5 }], STORAGES))(
      "equal float64's: temperature $temperature, softcap $softcap, $storage",
      async ({ storage, ...options }) => {
        const given = randomCase({ rows: 19, depth: 17, otherDepth: 24, vocabulary: 401, storage, biased: "both" });
        await expectTruth(divergences.jeffreys(), { name: "jeffreys" }, { ...given, ...options });
        await expectTruth(divergences.renyi({ alpha: 2 }), { name: "renyi", alpha: 2 }, { ...given, ...options });
      },
    );

    it.each(combinations([{ reduction: "sum" }, { reduction: "mean" }, { reduction: "batchmean" }] as const, WIDE_STORAGES))(
      "are reduced: $reduction, $storage",
      async ({ reduction, storage }) => {
        const given = { ...randomCase({ rows: 8, depth: 5, vocabulary: 40, storage }), upstream: -2.25, reduction };
        for (const targets of [undefined, someIgnored(8, 40)]) {
          const args = { ...given, ...(targets && { targets }) };
          const { value } = await expectTruth(divergences.js(), { name: "js" }, args);
          expectValue(value ?? Number.NaN, truthOf({ name: "js" }, args).value, storage === "f64" ? { abs: 1e-12 } : { abs: 8e-5 });
        }
        expect(linearDivergenceSync({ ...given, reduction: "none", upstream: 1, kind: divergences.js() })).not.toHaveProperty("value");
      },
    );

    it("are stored: values as f32 for 16-bit inputs, the gradient of hidden as hidden, those of weight and bias as sums", () => {
      for (const storage of STORAGES) {
        const { upstream, ...given } = randomCase({ rows: 3, depth: 4, otherDepth: 2, vocabulary: 5, storage, biased: "policy" });
        const wide = storage === "f64" ? "f64" : "f32";
        const { values, grads } = linearDivergenceSync({ ...given, upstream, kind: divergences.kl() });
        expect([values.dtype, grads?.hidden.dtype, grads?.weight.dtype, grads?.bias?.dtype]).toEqual([wide, storage, wide, wide]);
        expect([grads?.hidden.shape, grads?.weight.shape, grads?.bias?.shape]).toEqual([[3, 4], [5, 4], [5]]);
        expect(Object.keys(linearDivergenceSync({ ...given, kind: divergences.kl() }))).toEqual(["values"]);
      }
      const unbiased = randomCase({ rows: 3, depth: 4, vocabulary: 5, storage: "f32", biased: "reference" });
      expect(linearDivergenceSync({ ...unbiased, kind: divergences.kl() }).grads).not.toHaveProperty("bias");
    });
  });

  describe("finite differences", () => {
    const options: LogitOptions[] = [{}, { temperature: 0.7 }, { softcap: 3, temperature: 1.7 }];
    it.each(options)("agree with the gradients of hidden, weight and bias in f64: %j", (logitOptions) => {
      const given = {
        ...randomCase({ rows: 4, depth: 3, otherDepth: 2, vocabulary: 5, storage: "f64", biased: "both", seed: 9 }),
        ...(logitOptions as object),
      };
      for (const kind of [divergences.jeffreys(), divergences.js(), divergences.alpha({ alpha: 0.5 }), divergences.wasserstein({ exponent: 2 })]) {
        const { grads } = linearDivergenceSync({ ...given, kind });
        for (const key of ["hidden", "weight", "bias"] as const) {
          const { shape, data } = given.policy[key] as Tensor;
          const value = (x: Float64Array): number => {
            const policy = { ...given.policy, [key]: tensor(x.slice(), shape) };
            return dot(linearDivergenceSync({ ...given, policy, kind }).values.data, given.upstream);
          };
          expectFiniteDifferences(value, data, grads?.[key]?.data ?? [], { label: `${kind.name}, ${key}` });
        }
      }
    });
  });

  describe("laws", () => {
    it("equals divergence of the explicit logits", () => {
      const shapeOf = fc.record({
        rows: fc.integer({ min: 1, max: 40 }),
        depth: fc.integer({ min: 1, max: 40 }),
        otherDepth: fc.integer({ min: 1, max: 40 }),
        vocabulary: fc.integer({ min: 1, max: 500 }),
        biased: fc.constantFrom("none" as const, "both" as const, "policy" as const, "reference" as const),
        seed: fc.nat(1000),
        one: fc.constantFrom(...KINDS),
      });
      fc.assert(
        fc.property(shapeOf, ({ one, ...shape }) => {
          const given = randomCase({ ...shape, storage: "f64" });
          const logitsOf = (head: LinearHead) => tensor(linearLogits(inputsOf(head)), [shape.rows, shape.vocabulary]);
          const explicit = divergenceSync({ policy: logitsOf(given.policy), reference: logitsOf(given.reference), kind: one.kind });
          const { values } = linearDivergenceSync({ ...given, kind: one.kind });
          expectValues(values.data, explicit.values.data, { abs: 1e-11, rel: 1e-11, label: one.name });
        }),
        { seed: 1, numRuns: 60 },
      );
    });

    it.each(combinations(KINDS, STORAGES))("equal heads give exactly 0, and gradients of exactly 0: $name, $storage", async ({ kind, storage }) => {
      for (const [rows, depth, vocabulary] of [
        [5, 6, 1],
        [7, 16, 150],
        [isSimulating() ? 9 : 40, 5, 1100],
      ] as const) {
        const { policy } = randomCase({ rows, depth, vocabulary, storage, biased: "both" });
        for (const memoryLimit of [undefined, 50_000]) {
          const limit = memoryLimit === undefined ? {} : { memoryLimit };
          const { values, grads } = await resultOf(faces, { policy, reference: policy, kind, upstream: 2, ...limit });
          expectValues(values.data, new Float64Array(rows), { abs: 0 });
          for (const gradient of Object.values(grads ?? {}) as Tensor[])
            expectValues(valuesOf(gradient), new Float64Array(gradient.size), { abs: 0 });
        }
      }
    });

    const limits = [20_000, 100_000, 1_000_000, 56 * 2 ** 20, 2 ** 40];
    it.each(
      combinations(
        KINDS.filter(({ name }) => ["kl", "js(0.5)", "renyi(0.9)", "wasserstein(1)"].includes(name)),
        ["f32", "bf16"],
      ),
    )("any memoryLimit gives the same within bounds: $name, $storage", async ({ kind, spec, storage }) => {
      const given = randomCase({ rows: 43, depth: 12, otherDepth: 20, vocabulary: 1300, storage, biased: "both" });
      const targets = someIgnored(43, 1300);
      const truth = truthOf(spec, { ...given, targets });
      for (const memoryLimit of isSimulating() ? [20_000, 2 ** 40] : limits) {
        const { values, grads } = await resultOf(faces, { ...given, targets, kind, memoryLimit });
        expectDivergences(values, truth, storage, `memoryLimit ${memoryLimit}`);
        expectGradients(grads as HeadGradients, truth.grads, given.policy, `memoryLimit ${memoryLimit}`);
      }
    });

    it.each(STORAGES)("a memoryLimit too small for one row is refused, or exceeded by little: %s", async (storage) => {
      const given = { ...randomCase({ rows: 6, depth: 8, vocabulary: 900, storage }), upstream: 1 };
      const args = { ...given, kind: divergences.js(), memoryLimit: 1 };
      let result: LinearDivergenceResult | undefined;
      try {
        result = linearDivergenceSync(args);
      } catch (error) {
        expect(error).toMatchObject({ code: expect.stringMatching(/^ERR_(MEMORY|RANGE)$/), message: expect.stringMatching(/memoryLimit/) });
        await expect(linearDivergence(args)).rejects.toMatchObject({ message: (error as Error).message });
        return;
      }
      const truth = truthOf({ name: "js" }, given);
      expectDivergences(result.values, truth, storage, "memoryLimit 1");
      expectGradients(result.grads as HeadGradients, truth.grads, given.policy, "memoryLimit 1");
      expectSameResults(await linearDivergence(args), result);
    });

    it.each(STORAGES)("ignored rows give exactly 0, and the rest the same as without them, %s", async (storage) => {
      const given = randomCase({ rows: 20, depth: 9, otherDepth: 11, vocabulary: 230, storage, biased: "both" });
      const targets = someIgnored(20, 230);
      const counted = [...targets.keys()].filter((row) => targets[row] !== IGNORED_TARGET);
      const spec: DivergenceSpec = { name: "kl" };
      const whole = await expectTruth(divergences.kl(), spec, { ...given, targets }, "with ignored rows");
      const rowsOf = (head: LinearHead): LinearHead => ({ ...head, hidden: rowsAt(head.hidden, counted) });
      const rest = {
        policy: rowsOf(given.policy),
        reference: rowsOf(given.reference),
        upstream: Float64Array.from(counted, (row) => at(given.upstream, row)),
      };
      const without = linearDivergenceSync({ ...rest, kind: divergences.kl() });
      const values = (numbers: Numbers) => Float64Array.from(counted, (row) => at(numbers, row));
      expectBitwiseEqual(values(whole.values.data), without.values.data);
      expectBitwiseEqual(rowsAt(whole.grads?.hidden as Tensor, counted).data, without.grads?.hidden.data ?? []);
      expectBitwiseEqual(whole.grads?.weight.data ?? [], without.grads?.weight.data ?? []);
      expectBitwiseEqual(whole.grads?.bias?.data ?? [], without.grads?.bias?.data ?? []);
      for (const [row, target] of targets.entries()) {
        if (target !== IGNORED_TARGET) continue;
        expect(Object.is(whole.values.data[row], 0)).toBe(true);
        expectBitwiseEqual(whole.grads?.hidden.rows(row, row + 1).data ?? [], zeros([1, 9], storage).data);
      }
    });

    it("gives zeros when every row is ignored, also into supplied memory", async () => {
      const given = { ...randomCase({ rows: 3, depth: 4, vocabulary: 20, storage: "f32" }), targets: new Int32Array(3).fill(IGNORED_TARGET) };
      const out = {
        weight: tensorOf(new Float64Array(80).fill(Number.NaN), [20, 4], "f32"),
        hidden: tensorOf(new Float64Array(12).fill(7), [3, 4], "f32"),
      };
      const { values, grads } = linearDivergenceSync({ ...given, kind: divergences.kl() }, { out });
      for (const { data } of [values, grads?.hidden as Tensor, grads?.weight as Tensor]) expectBitwiseEqual(data, new Float64Array(data.length));
      expect(grads?.weight).toBe(out.weight);
    });

    it.each([divergences.chi2(), divergences.tsallis({ alpha: 3 }), divergences.alpha({ alpha: 2.5 })])(
      "leaves supplied results as they were where one row's value does not fit: %o",
      async (kind) => {
        // One word's probability, e^-spread under the reference, is near 1 under the policy of the last row.
        const hidden = (spread: number) => tensorOf(Float64Array.of(0, 0.1, spread), [3, 1], "f32");
        const weight = tensorOf(Float64Array.of(-1, 1), [2, 1], "f32");
        for (const spread of [25, 40, 200]) {
          const given = {
            policy: { hidden: hidden(spread), weight },
            reference: { hidden: hidden(-spread), weight },
            temperature: 0.5,
            kind,
            upstream: 1,
          };
          const error = { code: "ERR_NONFINITE", message: /row 2/ };
          await expectRefusal(faces, given, error);
          const filled = () => ({
            hidden: tensorOf(new Float64Array(3).fill(7), [3, 1], "f32"),
            weight: tensorOf(new Float64Array(2).fill(7), [2, 1], "f32"),
          });
          const out = filled();
          expect(() => linearDivergenceSync(given, { out })).toThrow(expect.objectContaining({ code: "ERR_NONFINITE" }));
          await expect(linearDivergence(given, { out })).rejects.toThrow(expect.objectContaining({ code: "ERR_NONFINITE" }));
          expectSameResults(out, filled());
        }
      },
    );

    it.each(STORAGES)("the order of rows changes no bit of the values and of the gradient of hidden, %s", (storage) => {
      for (const rows of [2, 17, 200]) {
        const given = randomCase({ rows, depth: 6, otherDepth: 5, vocabulary: 70, storage });
        const order = permutation(rows, createRandom(rows).integer);
        const permuted = {
          policy: { ...given.policy, hidden: rowsAt(given.policy.hidden, order) },
          reference: { ...given.reference, hidden: rowsAt(given.reference.hidden, order) },
          upstream: Float64Array.from(order, (row) => at(given.upstream, row)),
        };
        const [moved, whole] = [permuted, given].map((args) => linearDivergenceSync({ ...args, kind: divergences.js() }));
        expectBitwiseEqual(moved?.values.data ?? [], rowsAt(whole?.values as Tensor, order).data);
        expectBitwiseEqual(moved?.grads?.hidden.data ?? [], rowsAt(whole?.grads?.hidden as Tensor, order).data);
      }
    });

    it.each(STORAGES)("f of a generator's name has the bits of the divergence of that name, %s", (storage) => {
      const given = randomCase({ rows: 6, depth: 10, otherDepth: 7, vocabulary: 300, storage, biased: "policy" });
      const byGenerator = linearDivergenceSync({ ...given, kind: divergences.f({ generator: "alpha", alpha: 1.5 }) });
      expectSameResults(byGenerator, linearDivergenceSync({ ...given, kind: divergences.alpha({ alpha: 1.5 }) }));
    });

    it("rows of no upstream give no gradient", () => {
      const given = { ...randomCase({ rows: 20, depth: 10, vocabulary: 300, storage: "f32" }), upstream: new Float64Array(20) };
      const { grads } = linearDivergenceSync({ ...given, kind: divergences.kl() });
      for (const { data } of [grads?.hidden as Tensor, grads?.weight as Tensor]) expectValues(data, new Float64Array(data.length), { abs: 0 });
    });
  });

  const outOf = ({ values, grads }: LinearDivergenceResult) => ({ values, ...grads }) as Record<string, Tensor>;
  const large = randomCase({ rows: 70, depth: 40, otherDepth: 24, vocabulary: 4000, storage: "f32", biased: "both" });
  const large16 = randomCase({ rows: 70, depth: 40, otherDepth: 48, vocabulary: 4000, storage: "bf16", biased: "policy" });
  const many = randomCase({ rows: 600, depth: 9, vocabulary: 800, storage: "f32" });
  const calls: [string, () => LinearDivergenceArgs][] = [
    ["kl, f32", () => ({ ...large, kind: divergences.kl(), softcap: 9, temperature: 1.1 })],
    ["js, f32 in little memory", () => ({ ...large, kind: divergences.js(), memoryLimit: 200_000 })],
    ["renyi, bf16", () => ({ ...large16, kind: divergences.renyi({ alpha: 2 }), targets: someIgnored(70, 4000) })],
    ["tv, many rows", () => ({ ...many, kind: divergences.tv() })],
    ["wasserstein without gradients", () => ({ policy: large.policy, reference: large.reference, kind: divergences.wasserstein() })],
  ];
  for (const [name, args] of calls) describeCall({ name: `linearDivergence, ${name}`, faces, args, outOf });

  describe("refuses", () => {
    const given = randomCase({ rows: 3, depth: 4, otherDepth: 2, vocabulary: 5, storage: "f32", biased: "both" });
    const kind = divergences.js();
    const changed = (side: "policy" | "reference", key: "hidden" | "weight" | "bias", index: number, value: number): Given => {
      const source = given[side][key] as Tensor;
      const numbers = valuesOf(source);
      numbers[index] = value;
      return { ...given, [side]: { ...given[side], [key]: tensorOf(numbers, source.shape, "f32") } };
    };

    it("an input that is not finite, by name and index", async () => {
      for (const side of ["policy", "reference"] as const) {
        for (const key of ["hidden", "weight", "bias"] as const) {
          for (const value of [Number.NaN, Infinity, -Infinity]) {
            const args = { ...(changed(side, key, 2, value) as LinearDivergenceArgs), kind };
            await expectRefusal(faces, args, { code: "ERR_NONFINITE", index: 2, message: new RegExp(`${side}\\.${key}: element 2`) });
          }
        }
      }
    });

    it("products that overflow", async () => {
      const policy = {
        ...given.policy,
        weight: tensorOf(new Float64Array(20).fill(3e38), [5, 4], "f32"),
        hidden: tensorOf(new Float64Array(12).fill(3e38), [3, 4], "f32"),
      };
      await expectRefusal(faces, { ...given, policy, kind }, { code: "ERR_NONFINITE" });
    });

    it("a function of the caller's own, which needs all logits at once", async () => {
      const own = divergences.f({ f: (r) => r * r, derivative: (r) => 2 * r });
      await expectRefusal(faces, { ...given, kind: own }, { code: "ERR_RANGE", message: /divergence/ });
    });

    it.each([-1, 5, -99, 2 ** 31 - 1])("the target %d", async (bad) => {
      const error = { code: "ERR_RANGE", index: 2, message: new RegExp(`targets.*${bad}.*0\\.\\.4`) };
      await expectRefusal(faces, { ...given, kind, targets: Int32Array.of(0, 1, bad) }, error);
    });

    it("heads that do not go together, by the argument's name", async () => {
      const shape = (message: RegExp) => ({ code: "ERR_SHAPE", message });
      const dtype = (message: RegExp) => ({ code: "ERR_DTYPE", message });
      const withHead = (side: "policy" | "reference", part: Partial<LinearHead>) => ({ ...given, [side]: { ...given[side], ...part }, kind });
      await expectRefusal(faces, withHead("reference", { hidden: zeros([4, 2], "f32") }), shape(/reference\.hidden/));
      await expectRefusal(faces, withHead("reference", { weight: zeros([6, 2], "f32"), bias: zeros([6], "f32") }), shape(/reference\.weight/));
      await expectRefusal(faces, withHead("policy", { weight: zeros([5, 3], "f32") }), shape(/policy\.weight/));
      await expectRefusal(faces, withHead("policy", { bias: zeros([4], "f32") }), shape(/policy\.bias/));
      await expectRefusal(faces, withHead("policy", { hidden: zeros([12], "f32") }), shape(/policy\.hidden/));
      await expectRefusal(faces, withHead("policy", { weight: zeros([5, 4], "f64") }), dtype(/policy\.weight/));
      const f64 = { hidden: zeros([3, 2], "f64"), weight: zeros([5, 2], "f64"), bias: zeros([5], "f64") };
      await expectRefusal(faces, withHead("reference", f64), dtype(/reference\.hidden/));
      await expectRefusal(faces, { ...given, kind, upstream: Float32Array.of(1, 2) }, shape(/upstream/));
    });

    it("options out of range", async () => {
      const range = (message: RegExp) => ({ code: "ERR_RANGE", message });
      await expectRefusal(faces, { ...given, kind, temperature: 0 }, range(/temperature/));
      await expectRefusal(faces, { ...given, kind, softcap: -2 }, range(/softcap/));
      for (const memoryLimit of [0, -1, 1.5, Number.NaN]) await expectRefusal(faces, { ...given, kind, memoryLimit }, range(/memoryLimit/));
      await expectRefusal(faces, { ...given, kind, reduction: "median" as never }, range(/reduction/));
    });
  });
}, ["linearDivergence", "divergence"]);
