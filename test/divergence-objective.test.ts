/** The objective's term α·D: against the reference of its parts, from one reading of the logits, and at its edges. */

import {
  DataError,
  type Divergence,
  DpoKernels,
  divergences,
  IGNORED_TARGET,
  kernels,
  type ObjectiveInputs,
  type ObjectiveOptions,
  type ReferenceInput,
  type Step,
  Tensor,
  tensor,
  threads,
  useThreads,
} from "dpo-kernels";
import { afterEach, describe, expect, it, vi } from "vitest";
import { addon } from "../lib/native/addon.js";
import { describeBackends, isSimulating } from "./support/backends.js";
import { expectValue, expectValues } from "./support/bounds.js";
import { expectSameResults, STORAGES, valuesOf } from "./support/cases.js";
import { expectDirectionalDifferences, expectFiniteDifferences } from "./support/finite-differences.js";
import { type BatchShape, batchOf, expectGradients, expectStep, inputsOf, operationsOf, policyGradients } from "./support/objective-cases.js";
import { createRandom } from "./support/random.js";
import type { Storage } from "./support/storage.js";
import { filled, floats } from "./support/tensors.js";
import { objectiveTruth } from "./support/truth/objective.js";

const FORMS = ["logits", "padded", "hidden", "paddedHidden"] as const;
type Form = (typeof FORMS)[number];

/** A batch whose policy and reference are given in the same form. */
function inputsFor(form: Form, shape: BatchShape = {}): ObjectiveInputs {
  const other = batchOf({ ...shape, seed: 77 })[form] as ReferenceInput & { targets?: unknown; offsets?: unknown };
  const { targets: _, offsets: __, ...reference } = other;
  return { ...inputsOf(batchOf(shape), form), reference: reference as ReferenceInput };
}

function logitsOf(input: object): Tensor {
  return (input as { logits: Tensor }).logits;
}

const ownKl = (): Divergence =>
  divergences.f({ f: (ratio) => (ratio === 0 ? 0 : ratio * Math.log(ratio)), derivative: (ratio) => Math.log(ratio) + 1 });

/** Kinds that every way through the natives meets: one pass and two, powers, pairs of sums, the whole row. */
const KINDS: readonly (readonly [string, () => Divergence])[] = [
  ["kl", () => divergences.kl()],
  ["js", () => divergences.js({ beta: 0.3 })],
  ["renyi", () => divergences.renyi({ alpha: 0.5 })],
  ["hellinger's root", () => divergences.hellinger({ root: true })],
  ["alpha", () => divergences.alpha({ alpha: -0.5 })],
  ["a generator by name", () => divergences.f({ generator: "chi2" })],
  ["wasserstein of an exponent", () => divergences.wasserstein({ exponent: 2 })],
];

const TERMS: readonly ObjectiveOptions[] = [
  { over: "both" },
  { over: "chosen" },
  { over: "rejected" },
  { contrast: true },
  { contrast: true, alpha: -0.4 },
];

