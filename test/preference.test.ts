import {
  PREFERENCE_LOSSES,
  type PreferenceArgs,
  type PreferenceLossName,
  type PreferenceResult,
  preferenceLoss,
  preferenceLossSync,
  REWARD_TRANSFORMS,
  type RewardTransformName,
  type Tensor,
  zeros,
} from "dpo-kernels";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PAIR_SHAPES, shapesFor } from "../bench/shapes.js";
import { describeBackends } from "./support/backends.js";
import { expectBitwiseEqual, expectUlps, expectValue, expectValues } from "./support/bounds.js";
import {
  combinations,
  expectRefusal,
  expectSameResults,
  type Numbers,
  permutation,
  resultOf,
  tensorOf,
  valuesOf,
  WIDE_STORAGES,
} from "./support/cases.js";
import { expectFiniteDifferences } from "./support/finite-differences.js";
import { describeCall } from "./support/laws.js";
import { createRandom } from "./support/random.js";
import { type Storage, stored } from "./support/storage.js";
import { loadFixture, named } from "./support/truth/fixtures.js";
import { at, logSigmoid, sigmoid, sum } from "./support/truth/numbers.js";
import { TRANSFORMABLE_LOSSES, type PreferenceOptions as TruthOptions, preferenceLoss as truthOf } from "./support/truth/preference.js";

const faces = { sync: preferenceLossSync, async: preferenceLoss };

const SORTED: ReadonlySet<string> = new Set(["aot", "aot_unpaired"]);
const REFERENCE_FREE: ReadonlySet<string> = new Set(["simpo", "cpo", "orpo"]);
const PER_TOKEN: ReadonlySet<string> = new Set(["sigmoid_norm", "ipo", "sft", "simpo", "cpo", "orpo"]);

interface Batch {
  readonly policy: Tensor;
  readonly reference: Tensor;
  readonly logKernel: Tensor;
  readonly tokenCounts: Float64Array;
  readonly pairs: number;
}

function randomBatch(pairs: number, storage: Storage, seed = 1): Batch {
  const random = createRandom(seed + 100 * pairs);
  const tokenCounts = Float64Array.from(random.integers(2 * pairs, 3, 40));
  const policy = Float64Array.from(tokenCounts, (count) => -count * random.uniform(0.3, 1.5));
  const reference = policy.map((logProb) => logProb + random.normal(0, 3));
  const shape = [2 * pairs];
  return {
    policy: tensorOf(policy, shape, storage),
    reference: tensorOf(reference, shape, storage),
    logKernel: tensorOf(random.uniforms(2 * pairs, -2, 0), shape, storage),
    tokenCounts,
    pairs,
  };
}

/** Options with what each loss needs; every one of the losses reads some of them. */
function optionsOf(loss: TruthOptions["loss"], more: Partial<TruthOptions> = {}): TruthOptions {
  const names = typeof loss === "string" ? [loss] : loss;
  const smoothing = names.includes("exo_pair") || names.includes("robust") ? 0.2 : 0.1;
  return {
    loss,
    beta: 0.3,
    gamma: 0.25,
    labelSmoothing: smoothing,
    discopopTau: 0.5,
    simpoGamma: 1.2,
    cpoAlpha: 0.4,
    bcoDelta: 0.3,
    ktoKl: 1.5,
    ktoDesirableWeight: 1.3,
    ktoUndesirableWeight: 0.8,
    transformAlpha: 0.6,
    ...more,
  };
}

function truthInputs({ policy, reference, logKernel, tokenCounts }: Batch) {
  return { policy: valuesOf(policy), reference: valuesOf(reference), logKernel: valuesOf(logKernel), tokenCounts };
}

/**
 * Arithmetic is in double, results are rounded once. So f32 results have SPEC's few ulps of scalar formulas, infinite where a float is not
 * wide enough; f64 ones nearly all digits, measured by the largest of their kind where differences cancel.
 */
function expectNumbers(actual: Numbers, truth: Numbers, storage: Storage, label: string): void {
  if (storage === "f64") expectValues(actual, truth, { abs: 1e-14 * largest(truth), rel: 1e-12, label });
  else expectUlps(actual, reachable(truth), "f32", { label });
}

/** The same against autograd, whose own f64 formulas cancel in slopes that all but vanish. */
function expectAutograd(actual: Numbers, truth: Numbers, storage: Storage, label: string): void {
  expectValues(actual, reachable(truth, storage), { abs: 1e-14 * largest(truth), rel: storage === "f64" ? 1e-12 : 4 * 2 ** -23, label });
}

function reachable(truth: Numbers, storage: Storage = "f32"): number[] {
  return Array.from(truth, (value) => (Number.isFinite(stored(value, storage)) ? value : stored(value, storage)));
}

interface Expected {
  readonly loss: number;
  readonly perPair: Numbers;
  readonly gradPolicy: Numbers;
  readonly gradLogKernel: Numbers;
  readonly rewards: Numbers;
}

