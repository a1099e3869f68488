/** The objective from each form of input, against the references of its parts put together, and against itself. */

import {
  DpoKernels,
  type Embeddings,
  IGNORED_TARGET,
  kernels,
  type ObjectiveInputs,
  type ObjectiveOptions,
  PREFERENCE_LOSSES,
  type PreferenceLossName,
  type ReferenceInput,
  type Step,
  Tensor,
  tensor,
  threads,
  useThreads,
  zeros,
} from "dpo-kernels";
import { afterEach, describe, expect, it } from "vitest";
import { describeBackends } from "./support/backends.js";
import { expectGradient, expectValue, expectValues } from "./support/bounds.js";
import { expectSameResults, STORAGES, tensorOf, valuesOf, WIDE_STORAGES } from "./support/cases.js";
import { expectFiniteDifferences } from "./support/finite-differences.js";
import {
  batchOf,
  expectGradients,
  expectStep,
  FORMS,
  type Form,
  IN_PASSES,
  inputsOf,
  operationsOf,
  policyGradients,
} from "./support/objective-cases.js";
import { createRandom } from "./support/random.js";
import type { Storage } from "./support/storage.js";
import { filled, floats, integers } from "./support/tensors.js";
import { type ObjectiveTruth, objectiveTruth } from "./support/truth/objective.js";

/** Losses by pair of which only the order is not that of the reference. */
function inOrder(step: Step): Step {
  return { ...step, losses: tensorOf(valuesOf(step.losses).sort(), step.losses.shape, step.losses.dtype as Storage) };
}

function sortedLosses(truth: ObjectiveTruth): ObjectiveTruth {
  return { ...truth, losses: truth.losses.slice().sort() };
}

/** What an option must be for the loss to be allowed, or to be worth testing. */
const LOSS_OPTIONS: Partial<Record<PreferenceLossName, ObjectiveOptions>> = {
  sigmoid: { labelSmoothing: 0.1 },
  exo_pair: { labelSmoothing: 0.1 },
  robust: { labelSmoothing: 0.1 },
  simpo: { simpoGamma: 0.7, beta: 2 },
  cpo: { cpoAlpha: 0.5 },
  kto: { ktoKl: 0.4, ktoDesirableWeight: 1.3, ktoUndesirableWeight: 0.8 },
};

const SORTING: readonly PreferenceLossName[] = ["aot", "aot_unpaired"];
const COUPLED: readonly PreferenceLossName[] = [...SORTING, "bco_pair"];