describeBackends(() => {
  describe.each(FORMS)("from %s", (form) => {
    it.each(STORAGES)("agrees with the reference: %s", async (storage) => {
      const inputs = inputsFor(form, { storage });
      for (const [name, kind] of KINDS) {
        const options = { divergence: kind(), alpha: 0.7, beta: 0.3 };
        const step = new DpoKernels(options).lossAndGradSync(inputs);
        expectStep(step, objectiveTruth(inputs, options), storage, `${name}: `);
        expectSameResults(await new DpoKernels(options).lossAndGrad(inputs), step, `${name}, async`);
      }
    });

    it.each(TERMS)("is over whose tokens it is told: %o", (term) => {
      const inputs = inputsFor(form);
      const options = { divergence: divergences.js(), alpha: 0.7, ...term };
      expectStep(new DpoKernels(options).lossAndGradSync(inputs), objectiveTruth(inputs, options), "f32");
    });

    it("goes with a kernel, weights, ldAlpha, temperature, softcap and a mix of losses", () => {
      const inputs = inputsFor(form);
      const options: ObjectiveOptions = {
        loss: ["ipo", "sft"],
        divergence: divergences.renyi({ alpha: 2 }),
        alpha: 0.4,
        contrast: true,
        kernel: kernels.rbf({ sigma: 0.7 }),
        temperature: 1.3,
        softcap: 20,
        ldAlpha: 0.35,
      };
      expectStep(new DpoKernels(options).lossAndGradSync(inputs), objectiveTruth(inputs, options), "f32");
    });

    it("has α = 0.05, over both sides together, unless told otherwise", () => {
      const inputs = inputsFor(form);
      const divergence = divergences.kl();
      const plain = new DpoKernels({ divergence }).lossAndGradSync(inputs);
      expectSameResults(plain, new DpoKernels({ divergence, alpha: 0.05, over: "both", contrast: false }).lossAndGradSync(inputs));
    });

    it("reads the policy's logits once for the gradients of both terms", () => {
      const inputs = inputsFor(form);
      const objective = new DpoKernels({ divergence: divergences.js() });
      const steps = operationsOf(() => objective.lossAndGradSync(inputs));
      const count = (name: string) => steps.filter((step) => step === name).length;
      const linear = form.toLowerCase().endsWith("hidden");
      expect(count(linear ? "linearDivergence" : "divergence")).toBe(1);
      expect(count(linear ? "linearTokenLogProbs" : "tokenLogProbs")).toBe(2); // policy and reference
      for (const unused of ["tokenLogProbsVjp", "linearTokenLogProbsVjp", "linearPreference"]) expect(count(unused), unused).toBe(0);
    });

    it("evaluates to what the step does, and leaves the state as it is", async () => {
      const inputs = inputsFor(form);
      for (const term of TERMS) {
        const objective = new DpoKernels({ loss: "bco_pair", divergence: divergences.chi2(), alpha: 0.7, ...term });
        objective.lossAndGradSync(inputs);
        const state = JSON.stringify(objective.state());
        const evaluation = objective.lossSync(inputs);
        expectSameResults(await objective.loss(inputs), evaluation, "async");
        expect(JSON.stringify(objective.state())).toBe(state);
        const { grads: _, ...step } = objective.lossAndGradSync(inputs);
        expectValue(evaluation.loss, step.loss);
        expect(Object.keys(evaluation.metrics).sort()).toEqual(Object.keys(step.metrics).sort());
        for (const [name, value] of Object.entries(step.metrics)) expectValue(evaluation.metrics[name] ?? Number.NaN, value, { label: name });
      }
    });

    it("writes into the tensors supplied, and returns them", async () => {
      const inputs = inputsFor(form);
      for (const divergence of form.endsWith("idden") ? [divergences.js()] : [divergences.js(), ownKl()]) {
        const objective = new DpoKernels({ divergence });
        const fresh = objective.lossAndGradSync(inputs);
        for (const mode of ["lossAndGradSync", "lossAndGrad"] as const) {
          const out = Object.fromEntries(Object.entries(policyGradients(fresh)).map(([key, { shape, dtype }]) => [key, filled(shape, dtype)]));
          const step = await objective[mode](inputs, { out: { policy: out } });
          expectSameResults(step, fresh, mode);
          for (const [key, value] of Object.entries(policyGradients(step))) expect(value === out[key], key).toBe(true);
        }
      }
    });

    it("is nothing for a policy that is its own reference: value 0, and the gradient of the loss alone", () => {
      const { policy } = inputsFor(form);
      const inputs = { policy, reference: policy as ReferenceInput };
      for (const [name, kind] of KINDS) {
        const step = new DpoKernels({ divergence: kind(), alpha: 3 }).lossAndGradSync(inputs);
        for (const metric of ["divergence", "divergence/chosen", "divergence/rejected"]) expect(step.metrics[metric], name).toBe(0);
        expectGradients(policyGradients(step), objectiveTruth(inputs).policy, `${name}: `);
      }
    });

    it("has gradients that finite differences of the loss agree with", () => {
      const inputs = inputsFor(form, { storage: "f64", lengths: [2, 3, 1, 2], words: 5, width: 3 });
      for (const [name, kind] of KINDS) {
        const objective = new DpoKernels({ divergence: kind(), alpha: 0.6, contrast: true, beta: 0.4, softcap: 4, temperature: 0.8 });
        const step = objective.lossAndGradSync(inputs);
        const policy = inputs.policy as unknown as Record<string, Tensor>;
        for (const [key, gradient] of Object.entries(policyGradients(step))) {
          const { shape, data } = policy[key] as Tensor;
          const f = (x: Float64Array) => objective.lossSync({ ...inputs, policy: { ...inputs.policy, [key]: tensor(x.slice(), shape) } }).loss;
          const bounds = { label: `${name}, ${key}`, step: 1 / 64 };
          if (isSimulating()) expectDirectionalDifferences(f, data, gradient.data, [createRandom(1).uniforms(data.length, -1, 1)], bounds);
          else expectFiniteDifferences(f, Float64Array.from(data), gradient.data, bounds);
        }
      }
    });

    it("counts a side without tokens as 0", () => {
      const inputs = inputsFor(form, { lengths: [2, 3, 2, 3], ignoreEvery: 0 });
      const { targets } = inputs.policy as { targets: Tensor };
      targets.data.fill(IGNORED_TARGET, 0, targets.size / 2);
      for (const term of TERMS) {
        const options = { divergence: divergences.js(), alpha: 0.7, ...term };
        const step = new DpoKernels(options).lossAndGradSync(inputs);
        expectStep(step, objectiveTruth(inputs, options), "f32");
        if (term.over !== "rejected") expect(step.metrics["divergence/chosen"]).toBe(0);
        if (term.over === "chosen") expect(step.metrics.divergence).toBe(0);
      }
    });

    it("is 0, with gradients of 0, for a batch without any counted token", () => {
      const inputs = inputsFor(form);
      (inputs.policy as { targets: Tensor }).targets.data.fill(IGNORED_TARGET);
      for (const term of TERMS) {
        const step = new DpoKernels({ divergence: divergences.kl(), ...term }).lossAndGradSync(inputs);
        expect(step.metrics.divergence).toBe(0);
        expectValue(step.loss, objectiveTruth(inputs).loss);
        for (const gradient of Object.values(policyGradients(step))) expect([...gradient.data].every((value) => value === 0)).toBe(true);
      }
    });
  });

  describe("a generator of the caller's own", () => {
    it.each(STORAGES)("gives what the divergence of that generator does: %s", async (storage) => {
      const inputs = inputsFor("logits", { storage });
      const options = { divergence: ownKl(), alpha: 0.7 };
      const step = new DpoKernels(options).lossAndGradSync(inputs);
      expectStep(step, objectiveTruth(inputs, { ...options, divergence: divergences.kl() }), storage);
      expectSameResults(await new DpoKernels(options).lossAndGrad(inputs), step, "async");
    });

    it("does not go with hidden states", () => {
      expect(() => new DpoKernels({ divergence: ownKl() }).lossAndGradSync(inputsFor("hidden"))).toThrow(
        expect.objectContaining({ code: "ERR_RANGE", message: expect.stringContaining("generator") }),
      );
    });
  });

  describe("a cost of transport", () => {
    const cost = (words: number) => {
      const line = Float64Array.from({ length: words * words }, (_, i) => Math.abs((i % words) - Math.floor(i / words)) / words);
      return tensor(line, [words, words]);
    };

    it.each(FORMS)("agrees with the reference, from %s", (form) => {
      const inputs = inputsFor(form, { storage: "f64" });
      const divergence = divergences.wasserstein({ cost: cost(13), epsilon: 0.2, debias: true, tolerance: 1e-13, maxIterations: 100000 });
      const options = { divergence, alpha: 0.7 };
      const truth = objectiveTruth(inputs, options);
      const step = new DpoKernels(options).lossAndGradSync(inputs);
      expectValue(step.loss, truth.loss, { abs: 1e-9, rel: 1e-9 });
      for (const [key, { values }] of Object.entries(truth.policy)) {
        expectValues(policyGradients(step)[key]?.data ?? [], values, { abs: 1e-9, rel: 1e-7, label: key });
      }
    });

    it("is memory that the step reads: no result may lie in it", () => {
      const inputs = inputsFor("logits", { storage: "f64" });
      const { shape, size } = logitsOf(inputs.policy);
      const shared = new Float64Array(Math.max(size, 13 * 13));
      const divergence = divergences.wasserstein({ cost: tensor(shared.subarray(0, 13 * 13), [13, 13]) });
      const logits = tensor(shared.subarray(0, size), shape);
      expect(() => new DpoKernels({ divergence }).lossAndGradSync(inputs, { out: { policy: { logits } } })).toThrow(
        expect.objectContaining({ code: "ERR_MEMORY" }),
      );
    });
  });

  describe("a divergence that is infinite", () => {
    /** Logits of which the reference holds one word impossible in the row, which the policy does not. */
    function withGap(row: number): ObjectiveInputs {
      const inputs = inputsFor("logits", { ignoreEvery: 0 });
      const { targets } = inputs.policy as { targets: Tensor };
      const reference = logitsOf(inputs.reference as object);
      const [, words = 0] = reference.shape;
      reference.data[row * words + (((targets.data[row] ?? 0) + 1) % words)] = -Infinity;
      return inputs;
    }
    const CHOSEN_ROW = 1;

    it("has no gradient: the step fails and leaves everything as it was", async () => {
      const inputs = withGap(CHOSEN_ROW);
      const logits = filled(logitsOf(inputs.policy).shape, "f32");
      const before = logits.data.slice();
      for (const divergence of [divergences.kl(), ownKl()]) {
        const objective = new DpoKernels({ divergence });
        const state = objective.state.bind(objective);
        const steps = divergence.name === "kl" ? JSON.stringify(state()) : undefined;
        const failure = expect.objectContaining({ code: "ERR_NONFINITE", index: CHOSEN_ROW });
        expect(() => objective.lossAndGradSync(inputs, { out: { policy: { logits } } })).toThrow(failure);
        await expect(objective.lossAndGrad(inputs, { out: { policy: { logits } } })).rejects.toThrow(failure);
        expect(logits.data).toEqual(before);
        if (steps !== undefined) expect(JSON.stringify(state())).toBe(steps);
      }
    });

    it("has a value, which an evaluation gives", () => {
      const { loss, metrics } = new DpoKernels({ divergence: divergences.kl() }).lossSync(withGap(CHOSEN_ROW));
      expect(loss).toBe(Infinity);
      expect(metrics["divergence/chosen"]).toBe(Infinity);
      expect(Number.isFinite(metrics["divergence/rejected"])).toBe(true);
    });

    it("does not matter on the side that the term is not over, nor for an α of 0", () => {
      const inputs = withGap(CHOSEN_ROW);
      const step = new DpoKernels({ divergence: divergences.kl(), over: "rejected" }).lossAndGradSync(inputs);
      expect(Number.isFinite(step.loss)).toBe(true);
      const none = new DpoKernels({ divergence: divergences.kl(), alpha: 0 }).lossAndGradSync(inputs);
      expectStep({ ...none, metrics: {} }, { ...objectiveTruth(inputs), metrics: {} }, "f32");
      expect(none.metrics.divergence).toBe(Infinity);
    });

    it("does not happen to those that are bounded", () => {
      const inputs = withGap(CHOSEN_ROW);
      const options = { divergence: divergences.js(), alpha: 0.7 };
      const [step, truth] = [new DpoKernels(options).lossAndGradSync(inputs), objectiveTruth(inputs, options)];
      expectValue(step.loss, truth.loss);
      expectGradients(policyGradients(step), truth.policy, "");
    });
  });

  describe("the reference", () => {
    const divergence = divergences.js();

    function expectRefusal(inputs: ObjectiveInputs, code: string, words: string): void {
      const failure = expect.objectContaining({ code, message: expect.stringContaining(words) });
      expect(() => new DpoKernels({ divergence }).lossAndGradSync(inputs)).toThrow(failure);
      expect(() => new DpoKernels({ divergence }).lossSync(inputs)).toThrow(failure);
    }

    it("must be given, and in the policy's form", () => {
      const [logits, hidden] = [inputsFor("logits"), inputsFor("hidden")];
      const { logProbs } = batchOf();
      const { reference } = logits;
      expectRefusal({ policy: logits.policy }, "ERR_SHAPE", "reference");
      expectRefusal({ policy: logits.policy, reference: logProbs }, "ERR_SHAPE", "divergence");
      expectRefusal({ policy: logProbs, reference: logProbs }, "ERR_SHAPE", "divergence");
      expectRefusal({ policy: logits.policy, reference: hidden.reference as ReferenceInput }, "ERR_SHAPE", "divergence");
      expectRefusal({ policy: hidden.policy, reference: reference as ReferenceInput }, "ERR_SHAPE", "divergence");
      expect(() => new DpoKernels({ loss: "sft", divergence }).lossSync({ policy: logits.policy })).toThrow(
        expect.objectContaining({ code: "ERR_SHAPE", message: expect.stringContaining("reference") }),
      );
    });

    it("may have targets of its own when they are the policy's", () => {
      const inputs = inputsFor("logits");
      const { targets, offsets } = inputs.policy as { targets: Tensor<"i32">; offsets: Tensor };
      const own = { ...inputs.reference, targets: new Tensor(targets.data.slice(), targets.shape, "i32"), offsets } as ReferenceInput;
      expectSameResults(
        new DpoKernels({ divergence }).lossAndGradSync({ ...inputs, reference: own }),
        new DpoKernels({ divergence }).lossAndGradSync(inputs),
      );
      const differing = new Tensor(targets.data.slice(), targets.shape, "i32");
      differing.data[2] = ((differing.data[2] ?? 0) + 1) % 13;
      expectRefusal({ ...inputs, reference: { ...own, targets: differing } as ReferenceInput }, "ERR_RANGE", "targets");
    });

    it("must hold as many tokens and words, in the policy's type", () => {
      const inputs = inputsFor("logits");
      const [rows = 0, words = 0] = logitsOf(inputs.policy).shape;
      const random = createRandom(5);
      const { offsets } = inputs.policy as { offsets: Tensor };
      const longer = { logits: floats(random, [rows + 1, words], "f32"), targets: new Int32Array(rows + 1), offsets: offsets.data.slice() };
      longer.offsets[longer.offsets.length - 1] = rows + 1;
      expectRefusal({ ...inputs, reference: longer as ReferenceInput }, "ERR_SHAPE", "tokens");
      expectRefusal({ ...inputs, reference: { logits: floats(random, [rows, words + 1], "f32") } }, "ERR_SHAPE", "reference");
      expectRefusal({ ...inputs, reference: { logits: floats(random, [rows, words], "f64") } }, "ERR_DTYPE", "reference");
    });

    it("may have a head of another width", () => {
      const inputs = inputsFor("hidden");
      const reference = { hidden: floats(createRandom(8), [19, 5], "f32"), weight: floats(createRandom(9), [13, 5], "f32") };
      const options = { divergence, alpha: 0.7 };
      expectStep(new DpoKernels(options).lossAndGradSync({ ...inputs, reference }), objectiveTruth({ ...inputs, reference }, options), "f32");
    });
  });

  describe("memory", () => {
    it.each([64, 2 ** 16, 2 ** 22])("does not change what hidden states give: %d bytes", (memoryLimit) => {
      const inputs = inputsFor("hidden", { lengths: [9, 14, 7, 11], words: 601, width: 16 });
      const options = { divergence: divergences.kl(), alpha: 0.7, memoryLimit };
      expectStep(new DpoKernels(options).lossAndGradSync(inputs), objectiveTruth(inputs, options), "f32");
    });

    it("is limited for the divergence as for the rest", () => {
      const memoryLimit = 123_457;
      const objective = new DpoKernels({ divergence: divergences.kl(), memoryLimit });
      const { run } = addon;
      const limited: boolean[] = [];
      const spy = vi.spyOn(addon, "run").mockImplementation((operation, frame, ...others) => {
        if (addon.operations[operation] === "linearDivergence") limited.push(frame.includes(memoryLimit));
        const failure = run(operation, frame, ...others);
        frame.fill(0); // or the next call would find what this one left
        return failure;
      });
      try {
        objective.lossAndGradSync(inputsFor("hidden"));
        objective.lossSync(inputsFor("hidden"));
      } finally {
        spy.mockRestore();
      }
      expect(limited).toEqual([true, true]);
    });
  });

  describe("determinism", () => {
    const before = threads();
    afterEach(() => useThreads(before));

    it.each(["logits", "hidden"] as const)("bitwise the same on 1, 2 and 3 threads, from %s", async (form) => {
      const inputs = inputsFor(form, { lengths: Array.from({ length: 8 }, (_, i) => 20 + ((13 * i) % 40)), words: 1501, width: 32 });
      const objective = new DpoKernels({ divergence: divergences.js(), contrast: true });
      useThreads(1);
      const { grads, loss }: Step = objective.lossAndGradSync(inputs);
      for (const count of [1, 2, 3]) {
        useThreads(count);
        const step = await objective.lossAndGrad(inputs);
        expectSameResults({ grads: step.grads, loss: step.loss }, { grads, loss }, `${count} threads`);
      }
    });
  });

  describe("options", () => {
    const divergence = divergences.kl();
    const bad: [string, object, string][] = [
      ["alpha without a divergence", { alpha: 0.1 }, "alpha"],
      ["over without a divergence", { over: "chosen" }, "over"],
      ["contrast without a divergence", { contrast: true }, "contrast"],
      ["alpha NaN", { divergence, alpha: Number.NaN }, "alpha"],
      ["alpha NaN without a divergence", { alpha: Number.NaN }, "alpha"],
      ["alpha infinite", { divergence, alpha: Infinity }, "alpha"],
      ["alpha in words", { divergence, alpha: "0.1" }, "alpha"],
      ["over somebody else", { divergence, over: "prompt" }, "over"],
      ["contrast in words", { divergence, contrast: "yes" }, "contrast"],
      ["contrast of one side", { divergence, contrast: true, over: "chosen" }, "contrast"],
      ["an unknown divergence", { divergence: { name: "kullback" } }, "divergence"],
      ["a divergence without its parameter", { divergence: { name: "renyi" } }, "alpha"],
      ["a divergence with another's parameter", { divergence: { name: "kl", beta: 0.5 } }, "beta"],
    ];

    it.each(bad)("refuses %s", (_, options, word) => {
      expect(() => new DpoKernels(options as ObjectiveOptions)).toThrow(
        expect.objectContaining({ code: "ERR_RANGE", message: expect.stringContaining(word) }),
      );
    });

    it.each([5, null, "kl"])("refuses %o for a divergence", (divergence) => {
      expect(() => new DpoKernels({ divergence } as unknown as ObjectiveOptions)).toThrow(expect.objectContaining({ code: "ERR_DTYPE" }));
    });

    it("are not followed once the objective is made", () => {
      const mine = { name: "renyi", alpha: 2 } as { name: "renyi"; alpha: number };
      const objective = new DpoKernels({ divergence: mine });
      const inputs = inputsFor("logits");
      const { loss } = objective.lossSync(inputs);
      mine.alpha = 0.5;
      expect(objective.lossSync(inputs).loss).toBe(loss);
    });
  });

  describe("a state", () => {
    const plain: Divergence[] = [
      ...KINDS.map(([, kind]) => kind()),
      divergences.renyi({ alpha: Infinity }),
      divergences.f({ generator: "js", beta: 0.2 }),
      divergences.f({ generator: "alpha", alpha: 1.5 }),
    ];

    it.each(plain)("carries %o through JSON", (divergence) => {
      const inputs = inputsFor("logits");
      const objective = new DpoKernels({ divergence, alpha: -0.2, contrast: true });
      objective.lossAndGradSync(inputs);
      const state = objective.state();
      const throughJson = JSON.parse(JSON.stringify(state));
      expect(throughJson).toEqual(state);
      const resumed = DpoKernels.fromState(throughJson);
      expect(resumed.state()).toEqual(state);
      expectSameResults(resumed.lossAndGradSync(inputs), objective.lossAndGradSync(inputs));
    });

    it("cannot carry functions or tensors, and says so", () => {
      const cost = tensor(new Float64Array(4), [2, 2]);
      const embeddings = tensor(new Float32Array(4), [2, 2]);
      for (const divergence of [ownKl(), divergences.wasserstein({ cost }), divergences.wasserstein({ embeddings })]) {
        expect(() => new DpoKernels({ divergence }).state()).toThrow(DataError);
      }
    });

    const good = () => JSON.parse(JSON.stringify(new DpoKernels({ divergence: divergences.js() }).state()));
    const bad: [string, unknown][] = [
      ["a name alone", "js"],
      ["a number", 3],
      ["an array", ["js"]],
      ["nothing of a divergence", {}],
      ["an unknown name", { name: "kullback" }],
      ["a name of Object's", { name: "toString" }],
      ["no parameter", { name: "js" }],
      ["a parameter outside its range", { name: "js", beta: 1 }],
      ["null, as JSON writes NaN", { name: "js", beta: null }],
      ["a parameter too many", { name: "js", beta: 0.5, alpha: 1 }],
      ["a cost in numbers", { name: "wasserstein", cost: [[0]] }],
      ["functions' names", { name: "f", f: "x", derivative: "y" }],
    ];

    it.each(bad)("with %s for a divergence is refused", (_, divergence) => {
      expect(() => DpoKernels.fromState({ ...good(), divergence })).toThrow(DataError);
    });

    it("whose α has lost its divergence is refused", () => {
      const { divergence: _, ...rest } = good();
      expect(() => DpoKernels.fromState(rest)).toThrow(DataError);
    });
  });

  it("leaves an objective without a divergence as it was", () => {
    const inputs = inputsFor("logits");
    const { metrics } = new DpoKernels().lossAndGradSync(inputs);
    expect(Object.keys(metrics).filter((name) => name.startsWith("divergence"))).toEqual([]);
  });

  it("keeps the inputs as they were", () => {
    for (const form of FORMS) {
      const [mine, untouched] = [inputsFor(form), inputsFor(form)];
      new DpoKernels({ divergence: divergences.js() }).lossAndGradSync(mine);
      expectSameResults(mine, untouched, form);
    }
  });

  it("works on rows near each other in every storage type", () => {
    for (const storage of STORAGES as readonly Storage[]) {
      const inputs = inputsFor("logits", { storage });
      const policy = logitsOf(inputs.policy);
      const reference = new Tensor(policy.data.slice() as never, policy.shape, policy.dtype);
      for (let i = 0; i < reference.size; i += 3) reference.data[i] = nudged(reference, i);
      const options = { divergence: divergences.kl(), alpha: 50 };
      const near = { ...inputs, reference: { logits: reference } };
      const [step, truth] = [new DpoKernels(options).lossAndGradSync(near), objectiveTruth(near, options)];
      expectValue(step.metrics.divergence ?? Number.NaN, truth.metrics.divergence ?? Number.NaN, { abs: 0, rel: 1e-4, label: storage });
      expect(valuesOf(logitsOf(step.grads.policy)).every(Number.isFinite)).toBe(true);
    }
  });
});

/** The next number of the storage type, or for wide types one a little larger. */
function nudged({ data, dtype }: Tensor, i: number): number {
  const value = data[i] ?? 0;
  return dtype === "f32" || dtype === "f64" ? value + 1e-3 : value + 1;
}