function expectResult(
  { loss, losses, rewards, grads }: PreferenceResult,
  expected: Expected,
  names: readonly string[],
  storage: Storage,
  compare: typeof expectNumbers,
): void {
  const { perPair } = expected;
  compare([loss], [expected.loss], "f64", "loss");
  compare(rewards.data, expected.rewards, storage, "rewards");
  compare(grads.policy.data, expected.gradPolicy, storage, "gradient of policy");
  compare(grads.logKernel?.data ?? [], expected.gradLogKernel, storage, "gradient of logKernel");
  if (!names.some((name) => SORTED.has(name))) compare(losses.data, perPair, storage, "losses");
  else if (names.length === 1) compare(losses.data.toSorted(), Float64Array.from(perPair).sort(), storage, "losses, sorted");
  else expectValue(sum(Float64Array.from(losses.data)), sum(perPair), { label: "sum of losses" }); // of a mix, each comparison goes to one pair
}

describeBackends(() => {
  describe("values and gradients", () => {
    const { cases, batches } = loadFixture("preference");
    it.each(combinations(cases, WIDE_STORAGES))("equal PyTorch's: $name, $storage", async ({ batch, options, expected, storage, ...rest }) => {
      const inputs = named(batches, batch);
      const vector = (values: readonly number[]): Tensor => tensorOf(values, [values.length], storage);
      const args = {
        policy: vector(inputs.policy),
        reference: vector(inputs.reference),
        logKernel: vector(inputs.logKernel),
        tokenCounts: Float64Array.from(inputs.tokenCounts),
        ...(rest.weights === undefined ? {} : { weights: Float64Array.from(rest.weights) }),
        ...options,
      } as PreferenceArgs;
      const result = await resultOf(faces, args);
      expectResult(result, expected, typeof options.loss === "string" ? [options.loss] : options.loss, storage, expectAutograd);
    });

    const shapes = shapesFor("test", PAIR_SHAPES).map(({ pairs }) => pairs);
    it.each(
      combinations(
        PREFERENCE_LOSSES.map((loss) => ({ loss })),
        WIDE_STORAGES,
      ),
    )("equal float64's: $loss, $storage", async ({ loss, storage }) => {
      for (const pairs of shapes) {
        for (const transform of TRANSFORMABLE_LOSSES.has(loss) ? REWARD_TRANSFORMS : (["reverse_kl"] as const)) {
          const batch = randomBatch(pairs, storage);
          const options = optionsOf(loss, { transform });
          const weights = SORTED.has(loss) ? undefined : createRandom(pairs).uniforms(pairs, 0, 2);
          const args = { ...batch, ...options, ...(weights === undefined ? {} : { weights }) } as PreferenceArgs;
          const result = await resultOf(faces, args);
          expectResult(result, truthOf({ ...truthInputs(batch), weights }, options), [loss], storage, expectNumbers);
        }
      }
    });

    it("equal float64's for any mix of losses and any options", () => {
      const anyOptions = fc.record({
        losses: fc.uniqueArray(fc.constantFrom(...PREFERENCE_LOSSES), { minLength: 1, maxLength: 8 }),
        pairs: fc.integer({ min: 1, max: 12 }),
        seed: fc.nat(1000),
        beta: fc.double({ min: 0.01, max: 2, noNaN: true }),
        gamma: fc.double({ min: -1, max: 2, noNaN: true }),
        labelSmoothing: fc.double({ min: 0.01, max: 0.45, noNaN: true }),
        mix: fc.array(fc.double({ min: -1, max: 2, noNaN: true }), { minLength: 8, maxLength: 8 }),
        transform: fc.constantFrom(...REWARD_TRANSFORMS),
        transformAlpha: fc.double({ min: -1, max: 2, noNaN: true }),
        weighted: fc.boolean(),
        storage: fc.constantFrom(...WIDE_STORAGES),
      });
      fc.assert(
        fc.property(anyOptions, ({ losses, pairs, seed, mix, weighted, storage, transform, ...more }) => {
          const batch = randomBatch(pairs, storage, seed);
          const lossWeights = losses.map((_, i) => mix[i] ?? 0);
          const fits = losses.every((loss) => TRANSFORMABLE_LOSSES.has(loss));
          const options = optionsOf(losses, { ...more, lossWeights, ...(fits ? { transform } : {}) });
          const weights = weighted && !losses.some((loss) => SORTED.has(loss)) ? createRandom(seed).uniforms(pairs, 0, 2) : undefined;
          const result = faces.sync({ ...batch, ...options, ...(weights === undefined ? {} : { weights }) } as PreferenceArgs);
          const truth = truthOf({ ...truthInputs(batch), weights }, options);
          // What is added up to make each number: of a mix with weights of both signs it may cancel.
          const magnitudes = losses.map((loss, i) => {
            const one = truthOf({ ...truthInputs(batch), weights }, { ...options, loss, lossWeights: [lossWeights[i] ?? 0] });
            return { policy: largest(one.gradPolicy), logKernel: largest(one.gradLogKernel), loss: largest(one.perPair) };
          });
          const scale = (key: "policy" | "logKernel" | "loss"): number => sum(magnitudes.map((m) => m[key]));
          const epsilon = storage === "f32" ? 2 ** -23 : 2 ** -46;
          const close = (actual: Numbers, expected: Numbers, of: number, label: string): void => {
            expectValues(actual, expected, { abs: epsilon * of + 2 ** -149, rel: epsilon, label });
          };
          close([result.loss], [truth.loss], scale("loss") * 2, "loss");
          close(result.grads.policy.data, truth.gradPolicy, scale("policy"), "gradient of policy");
          close(result.grads.logKernel?.data ?? [], truth.gradLogKernel, scale("logKernel"), "gradient of logKernel");
          close(result.rewards.data, truth.rewards, largest(truth.rewards), "rewards");
          if (!losses.some((loss) => SORTED.has(loss))) close(result.losses.data, truth.perPair, scale("loss"), "losses");
        }),
        { seed: 1, numRuns: 300 },
      );
    });

    it("of aot belong to the pair whose chosen answer is in the comparison", () => {
      const batch = randomBatch(9, "f64");
      const { policy, logKernel } = truthInputs(batch);
      const options = optionsOf("aot");
      const margins = Array.from({ length: 9 }, (_, i) => {
        const [own, kernel] = [policy, logKernel].map((values) => at(values, i) - at(values, i + 9)) as [number, number];
        return options.beta * own + (options.gamma ?? 0) * kernel;
      });
      const { rewards, perPair } = truthOf(truthInputs(batch), optionsOf("aot_unpaired"));
      const aot = faces.sync({ ...batch, ...options } as PreferenceArgs);
      expectByRank(aot.losses.data, truthOf(truthInputs(batch), options).perPair, margins);
      const unpaired = faces.sync({ ...batch, ...optionsOf("aot_unpaired") } as PreferenceArgs);
      expectByRank(unpaired.losses.data, perPair, Array.from(rewards.subarray(0, 9)));
    });

    it("have TRL's defaults", () => {
      const { policy, reference, tokenCounts } = randomBatch(5, "f64");
      const given = { policy, reference, tokenCounts };
      const defaults = { beta: 0.1, gamma: 0, labelSmoothing: 0, transform: "reverse_kl", transformAlpha: 0.5 } as const;
      expectSameResults(faces.sync(given), faces.sync({ ...given, loss: "sigmoid", ...defaults }));
      const losses = { discopop: { discopopTau: 0.05 }, simpo: { simpoGamma: 0.5 }, cpo: { cpoAlpha: 1 }, bco_pair: { bcoDelta: 0 } } as const;
      for (const [loss, own] of Object.entries(losses)) {
        const name = loss as PreferenceLossName;
        expectSameResults(faces.sync({ ...given, loss: name }), faces.sync({ ...given, loss: name, ...own }));
      }
      const kto = { ktoKl: 0, ktoDesirableWeight: 1, ktoUndesirableWeight: 1 };
      expectSameResults(faces.sync({ ...given, loss: "kto" }), faces.sync({ ...given, loss: "kto", ...kto }));
      const alpha = { ...given, transform: "alpha_divergence" } as const;
      expectSameResults(faces.sync(alpha), faces.sync({ ...alpha, transformAlpha: 0.5 }));
    });

    it("are finite, with a finite gradient, at margins of thousands of nats", () => {
      for (const loss of PREFERENCE_LOSSES) {
        const policy = Float64Array.of(-1, -4000, -0.5, -4000, -1, -0.5);
        const reference = Float64Array.of(-4000, -1, -0.5, -1, -4000, -0.5);
        const args = {
          ...optionsOf(loss),
          loss,
          policy,
          reference,
          logKernel: new Float64Array(6),
          tokenCounts: new Float64Array(6).fill(1),
        } as PreferenceArgs;
        const { losses, rewards, grads } = faces.sync({ ...args, ...(loss === "discopop" ? { beta: 0.1 } : {}) });
        for (const result of [losses, rewards, grads.policy, grads.logKernel as Tensor]) {
          for (const value of result.data) expect(Number.isFinite(value), loss).toBe(true);
        }
      }
    });

    it("take policy, reference and logKernel in f32 and f64 mixed; results are in the dtype of policy", () => {
      const [narrow, wide] = [randomBatch(6, "f32"), randomBatch(6, "f64")];
      const whole = faces.sync({ ...narrow, gamma: 0.5 });
      expect(whole.losses.dtype).toBe("f32");
      const mixed = { ...narrow, reference: Float64Array.from(narrow.reference.data), logKernel: Float64Array.from(narrow.logKernel.data) };
      expectSameResults(faces.sync({ ...mixed, gamma: 0.5 }), whole);
      expect(faces.sync({ ...wide, reference: narrow.reference }).grads.policy.dtype).toBe("f64");
    });
  });

  describe("finite differences", () => {
    const everything = PREFERENCE_LOSSES.flatMap((loss) =>
      (TRANSFORMABLE_LOSSES.has(loss) ? REWARD_TRANSFORMS : (["reverse_kl"] as const)).map((transform) => ({ loss, transform })),
    );
    it.each(everything)("agree with the gradients in f64: $loss, $transform", ({ loss, transform }) => {
      const batch = randomBatch(4, "f64", 3);
      // Near enough to the reference that e^-ρ stays tame.
      const random = createRandom(6);
      const policy = valuesOf(batch.reference).map((r) => Math.min(r + random.normal(), -0.5));
      const options = {
        ...optionsOf(loss, { transform }),
        ...(SORTED.has(loss) ? {} : { weights: Float64Array.of(1, 0.5, 2, 0) }),
      } as PreferenceArgs;
      const args = { ...batch, ...options, policy };
      const { grads } = faces.sync(args);
      const step = 0.03; // no sum of steps crosses the kink of hinge or changes an order
      expectFiniteDifferences((x) => faces.sync({ ...args, policy: x.slice() }).loss, policy, grads.policy.data, { step, label: "policy" });
      expectFiniteDifferences((x) => faces.sync({ ...args, logKernel: x.slice() }).loss, batch.logKernel.data, grads.logKernel?.data ?? [], {
        step,
        label: "logKernel",
      });
    });
  });

  describe("metrics", () => {
    const policy = Float64Array.of(-10, -20, -30, -12, -20, -27);
    const reference = Float64Array.of(-12, -19, -33, -11, -19, -25);
    const logKernel = Float64Array.of(-0.5, -1, -0.25, -0.75, -1, -0.125);

    it("are those of hand computation, by TRL's names; a tie is no success", () => {
      const { metrics, rewards } = faces.sync({ policy, reference, beta: 0.5 });
      // ρ⁺ = 2, −1, 3; ρ⁻ = −1, −1, −2: the second pair ties.
      expect([...rewards.data]).toEqual([1, -0.5, 1.5, -0.5, -0.5, -1]);
      expect(Object.keys(metrics)).toEqual([
        "loss",
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "logps/chosen",
        "logps/rejected",
      ]);
      expectClose(metrics, {
        "rewards/chosen": 2 / 3,
        "rewards/rejected": -2 / 3,
        "rewards/margins": 4 / 3,
        "rewards/accuracies": 2 / 3,
        "logps/chosen": -20,
        "logps/rejected": -59 / 3,
        loss: -(logSigmoid(1.5) + logSigmoid(0) + logSigmoid(2.5)) / 3,
      });
    });

    it("say with a kernel what it adds", () => {
      const { metrics } = faces.sync({ policy, reference, logKernel, beta: 0.5, gamma: 2 });
      expectClose(metrics, {
        "rewards/chosen": (0 - 2.5 + 1) / 3,
        "rewards/rejected": (-2 - 2.5 - 1.25) / 3,
        "rewards/margins": (2 + 0 + 2.25) / 3,
        "rewards/accuracies": 2 / 3,
        // log-ratios 0.25, 0 and −0.125: one success, one tie, one failure.
        "kernel/logRatio": 0.125 / 3,
        "kernel/accuracy": 1 / 3,
        loss: -(logSigmoid(2) + logSigmoid(0) + logSigmoid(2.25)) / 3,
      });
    });

    it("tell kernel's own even when its weight is 0", () => {
      expect(faces.sync({ policy, reference, logKernel }).metrics["kernel/accuracy"]).toBeCloseTo(1 / 3, 15);
    });

    it("of a mix are of the rewards of its first loss, and loss is the mix's", () => {
      const tokenCounts = Float64Array.of(1, 2, 3, 4, 5, 6);
      const given = { policy, reference, tokenCounts, beta: 0.5 };
      const [mix, ipo, sft] = [
        faces.sync({ ...given, loss: ["ipo", "sft"], lossWeights: [0.25, 3] }),
        faces.sync({ ...given, loss: "ipo" }),
        faces.sync({ ...given, loss: "sft" }),
      ];
      expectSameResults(mix.rewards, ipo.rewards);
      expect(mix.metrics["rewards/margins"]).toBe(ipo.metrics["rewards/margins"]);
      expect(mix.metrics.loss).toBe(mix.loss);
      expectClose({ loss: mix.loss }, { loss: 0.25 * ipo.loss + 3 * sft.loss });
    });

    it("weigh each pair's loss but not its rewards", () => {
      const weights = Float64Array.of(3, 0, 0.5);
      const [weighted, plain] = [faces.sync({ policy, reference, weights }), faces.sync({ policy, reference })];
      expectClose({ loss: weighted.loss }, { loss: (3 * at(plain.losses.data, 0) + 0.5 * at(plain.losses.data, 2)) / 3 });
      expectBitwiseEqual(weighted.losses.data, plain.losses.data);
      expect(weighted.metrics["rewards/margins"]).toBe(plain.metrics["rewards/margins"]);
      expect([weighted.grads.policy.data[1], weighted.grads.policy.data[4]].map(Math.abs as (x: number | undefined) => number)).toEqual([0, 0]);
    });

    it("agree with the gradient's hand computation", () => {
      const { grads } = faces.sync({ policy, reference, beta: 0.5 });
      const slopes = [1.5, 0, 2.5].map((h) => (-sigmoid(-h) * 0.5) / 3);
      expectValues(grads.policy.data, [...slopes, ...slopes.map((slope) => -slope)], { abs: 0, rel: 1e-14 });
      expect(grads).not.toHaveProperty("logKernel");
    });
  });

  describe("the running mean of bco_pair", () => {
    const first = { policy: Float64Array.of(-1, -2, -5, -4), reference: Float64Array.of(-3, -3, -3, -3) };
    const second = { policy: Float64Array.of(-7, -1), reference: Float64Array.of(-3, -3) };
    const options = { loss: "bco_pair", beta: 0.5 } as const;

    it("takes the batch in first, as TRL's BCOTrainer, and goes on from where it was", () => {
      // Rewards 1, 0.5, −1, −0.5: mean 0. Then −2, 1: over all six, −1/6.
      const one = faces.sync({ ...first, ...options, bcoDelta: 0, bcoCount: 0 });
      expect(one.bco.count).toBe(4);
      expectValue(one.bco.delta, 0, { abs: 1e-16, rel: 0 });
      expectValue(one.loss, -(logSigmoid(1) + logSigmoid(1) + logSigmoid(0.5) + logSigmoid(0.5)) / 2, { abs: 0, rel: 1e-14 });
      const two = faces.sync({ ...second, ...options, bcoDelta: one.bco.delta, bcoCount: one.bco.count });
      expect(two.bco.count).toBe(6);
      expectValue(two.bco.delta, -1 / 6, { abs: 0, rel: 1e-14 });
      expectValue(two.loss, -(logSigmoid(-2 + 1 / 6) + logSigmoid(-1 - 1 / 6)), { abs: 0, rel: 1e-14 });
      // A constant to the gradient.
      const constant = faces.sync({ ...second, ...options, bcoDelta: two.bco.delta });
      expectBitwiseEqual(two.grads.policy.data, constant.grads.policy.data);
    });

    it("equals the mean of all rewards, however they come in batches", () => {
      fc.assert(
        fc.property(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 6 }), fc.nat(1000), (sizes, seed) => {
          let state = { delta: 0, count: 0 };
          const rewards: number[] = [];
          sizes.forEach((pairs, i) => {
            const result = faces.sync({
              ...randomBatch(pairs, "f64", seed + i),
              ...options,
              gamma: 0.5,
              bcoDelta: state.delta,
              bcoCount: state.count,
            });
            rewards.push(...result.rewards.data);
            state = result.bco;
          });
          expect(state.count).toBe(rewards.length);
          expectValue(state.delta, sum(rewards) / rewards.length, { abs: 1e-14, rel: 1e-12 });
        }),
        { seed: 1, numRuns: 40 },
      );
    });

    it("is a constant without bcoCount", () => {
      const { bco, loss } = faces.sync({ ...first, ...options, bcoDelta: 0.25 });
      expect(bco.delta).toBe(0.25);
      expectValue(loss, -(logSigmoid(0.75) + logSigmoid(0.25) + logSigmoid(1.25) + logSigmoid(0.75)) / 2, { abs: 0, rel: 1e-14 });
    });
  });

  describe("laws", () => {
    it.each(PREFERENCE_LOSSES)("the order of the pairs does not matter: %s", (loss) => {
      const pairs = 17;
      const batch = randomBatch(pairs, "f64");
      const order = permutation(pairs, createRandom(3).integer);
      const both = [...order, ...order.map((i) => i + pairs)];
      const inOrder = (values: Numbers): Float64Array => Float64Array.from(both.slice(0, values.length), (i) => at(values, i));
      const options = optionsOf(loss) as PreferenceArgs;
      const whole = faces.sync({ ...batch, ...options });
      const permuted = faces.sync({
        ...options,
        policy: inOrder(batch.policy.data),
        reference: inOrder(batch.reference.data),
        logKernel: inOrder(batch.logKernel.data),
        tokenCounts: inOrder(batch.tokenCounts),
      });
      const exact = { abs: 0, rel: 0 }; // pairs are worked on one by one, or in sorted order; counts are whole numbers
      expectValues(permuted.losses.data, inOrder(whole.losses.data), exact);
      expectValues(permuted.rewards.data, inOrder(whole.rewards.data), exact);
      expectValues(permuted.grads.policy.data, inOrder(whole.grads.policy.data), exact);
      expectValues(permuted.grads.logKernel?.data ?? [], inOrder(whole.grads.logKernel?.data ?? []), exact);
      for (const [name, value] of Object.entries(whole.metrics)) expectValue(permuted.metrics[name] ?? Number.NaN, value, { abs: 1e-14, rel: 1e-13 });
    });

    it("losses of the log-ratio see only the difference of policy and reference", () => {
      for (const loss of PREFERENCE_LOSSES.filter((name) => !REFERENCE_FREE.has(name) && name !== "sft")) {
        const batch = randomBatch(6, "f64");
        const grid = (values: Numbers, shift: number) => Float64Array.from(values, (x) => Math.round(x * 1024) / 1024 + shift);
        const [one, shifted] = [0, -512].map((shift) =>
          faces.sync({
            ...batch,
            ...optionsOf(loss),
            policy: grid(batch.policy.data, shift),
            reference: grid(batch.reference.data, shift),
          } as PreferenceArgs),
        );
        expectBitwiseEqual(shifted?.grads.policy.data ?? [], one?.grads.policy.data ?? [], { label: loss });
        expect(shifted?.loss).toBe(one?.loss);
      }
    });

    it("exchanging chosen and rejected turns sigmoid's gradient round, at label smoothing 1/2 not even that", () => {
      const batch = randomBatch(6, "f64");
      const swap = (values: Numbers) => Float64Array.from({ length: 12 }, (_, i) => at(values, (i + 6) % 12));
      const swapped = { policy: swap(batch.policy.data), reference: swap(batch.reference.data) };
      const given = { policy: batch.policy, reference: batch.reference, labelSmoothing: 0.5 };
      expectValues(faces.sync({ ...swapped, labelSmoothing: 0.5 }).losses.data, faces.sync(given).losses.data, { abs: 0, rel: 1e-15 });
      const [one, other] = [faces.sync({ ...given, labelSmoothing: 0 }), faces.sync(swapped)];
      const margins = (losses: Numbers) => Array.from(losses, (loss) => -Math.log(Math.expm1(loss)));
      expectValues(
        margins(other.losses.data),
        margins(one.losses.data).map((h) => -h),
        { abs: 1e-12, rel: 1e-12 },
      );
    });

    it("a mix is the weighted sum of its losses", () => {
      const batch = randomBatch(7, "f64");
      const names = ["apo_zero", "aot", "simpo", "sigmoid", "nca_pair"] as const;
      const lossWeights = [0.5, 0.25, 2, -1, 0];
      const mix = faces.sync({ ...batch, ...optionsOf([...names], { lossWeights }) } as PreferenceArgs);
      const each = names.map((loss) => faces.sync({ ...batch, ...optionsOf(loss) } as PreferenceArgs));
      const total = (of: (result: PreferenceResult) => Numbers): number[] =>
        Array.from(of(mix), (_, i) => sum(each.map((result, k) => (lossWeights[k] ?? 0) * at(of(result), i))));
      for (const of of [
        (r: PreferenceResult) => [r.loss],
        (r: PreferenceResult) => r.losses.data,
        (r: PreferenceResult) => r.grads.policy.data,
        (r: PreferenceResult) => r.grads.logKernel?.data ?? [],
      ]) {
        expectValues(of(mix), total(of), { abs: 1e-15, rel: 1e-13 });
      }
      const unweighted = faces.sync({ ...batch, ...optionsOf(["sigmoid", "hinge"]) } as PreferenceArgs);
      expectSameResults(unweighted, faces.sync({ ...batch, ...optionsOf(["sigmoid", "hinge"], { lossWeights: [1, 1] }) } as PreferenceArgs));
    });

    it("the kernel's part of a reward is gamma log k, and gamma 0 has none", () => {
      const { policy, reference, logKernel } = randomBatch(4, "f64");
      const [plain, idle, kernel] = [{}, { logKernel }, { logKernel, gamma: 1.5 }].map((more) => faces.sync({ policy, reference, ...more })) as [
        PreferenceResult,
        PreferenceResult,
        PreferenceResult,
      ];
      expectBitwiseEqual(idle.grads.policy.data, plain.grads.policy.data);
      expectValues(idle.grads.logKernel?.data ?? [], new Float64Array(8), { abs: 0 });
      expectValues(
        kernel.rewards.data,
        Array.from(plain.rewards.data, (r, i) => r + 1.5 * at(logKernel.data, i)),
        { abs: 1e-14, rel: 1e-14 },
      );
    });

    it("a completion without tokens counts as one of one token", () => {
      for (const loss of PREFERENCE_LOSSES.filter((name) => PER_TOKEN.has(name))) {
        const { policy, reference, logKernel } = randomBatch(2, "f64");
        const given = { ...optionsOf(loss), policy, reference, logKernel } as PreferenceArgs;
        const [none, one] = [0, 1].map((count) => faces.sync({ ...given, tokenCounts: new Float64Array(4).fill(count) }));
        expectSameResults(none as PreferenceResult, one as PreferenceResult, loss);
      }
    });
  });

  const { pairs: _, ...batch32 } = randomBatch(64, "f32");
  const { pairs: __, ...batch64 } = randomBatch(64, "f64");
  const outOf = ({ losses, rewards, grads: { policy, logKernel } }: PreferenceResult) =>
    logKernel === undefined ? { losses, rewards, policy } : { losses, rewards, policy, logKernel };
  const calls: [string, () => PreferenceArgs][] = [
    ["a mix, f32", () => ({ ...batch32, loss: ["sigmoid", "aot", "bco_pair", "sft"], gamma: 0.5, bcoDelta: 0, bcoCount: 0 })],
    ["weighted, f64", () => ({ ...batch64, loss: "ipo", weights: createRandom(1).uniforms(64) })],
    ["without a kernel", () => ({ policy: batch32.policy, reference: batch32.reference })],
  ];
  for (const [name, args] of calls) describeCall({ name: `preferenceLoss, ${name}`, faces, args, outOf });

  describe("refuses", () => {
    const { pairs: _, ...given } = randomBatch(3, "f64");
    const range = (message: RegExp) => ({ code: "ERR_RANGE", message });
    const shape = (message: RegExp) => ({ code: "ERR_SHAPE", message });

    const others = REWARD_TRANSFORMS.filter((transform) => transform !== "reverse_kl");
    it.each(PREFERENCE_LOSSES)("transforms with a loss for which log Z does not cancel, and only with those: %s", async (loss) => {
      for (const transform of others) {
        const args = { ...given, ...optionsOf(loss), transform } as PreferenceArgs;
        if (TRANSFORMABLE_LOSSES.has(loss)) expect(Number.isFinite(faces.sync(args).loss)).toBe(true);
        else await expectRefusal(faces, args, range(/transform.*reverse_kl.*log-partition.*sigmoid/));
      }
    });

    it("a transform in a mix with one such loss", async () => {
      await expectRefusal(faces, { ...given, loss: ["sigmoid", "apo_zero"], transform: "js_divergence" }, range(/transform/));
    });

    it("label smoothing out of a loss's range", async () => {
      for (const labelSmoothing of [0, 0.5])
        await expectRefusal(faces, { ...given, loss: "exo_pair", labelSmoothing }, range(/labelSmoothing.*exo_pair/));
      await expectRefusal(faces, { ...given, loss: "exo_pair" }, range(/labelSmoothing.*exo_pair/));
      await expectRefusal(faces, { ...given, loss: "robust", labelSmoothing: 0.5 }, range(/labelSmoothing.*robust/));
      expect(Number.isFinite(faces.sync({ ...given, loss: "robust", labelSmoothing: 0 }).loss)).toBe(true);
      for (const loss of PREFERENCE_LOSSES) {
        for (const labelSmoothing of [-0.01, 0.51, 1, Number.NaN, Infinity]) {
          await expectRefusal(faces, { ...given, loss, labelSmoothing }, range(/labelSmoothing/));
        }
      }
    });

    it.each(PREFERENCE_LOSSES)("a missing input that the loss needs, and only then: %s", async (loss) => {
      const options = { ...optionsOf(loss), gamma: 0 } as PreferenceArgs;
      const { reference: _, ...withoutReference } = { ...options, ...given };
      const { tokenCounts: __, ...withoutCounts } = { ...options, ...given };
      if (REFERENCE_FREE.has(loss) || loss === "sft") expect(Number.isFinite(faces.sync(withoutReference).loss)).toBe(true);
      else await expectRefusal(faces, withoutReference, shape(/reference.*missing/));
      if (PER_TOKEN.has(loss)) await expectRefusal(faces, withoutCounts, shape(/tokenCounts.*missing/));
      else expect(Number.isFinite(faces.sync(withoutCounts).loss)).toBe(true);
      const { logKernel: ___, ...withoutKernel } = { ...options, ...given };
      expect(Number.isFinite(faces.sync(withoutKernel).loss)).toBe(true);
      await expectRefusal(faces, { ...withoutKernel, gamma: 0.1 }, shape(/logKernel.*missing.*gamma/));
    });

    it("a mix that lacks what one of its losses needs", async () => {
      const { tokenCounts: _, ...withoutCounts } = given;
      await expectRefusal(faces, { ...withoutCounts, loss: ["sigmoid", "sft"] }, shape(/tokenCounts.*missing/));
      const { reference: __, ...withoutReference } = given;
      await expectRefusal(faces, { ...withoutReference, loss: ["cpo", "sigmoid"] }, shape(/reference.*missing/));
    });

    it("pair weights with losses that compare different pairs", async () => {
      const weights = Float64Array.of(1, 1, 1);
      for (const loss of ["aot", "aot_unpaired", ["sigmoid", "aot"]] as const)
        await expectRefusal(faces, { ...given, loss, weights }, range(/weights.*aot/));
    });

    it("unknown names, and says which are known", async () => {
      const loss = "dpo" as PreferenceLossName;
      await expectRefusal(faces, { ...given, loss }, range(/loss.*"dpo".*sigmoid.*kto/));
      await expectRefusal(faces, { ...given, loss: ["sigmoid", loss] }, range(/"dpo"/));
      await expectRefusal(faces, { ...given, transform: "kl" as RewardTransformName }, range(/transform.*"kl".*reverse_kl/));
      await expectRefusal(faces, { ...given, loss: "toString" as PreferenceLossName }, range(/toString/));
    });

    it("a mix of none or of too many", async () => {
      await expectRefusal(faces, { ...given, loss: [] }, range(/loss/));
      for (const count of [9, 40]) await expectRefusal(faces, { ...given, loss: new Array(count).fill("sigmoid") }, range(/1 to 8 losses/));
      for (const lossWeights of [[1], [1, 2, 3]])
        await expectRefusal(faces, { ...given, loss: ["sigmoid", "sft"], lossWeights }, shape(/lossWeights.*2.*got [13]/));
      await expectRefusal(faces, { ...given, lossWeights: [Number.NaN] }, range(/weight/));
    });

    it("options that are out of range", async () => {
      for (const beta of [0, -0.1, Number.NaN, Infinity]) await expectRefusal(faces, { ...given, beta }, range(/beta/));
      for (const discopopTau of [0, -1]) await expectRefusal(faces, { ...given, discopopTau }, range(/discopopTau/));
      for (const name of ["gamma", "transformAlpha", "simpoGamma", "cpoAlpha", "bcoDelta", "bcoCount", "ktoKl"]) {
        for (const bad of [Number.NaN, Infinity]) await expectRefusal(faces, { ...given, [name]: bad }, range(new RegExp(`^${name}`)));
      }
      for (const name of ["ktoDesirableWeight", "ktoUndesirableWeight"])
        await expectRefusal(faces, { ...given, [name]: -1 }, range(new RegExp(`^${name}`)));
    });

    it("wrong shapes and dtypes, by the argument's name", async () => {
      await expectRefusal(faces, { policy: Float64Array.of(1, 2, 3), reference: Float64Array.of(1, 2, 3) }, shape(/policy.*2B/));
      await expectRefusal(faces, { ...given, policy: new Float64Array(0) }, shape(/policy/));
      await expectRefusal(faces, { ...given, policy: zeros([3, 2], "f64") }, shape(/policy/));
      for (const name of ["reference", "logKernel", "tokenCounts", "weights"]) {
        await expectRefusal(faces, { ...given, [name]: new Float64Array(5) }, shape(new RegExp(`^${name}`)));
      }
      for (const name of ["policy", "reference", "logKernel"]) {
        await expectRefusal(faces, { ...given, [name]: zeros([6], "bf16") }, { code: "ERR_DTYPE", message: new RegExp(`^${name}`) });
      }
      await expectRefusal(faces, { ...given, tokenCounts: Int32Array.of(1, 1, 1, 1, 1, 1) }, { code: "ERR_DTYPE", message: /^tokenCounts/ });
      await expectRefusal(faces, { ...given, weights: Float32Array.of(1, 1, 1) }, { code: "ERR_DTYPE", message: /^weights/ });
    });

    it("numbers that are not finite, and says where", async () => {
      for (const name of ["policy", "reference", "logKernel", "tokenCounts"]) {
        for (const bad of [Number.NaN, Infinity, -Infinity]) {
          const values = new Float64Array(6).fill(1).with(4, bad);
          await expectRefusal(faces, { ...given, [name]: values }, { code: "ERR_NONFINITE", index: 4, message: new RegExp(`^${name}`) });
        }
      }
      await expectRefusal(faces, { ...given, weights: Float64Array.of(1, Number.NaN, 1) }, { code: "ERR_NONFINITE", index: 1, message: /^weights/ });
    });
  });
}, ["preference"]);

/** The values by rank, given to the pairs in the order that sorts their keys. */
function expectByRank(actual: Numbers, byRank: Numbers, keys: readonly number[]): void {
  const order = [...keys.keys()].sort((i, j) => at(keys, i) - at(keys, j));
  expectValues(
    order.map((i) => at(actual, i)),
    byRank,
    { abs: 1e-14, rel: 1e-12 },
  );
}

function expectClose(actual: Readonly<Record<string, number>>, expected: Readonly<Record<string, number>>): void {
  for (const [name, value] of Object.entries(expected)) expectValue(actual[name] ?? Number.NaN, value, { abs: 1e-15, rel: 1e-14, label: name });
}

function largest(values: Numbers): number {
  return Array.from(values).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}