describeBackends(() => {
  describe.each(FORMS)("from %s", (form) => {
    const storages: readonly Storage[] = form === "logProbs" ? WIDE_STORAGES : STORAGES;

    it.each(storages)("agrees with the reference: %s", async (storage) => {
      const inputs = inputsOf(batchOf({ storage }), form);
      const options = { kernel: kernels.rbf({ sigma: 0.7 }), gamma: 0.4, temperature: 1.3, softcap: 20, beta: 0.3 };
      const truth = objectiveTruth(inputs, options);
      const step = new DpoKernels(options).lossAndGradSync(inputs);
      expectStep(step, truth, storage);
      expectSameResults(await new DpoKernels(options).lossAndGrad(inputs), step, "async");
    });

    it.each(storages)("takes plain options, and neither kernel nor weights: %s", (storage) => {
      const { policy, reference } = inputsOf(batchOf({ storage, ignoreEvery: 0 }), form);
      const inputs = { policy, ...(reference && { reference }) };
      const step = new DpoKernels().lossAndGradSync(inputs);
      expectStep(step, objectiveTruth(inputs), storage);
      expect(step.grads.embeddings).toBeUndefined();
      expect(step.grads.kernel).toBeUndefined();
    });

    it("works on embeddings that are not normalised", () => {
      const inputs = inputsOf(batchOf(), form);
      const options = { kernel: kernels.rbf({ gamma: 0.05, normalize: false }) };
      expectStep(new DpoKernels(options).lossAndGradSync(inputs), objectiveTruth(inputs, options), "f32");
    });

    it.each([0, 0.35, 1])("weights the longer answer's rest: ldAlpha %d", (ldAlpha) => {
      const inputs = inputsOf(batchOf(), form);
      const options = { ldAlpha, kernel: kernels.rbf() };
      const truth = objectiveTruth(inputs, options);
      expectStep(new DpoKernels(options).lossAndGradSync(inputs), truth, "f32");
      expectStep(new DpoKernels({ ...options, memoryLimit: IN_PASSES }).lossAndGradSync(inputs), truth, "f32");
    });

    it.each([1, 2])("gives gradients in the shapes of the inputs (batch of %d)", (pairs) => {
      const inputs = inputsOf(batchOf({ lengths: [4, 3, 2, 5].slice(0, 2 * pairs) }), form);
      const { grads, losses, rewards } = new DpoKernels({ kernel: kernels.rbf() }).lossAndGradSync(inputs);
      const shapes = (given: object) =>
        Object.fromEntries(Object.entries(given).flatMap(([key, value]) => (value instanceof Tensor ? [[key, value.shape]] : [])));
      const { targets: _, offsets: __, tokenCounts: ___, ...differentiable } = inputs.policy as unknown as Record<string, unknown>;
      expect(shapes(grads.policy)).toEqual(shapes(differentiable));
      expect(shapes(grads.embeddings ?? {})).toEqual(shapes(inputs.embeddings));
      expect(losses.shape).toEqual([pairs]);
      expect(rewards.shape).toEqual([2 * pairs]);
    });

    it("writes into the tensors supplied, and returns them", async () => {
      const inputs = inputsOf(batchOf(), form);
      for (const memoryLimit of [2 ** 20, IN_PASSES]) {
        const options = { kernel: kernels.rbf(), memoryLimit };
        const fresh = new DpoKernels(options).lossAndGradSync(inputs);
        const like = (tensors: object) =>
          Object.fromEntries(Object.entries(tensors).map(([key, value]: [string, Tensor]) => [key, filled(value.shape, value.dtype)]));
        for (const mode of ["lossAndGradSync", "lossAndGrad"] as const) {
          const out = { policy: like(fresh.grads.policy), embeddings: like(fresh.grads.embeddings ?? {}) };
          const step = await new DpoKernels(options)[mode](inputs, { out });
          expectSameResults(step, fresh, mode);
          for (const [key, value] of Object.entries(step.grads.policy)) expect(value === out.policy[key], key).toBe(true);
          for (const [key, value] of Object.entries(step.grads.embeddings ?? {})) expect(value === out.embeddings[key], key).toBe(true);
        }
        for (const [side, grad] of Object.entries(fresh.grads.embeddings ?? {}) as [keyof Embeddings, Tensor][]) {
          const alone = filled(grad.shape, grad.dtype);
          const step = new DpoKernels(options).lossAndGradSync(inputs, { out: { embeddings: { [side]: alone } } });
          expectSameResults(step, fresh, `${side} alone`);
          expect(step.grads.embeddings?.[side] === alone).toBe(true);
        }
        for (const [key, grad] of Object.entries(fresh.grads.policy) as [string, Tensor][]) {
          const alone = filled(grad.shape, grad.dtype);
          const step = new DpoKernels(options).lossAndGradSync(inputs, { out: { policy: { [key]: alone } } });
          expectSameResults(step, fresh, `${key} alone`);
          expect(policyGradients(step)[key] === alone).toBe(true);
        }
      }
    });

    it("evaluates to what the step does, and leaves the state as it is", async () => {
      const inputs = inputsOf(batchOf(), form);
      for (const loss of ["sigmoid", "bco_pair", ["ipo", "bco_pair"]] as const) {
        const objective = new DpoKernels({ loss, kernel: kernels.rbf() });
        objective.lossAndGradSync(inputs);
        const state = JSON.stringify(objective.state());
        const evaluation = objective.lossSync(inputs);
        expectSameResults(await objective.loss(inputs), evaluation, "async");
        expect(JSON.stringify(objective.state())).toBe(state);
        const { grads: _, ...step } = objective.lossAndGradSync(inputs);
        expect(Object.keys(evaluation).sort()).toEqual(Object.keys(step).sort());
        expectValue(evaluation.loss, step.loss);
        expectValues(evaluation.losses.data, step.losses.data);
        expectValues(evaluation.rewards.data, step.rewards.data);
        expect(Object.keys(evaluation.metrics).sort()).toEqual(Object.keys(step.metrics).sort());
        for (const [name, value] of Object.entries(step.metrics)) expectValue(evaluation.metrics[name] ?? Number.NaN, value, { label: name });
      }
    });
  });

  describe.each(PREFERENCE_LOSSES)("%s", (loss) => {
    const options: ObjectiveOptions = { loss, beta: 0.2, ...LOSS_OPTIONS[loss], kernel: kernels.rbf({ sigma: 0.8 }), gamma: 0.3 };
    const given = (form: Form, storage: Storage): ObjectiveInputs => {
      const { weights, ...inputs } = inputsOf(batchOf({ storage, lengths: [3, 6, 2, 5, 4, 1, 3, 5] }), form);
      return SORTING.includes(loss) ? inputs : { ...inputs, ...(weights && { weights }) };
    };

    it.each([
      ["hidden", "f64"],
      ["hidden", "f32"],
      ["hidden", "bf16"],
      ["logits", "f64"],
      ["logits", "f32"],
      ["logProbs", "f64"],
      ["logProbs", "f32"],
    ] as const)("agrees with the reference, from %s in %s", (form, storage) => {
      const inputs = given(form, storage);
      const truth = sortedLosses(objectiveTruth(inputs, options));
      expectStep(inOrder(new DpoKernels(options).lossAndGradSync(inputs)), truth, storage);
      if (form !== "hidden") return;
      const inPasses = new DpoKernels({ ...options, memoryLimit: IN_PASSES }).lossAndGradSync(inputs);
      expectStep(inOrder(inPasses), truth, storage, "in passes: ");
    });

    it("goes pair by pair where the pairs are independent and fit, else in passes", () => {
      const inputs = given("hidden", "f32");
      const taken = (memoryLimit?: number) => {
        const objective = new DpoKernels({ ...options, ...(memoryLimit && { memoryLimit }) });
        return operationsOf(() => objective.lossAndGradSync(inputs));
      };
      const passes = ["linearTokenLogProbs", "linearTokenLogProbsVjp"];
      const coupled = COUPLED.includes(loss);
      expect(taken()).toEqual(coupled ? expect.arrayContaining(passes) : expect.arrayContaining(["linearPreference"]));
      expect(taken()).not.toEqual(expect.arrayContaining(coupled ? ["linearPreference"] : passes.slice(1)));
      expect(taken(IN_PASSES)).toEqual(expect.arrayContaining(passes));
    });
  });

  describe("options of the loss", () => {
    it.each(["forward_kl", "js_divergence", "alpha_divergence"] as const)("transforms the rewards by %s", (transform) => {
      const { weights: _, ...inputs } = inputsOf(batchOf({ storage: "f64" }), "hidden");
      for (const loss of ["sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"] as const) {
        const options = { loss, transform, transformAlpha: 0.6, ...LOSS_OPTIONS[loss] } as const;
        const truth = objectiveTruth(inputs, options);
        expectStep(new DpoKernels(options).lossAndGradSync(inputs), truth, "f64", `${loss}: `);
        expectStep(new DpoKernels({ ...options, memoryLimit: IN_PASSES }).lossAndGradSync(inputs), truth, "f64", `${loss}, in passes: `);
      }
    });

    it.each([
      { loss: ["sigmoid", "sft"], lossWeights: [1, 0.3] },
      { loss: ["ipo", "orpo", "hinge"], lossWeights: [0.5, -0.2, 2] },
      { loss: ["kto", "simpo"] },
    ] as const)("adds up a mix of $loss", (mix) => {
      for (const storage of WIDE_STORAGES) {
        const inputs = inputsOf(batchOf({ storage }), "hidden");
        const options = { ...mix, kernel: kernels.rbf() };
        const truth = objectiveTruth(inputs, options);
        expectStep(new DpoKernels(options).lossAndGradSync(inputs), truth, storage);
        expectStep(new DpoKernels({ ...options, memoryLimit: IN_PASSES }).lossAndGradSync(inputs), truth, storage);
      }
    });

    it("needs no reference for losses without one", () => {
      for (const loss of ["sft", "simpo", "cpo", "orpo"] as const) {
        const { policy, embeddings } = inputsOf(batchOf(), "hidden");
        const options = { loss, ...LOSS_OPTIONS[loss], kernel: kernels.rbf() };
        const inputs = { policy, embeddings };
        expectStep(new DpoKernels(options).lossAndGradSync(inputs), objectiveTruth(inputs, options), "f32", `${loss}: `);
      }
    });

    it("takes a kernel of weight 0", () => {
      const inputs = inputsOf(batchOf(), "logits");
      const options = { kernel: kernels.rbf(), gamma: 0 };
      const step = new DpoKernels(options).lossAndGradSync(inputs);
      const plain = new DpoKernels().lossAndGradSync(inputs);
      expect(step.loss).toBe(plain.loss);
      expect(valuesOf(step.grads.embeddings?.prompt as Tensor).every((value) => value === 0)).toBe(true);
      expect(step.grads.kernel?.sigma?.data[0]).toBeCloseTo(0, 15);
      expect(Object.keys(step.metrics)).toContain("kernel/logRatio");
      expect(Object.keys(plain.metrics).some((name) => name.startsWith("kernel/"))).toBe(false);
    });

    it("takes less than 0 for gamma", () => {
      const inputs = inputsOf(batchOf(), "logProbs");
      const options = { kernel: kernels.rbf(), gamma: -0.5 };
      expectStep(new DpoKernels(options).lossAndGradSync(inputs), objectiveTruth(inputs, options), "f32");
    });
  });

  describe("the reference", () => {
    const policyBatch = batchOf({ seed: 5 });
    const other = batchOf({ seed: 6 });
    const { targets, offsets } = policyBatch.logits;
    const { bias } = other.hidden;
    const given: [string, ReferenceInput][] = [
      ["logProbs", other.reference],
      ["logits without targets", { logits: other.logits.logits }],
      ["logits with targets and offsets of their own", { logits: other.logits.logits, targets, offsets: offsets as Tensor }],
      ["hidden states", { hidden: other.hidden.hidden, weight: other.hidden.weight }],
      ["hidden states with a bias", { hidden: other.hidden.hidden, weight: other.hidden.weight, ...(bias && { bias }) }],
      [
        "hidden states with a head of another width",
        { hidden: floats(createRandom(8), [19, 5], "f64"), weight: floats(createRandom(9), [13, 5], "f64") },
      ],
    ];

    it.each(given)("as %s", (_, reference) => {
      for (const policy of [policyBatch.logits, policyBatch.hidden]) {
        const inputs = { policy, reference };
        expectStep(new DpoKernels({ loss: "ipo" }).lossAndGradSync(inputs), objectiveTruth(inputs, { loss: "ipo" }), "f32");
      }
    });

    it("as logits with targets and offsets of their own, for a policy of log-probabilities", () => {
      const inputs = { policy: policyBatch.logProbs, reference: other.logits };
      expectStep(new DpoKernels().lossAndGradSync(inputs), objectiveTruth(inputs), "f32");
    });

    it("as padded logits, for a padded policy", () => {
      const inputs = { policy: policyBatch.paddedHidden, reference: { logits: other.padded.logits } };
      expectStep(new DpoKernels().lossAndGradSync(inputs), objectiveTruth(inputs), "f32");
    });

    it("of a policy that is its own reference has rewards of 0", () => {
      const { logits, hidden } = policyBatch;
      for (const policy of [logits, hidden]) {
        const { rewards, loss, metrics } = new DpoKernels({ memoryLimit: IN_PASSES }).lossAndGradSync({ policy, reference: policy });
        expect([...rewards.data].every((reward) => reward === 0)).toBe(true);
        expectValue(loss, Math.LN2);
        expect(metrics["rewards/accuracies"]).toBe(0);
      }
    });
  });

  describe("gradients against finite differences of the loss", () => {
    const base = batchOf({ storage: "f64", lengths: [2, 3, 1, 2], words: 5, width: 3, seed: 11 });
    const losses = ["sigmoid", "nca_pair", "apo_zero", "orpo"] as const;
    const options = (): ObjectiveOptions => ({
      loss: losses,
      lossWeights: [1, 0.5, 0.7, 0.3],
      beta: 0.4,
      gamma: 0.6,
      kernel: kernels.rbf({ sigma: 0.9 }),
      softcap: 4,
      temperature: 0.8,
      ldAlpha: 0.4,
    });

    /** Replaces the tensor at `path` and gives the loss as a function of its elements. */
    function lossOf(inputs: ObjectiveInputs, path: readonly [string, string]): { f: (x: Float64Array) => number; x: Float64Array } {
      const [group, key] = path;
      const holder = inputs[group as keyof ObjectiveInputs] as unknown as Record<string, Tensor>;
      const original = holder[key] as Tensor;
      const objective = new DpoKernels(options());
      const f = (x: Float64Array) => objective.lossSync({ ...inputs, [group]: { ...holder, [key]: tensor(x.slice(), original.shape) } }).loss;
      return { f, x: Float64Array.from(original.data) };
    }

    it.each(FORMS)("from %s", (form) => {
      const { weights: _, ...inputs } = inputsOf(base, form);
      for (const memoryLimit of [2 ** 20, IN_PASSES]) {
        const step = new DpoKernels({ ...options(), memoryLimit }).lossAndGradSync(inputs);
        for (const [key, gradient] of Object.entries(policyGradients(step))) {
          const { f, x } = lossOf(inputs, ["policy", key]);
          expectFiniteDifferences(f, x, gradient.data, { label: key, step: 1 / 32 });
        }
        if (!form.startsWith("hidden")) break;
      }
    });

    it("to the embeddings and to sigma", () => {
      const inputs = inputsOf(base, "logits");
      const step = new DpoKernels(options()).lossAndGradSync(inputs);
      for (const side of ["prompt", "chosen", "rejected"] as const) {
        const { f, x } = lossOf(inputs, ["embeddings", side]);
        expectFiniteDifferences(f, x, step.grads.embeddings?.[side].data ?? [], { label: side, step: 1 / 32 });
      }
      const ofSigma = ([sigma = Number.NaN]: Float64Array) => new DpoKernels({ ...options(), kernel: kernels.rbf({ sigma }) }).lossSync(inputs).loss;
      expectFiniteDifferences(ofSigma, [0.9], step.grads.kernel?.sigma?.data ?? [], { label: "sigma", step: 1 / 32 });
    });
  });

  describe("batches at the edge", () => {
    const options = { kernel: kernels.rbf() };

    function expectBoth(inputs: ObjectiveInputs, storage: Storage = "f32"): void {
      const truth = objectiveTruth(inputs, options);
      expectStep(new DpoKernels(options).lossAndGradSync(inputs), truth, storage);
      expectStep(new DpoKernels({ ...options, memoryLimit: IN_PASSES }).lossAndGradSync(inputs), truth, storage, "in passes: ");
    }

    it.each(FORMS)("one pair, from %s", (form) => {
      expectBoth(inputsOf(batchOf({ lengths: [3, 2] }), form));
    });

    it.each(["logits", "hidden"] as const)("pairs of very different lengths, from %s", (form) => {
      expectBoth(inputsOf(batchOf({ lengths: [1, 90, 2, 60, 1, 3] }), form));
    });

    it("vocabularies of several blocks and a group of many pairs", () => {
      expectBoth(inputsOf(batchOf({ lengths: Array.from({ length: 24 }, (_, i) => 1 + ((7 * i) % 11)), words: 1601, width: 33 }), "hidden"));
    });

    it("one word, so that nothing can be learned", () => {
      for (const form of ["logits", "hidden"] as const) {
        const inputs = inputsOf(batchOf({ words: 1 }), form);
        for (const memoryLimit of [2 ** 20, IN_PASSES]) {
          const step = new DpoKernels({ ...options, memoryLimit }).lossAndGradSync(inputs);
          for (const gradient of Object.values(policyGradients(step))) expect([...gradient.data].every((value) => value === 0)).toBe(true);
        }
      }
    });

    it.each(["logits", "hidden"] as const)("sequences without a counted token, from %s", (form) => {
      const batch = batchOf({ ignoreEvery: 0 });
      const { targets } = batch[form];
      const [begin, end] = [3, 8]; // of the second sequence
      (targets as Tensor).data.fill(IGNORED_TARGET, begin, end);
      const inputs = inputsOf(batch, form);
      expectBoth(inputs);
      const { grads } = new DpoKernels(options).lossAndGradSync(inputs);
      const main = policyGradients({ grads } as Step)[form] as Tensor;
      expect([...main.rows(begin, end).data].every((value) => value === 0)).toBe(true);
    });

    it.each(["logits", "hidden"] as const)("empty sequences, from %s", (form) => {
      const batch = batchOf({ lengths: [3, 0, 2, 4, 1, 0], ignoreEvery: 0 });
      expectBoth(inputsOf(batch, form));
    });

    it.each(["logits", "padded", "hidden", "paddedHidden"] as const)("a batch without any counted token, from %s", (form) => {
      const batch = batchOf();
      (batch[form].targets as Tensor).data.fill(IGNORED_TARGET);
      const inputs = inputsOf(batch, form);
      for (const memoryLimit of [2 ** 20, IN_PASSES]) {
        const out = Object.fromEntries(Object.entries(batch[form]).map(([key, value]) => [key, filled((value as Tensor).shape, "f32")]));
        const step = new DpoKernels({ ...options, memoryLimit }).lossAndGradSync(inputs, { out: { policy: out } });
        for (const gradient of Object.values(policyGradients(step))) expect([...gradient.data].every((value) => value === 0)).toBe(true);
        expectValue(step.loss, objectiveTruth(inputs, options).loss);
        expect(step.metrics["logits/chosen"]).toBe(0);
      }
    });

    it.each(PREFERENCE_LOSSES)("%s of sequences without a counted token is finite", (loss) => {
      const batch = batchOf({ ignoreEvery: 0 });
      (batch.hidden.targets as Tensor).data.fill(IGNORED_TARGET, 3, 8);
      const { weights: _, ...inputs } = inputsOf(batch, "hidden");
      for (const memoryLimit of [2 ** 20, IN_PASSES]) {
        const step = new DpoKernels({ loss, ...LOSS_OPTIONS[loss], memoryLimit }).lossAndGradSync(inputs);
        expect(Number.isFinite(step.loss)).toBe(true);
        for (const [name, value] of Object.entries(step.metrics)) expect(Number.isFinite(value), name).toBe(true);
        for (const [name, { data }] of Object.entries(policyGradients(step))) expect(data.every(Number.isFinite), name).toBe(true);
      }
    });

    it("logits of -inf, as a mask leaves them", () => {
      const batch = batchOf({ storage: "f32", ignoreEvery: 0 });
      const { logits, targets } = batch.logits;
      for (let i = 0; i < logits.size; i += 3) {
        const target = (targets as Tensor).data[Math.floor(i / 13)];
        if (i % 13 !== target) logits.data[i] = -Infinity;
      }
      const inputs = inputsOf(batch, "logits");
      const truth = objectiveTruth(inputs, options);
      const step = new DpoKernels(options).lossAndGradSync(inputs);
      expectValue(step.loss, truth.loss);
      expectGradients(policyGradients(step), truth.policy, "");
    });

    it("garbage in the rows of ignored tokens", () => {
      for (const form of ["logits", "hidden"] as const) {
        const [batch, clean] = [batchOf(), batchOf()];
        const main = ("logits" in batch[form] ? batch[form].logits : batch[form].hidden) as Tensor;
        const { data } = batch[form].targets as Tensor;
        const width = main.shape[1] ?? 0;
        data.forEach((target, row) => {
          if (target === IGNORED_TARGET) main.data.fill(1e30, row * width, (row + 1) * width);
        });
        const expected = new DpoKernels(options).lossAndGradSync(inputsOf(clean, form));
        expectSameResults(new DpoKernels(options).lossAndGradSync(inputsOf(batch, form)), expected, form);
      }
    });

    it("rewards so far apart that sigmoids saturate", () => {
      for (const loss of PREFERENCE_LOSSES.filter((name) => name !== "discopop" && name !== "orpo")) {
        const policy = { logProbs: Float64Array.of(-900, -2, -3, -800), tokenCounts: Float64Array.of(3, 4, 5, 6) };
        const inputs = { policy, reference: { logProbs: Float64Array.of(-1, -700, -750, -2) } };
        const lossOptions = { loss, beta: 2, ...LOSS_OPTIONS[loss] };
        const truth = sortedLosses(objectiveTruth(inputs, lossOptions));
        expectStep(inOrder(new DpoKernels(lossOptions).lossAndGradSync(inputs)), truth, "f64", `${loss}: `);
      }
    });
  });

  describe("determinism", () => {
    const before = threads();
    afterEach(() => useThreads(before));

    const shape = { lengths: Array.from({ length: 16 }, (_, i) => 20 + ((13 * i) % 40)), words: 2501, width: 64 };

    it.each([
      ["logits", 2 ** 22],
      ["hidden", 2 ** 22],
      ["hidden", IN_PASSES],
    ] as const)("bitwise the same run to run and on 1, 2 and 3 threads, from %s with %d bytes", async (form, memoryLimit) => {
      const inputs = inputsOf(batchOf(shape), form);
      const step = () => new DpoKernels({ loss: ["sigmoid", "ipo"], kernel: kernels.rbf(), memoryLimit });
      useThreads(1);
      const first = step().lossAndGradSync(inputs);
      for (const count of [1, 2, 3]) {
        useThreads(count);
        expectSameResults(step().lossAndGradSync(inputs), first, `${count} threads`);
        expectSameResults(await step().lossAndGrad(inputs), first, `${count} threads, async`);
      }
    });

    it("does not depend on the other pairs", () => {
      const whole = batchOf({ lengths: [3, 5, 2, 4], ignoreEvery: 0 });
      const { hidden, weight, targets } = whole.hidden;
      const twoPairs = new DpoKernels({ beta: 0.5 }).lossAndGradSync({ policy: whole.hidden, reference: whole.reference });
      // The first pair alone: rows 0–2 and 8–9.
      const rows = [0, 1, 2, 8, 9];
      const pick = ({ data, shape: [, width = 1] }: Tensor) =>
        Float32Array.from(rows.flatMap((row) => [...data.subarray(row * width, (row + 1) * width)]));
      const { data } = targets as Tensor;
      const policy = {
        ...whole.hidden,
        hidden: tensor(pick(hidden), [5, weight.shape[1] ?? 0]),
        targets: integers(rows.map((row) => data[row] ?? 0)),
        offsets: integers([0, 3, 5]),
      };
      const { logProbs } = whole.reference;
      const reference = { logProbs: Float32Array.of(logProbs.data[0] ?? 0, logProbs.data[2] ?? 0) };
      const onePair = new DpoKernels({ beta: 0.5 }).lossAndGradSync({ policy, reference });
      expect(onePair.losses.data[0]).toBe(twoPairs.losses.data[0]);
      const halved = policyGradients(onePair).hidden?.data.map((value) => value / 2) ?? [];
      expectGradient(pick(policyGradients(twoPairs).hidden as Tensor), halved as Float32Array);
    });
  });

  describe("metrics", () => {
    it("are TRL's, by name and by value", () => {
      const inputs = inputsOf(batchOf({ storage: "f64" }), "hidden");
      const { metrics, loss } = new DpoKernels({ kernel: kernels.rbf() }).lossAndGradSync(inputs);
      expect(Object.keys(metrics).sort()).toEqual(
        [
          "kernel/accuracy",
          "kernel/logRatio",
          "logits/chosen",
          "logits/rejected",
          "logps/chosen",
          "logps/rejected",
          "loss",
          "rewards/accuracies",
          "rewards/chosen",
          "rewards/margins",
          "rewards/rejected",
        ].sort(),
      );
      expect(metrics.loss).toBe(loss);
    });

    it("have no logits where none were seen", () => {
      const { metrics } = new DpoKernels().lossAndGradSync(inputsOf(batchOf(), "logProbs"));
      expect(Object.keys(metrics).filter((name) => name.startsWith("logits/"))).toEqual([]);
    });

    it("count a tie as no success", () => {
      const policy = { logProbs: Float64Array.of(-3, -3, -3, -3) };
      const embeddings = { prompt: ones(), chosen: ones(), rejected: ones() };
      const { metrics } = new DpoKernels({ kernel: kernels.rbf() }).lossAndGradSync({ policy, reference: policy, embeddings });
      expect(metrics["rewards/accuracies"]).toBe(0);
      expect(metrics["kernel/accuracy"]).toBe(0);
    });
  });

  describe("what is given", () => {
    it("may be plain typed arrays", () => {
      const { logits, reference, logProbs } = batchOf();
      const plain = (value: unknown) => (value as Tensor).data as Float32Array & Int32Array & Float64Array;
      const policy = { logits: logits.logits, targets: plain(logits.targets), offsets: plain(logits.offsets) };
      const expected = new DpoKernels().lossAndGradSync({ policy: logits, reference });
      expectSameResults(new DpoKernels().lossAndGradSync({ policy, reference: { logProbs: plain(reference.logProbs) } }), expected, "logits");
      const given = { logProbs: plain(logProbs.logProbs), tokenCounts: plain(logProbs.tokenCounts) };
      expectSameResults(
        new DpoKernels({ loss: "ipo" }).lossAndGradSync({ policy: given, reference }),
        new DpoKernels({ loss: "ipo" }).lossAndGradSync({ policy: logProbs, reference }),
        "logProbs",
      );
    });

    it("may be the same tensor on several sides", () => {
      const batch = batchOf();
      const { prompt } = batch.embeddings;
      const inputs = { ...inputsOf(batch, "logProbs"), embeddings: { prompt, chosen: prompt, rejected: prompt } };
      const step = new DpoKernels({ kernel: kernels.rbf() }).lossAndGradSync(inputs);
      expect(step.metrics["kernel/logRatio"]).toBe(0);
    });

    it("stays as it was", async () => {
      for (const form of FORMS) {
        const [mine, untouched] = [inputsOf(batchOf(), form), inputsOf(batchOf(), form)];
        const objective = new DpoKernels({ kernel: kernels.rbf() });
        objective.lossAndGradSync(mine);
        await objective.lossAndGrad(mine);
        expectSameResults(mine, untouched, form);
      }
    });

    it("needs a kernel for gamma, and embeddings for a kernel", () => {
      expect(() => new DpoKernels({ gamma: 0.25 })).toThrow(
        expect.objectContaining({ code: "ERR_RANGE", message: expect.stringContaining("gamma") }),
      );
      const { policy, reference } = inputsOf(batchOf(), "logProbs");
      expect(() => new DpoKernels({ kernel: kernels.rbf() }).lossAndGradSync({ policy, ...(reference && { reference }) })).toThrow(
        expect.objectContaining({ code: "ERR_SHAPE", message: expect.stringContaining("embeddings") }),
      );
    });
  });
});

function ones(): Tensor {
  const made = zeros([2, 3], "f64");
  made.data.fill(1);
  return made;
}
