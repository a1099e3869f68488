/** What an objective carries from step to step: its state as JSON, bco_pair's running mean, and the kernel's parameters. */

import {
  DataError,
  DpoKernels,
  DpoKernelsError,
  kernels,
  type ObjectiveInputs,
  type ObjectiveOptions,
  type ObjectiveState,
  tensor,
} from "dpo-kernels";
import { describe, expect, it } from "vitest";
import { describeBackends } from "./support/backends.js";
import { expectGradient, expectValue, expectValues } from "./support/bounds.js";
import { expectSameResults } from "./support/cases.js";
import { createRandom } from "./support/random.js";
import { floats } from "./support/tensors.js";
import { type BcoState, objectiveTruth } from "./support/truth/objective.js";

const PAIRS = 3;
const WIDTH = 4;

function batch(seed: number): ObjectiveInputs {
  const random = createRandom(seed);
  const embedding = () => floats(random, [PAIRS, WIDTH], "f64");
  return {
    policy: {
      logProbs: floats(random, [2 * PAIRS], "f64", -9, -1),
      tokenCounts: tensor(Float64Array.from(random.integers(2 * PAIRS, 1, 9)), [2 * PAIRS]),
    },
    reference: { logProbs: floats(random, [2 * PAIRS], "f64", -9, -1) },
    embeddings: { prompt: embedding(), chosen: embedding(), rejected: embedding() },
  };
}

/** As through a file. */
function throughJson<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}

const OBJECTIVES: readonly (readonly [string, () => ObjectiveOptions])[] = [
  ["of defaults", () => ({})],
  ["with a kernel", () => ({ kernel: kernels.rbf({ sigma: 0.7 }) })],
  ["with a kernel on embeddings as they are", () => ({ kernel: kernels.rbf({ gamma: 0.3, normalize: false }), gamma: -0.5 })],
  ["of bco_pair", () => ({ loss: "bco_pair", kernel: kernels.rbf(), beta: 0.4 })],
  ["of bco_pair with a first delta", () => ({ loss: "bco_pair", bcoDelta: 0.3 })],
  ["of a mix with bco_pair in it", () => ({ loss: ["sigmoid", "bco_pair"], lossWeights: [0.3, 2] })],
  [
    "with every option set",
    () => ({
      loss: ["sigmoid", "discopop"],
      lossWeights: [1, 0.25],
      transform: "alpha_divergence",
      transformAlpha: 0.4,
      beta: 0.3,
      gamma: 0.6,
      labelSmoothing: 0.05,
      discopopTau: 0.1,
      simpoGamma: 0.4,
      cpoAlpha: 0.9,
      bcoDelta: 0.1,
      ktoKl: 0.2,
      ktoDesirableWeight: 1.1,
      ktoUndesirableWeight: 0.9,
      temperature: 1.2,
      softcap: 30,
      ldAlpha: 0.5,
      memoryLimit: 2 ** 20,
      kernel: kernels.rbf({ sigma: 1.4 }),
    }),
  ],
];

describeBackends(() => {
  describe.each(OBJECTIVES)("an objective %s", (_, options) => {
    it("has a state of plain JSON", () => {
      const objective = new DpoKernels(options());
      objective.lossAndGradSync(batch(1));
      const state = objective.state();
      expect(throughJson(state)).toEqual(state);
      expect(state.version).toBe(1);
    });

    it("comes back from its state, before the first step and after it", () => {
      const objective = new DpoKernels(options());
      for (let step = 0; step < 3; step++) {
        expect(DpoKernels.fromState(throughJson(objective.state())).state()).toEqual(objective.state());
        objective.lossAndGradSync(batch(step));
      }
    });

    it("goes on from its state to the last bit", async () => {
      const objective = new DpoKernels(options());
      for (let step = 0; step < 3; step++) objective.lossAndGradSync(batch(step));
      const resumed = DpoKernels.fromState(throughJson(objective.state()));
      for (let step = 3; step < 6; step++) {
        expectSameResults(resumed.lossSync(batch(step)), objective.lossSync(batch(step)), `loss ${step}`);
        expectSameResults(await resumed.lossAndGrad(batch(step)), objective.lossAndGradSync(batch(step)), `step ${step}`);
      }
      expect(resumed.state()).toEqual(objective.state());
    });
  });

  describe("bco_pair's running mean", () => {
    const options = { loss: "bco_pair", beta: 0.4, kernel: kernels.rbf({ sigma: 0.8 }) } as const;

    it("is that of all rewards so far, this step's included", () => {
      const objective = new DpoKernels(options);
      let bco: BcoState = { delta: 0, count: 0 };
      for (let step = 0; step < 5; step++) {
        const truth = objectiveTruth(batch(step), options, bco);
        const { loss, losses, grads } = objective.lossAndGradSync(batch(step));
        expectValue(loss, truth.loss, { abs: 1e-12, rel: 1e-12 });
        expectValues(losses.data, truth.losses, { abs: 1e-12, rel: 1e-12 });
        expectGradient("logProbs" in grads.policy ? grads.policy.logProbs.data : [], truth.policy.logProbs?.values ?? [], { nmse: 1e-24 });
        bco = truth.bco;
        const state = objective.state().bco;
        expect(state.count).toBe(bco.count);
        expectValue(state.delta, bco.delta, { abs: 1e-13, rel: 1e-13 });
      }
    });

    it("differs from one that forgot", () => {
      const objective = new DpoKernels(options);
      objective.lossAndGradSync(batch(0));
      expect(objective.lossSync(batch(1)).loss).not.toBe(new DpoKernels(options).lossSync(batch(1)).loss);
    });

    it("is not moved by an evaluation, nor by a step that fails or is aborted", async () => {
      const objective = new DpoKernels(options);
      objective.lossAndGradSync(batch(0));
      const state = throughJson(objective.state());
      objective.lossSync(batch(1));
      await objective.loss(batch(1));
      const wrong = batch(2);
      wrong.embeddings?.rejected.data.fill(Number.NaN, 3, 4);
      expect(() => objective.lossAndGradSync(wrong)).toThrow(DpoKernelsError);
      await expect(objective.lossAndGrad(wrong)).rejects.toThrow(DpoKernelsError);
      await expect(objective.lossAndGrad(batch(3), { signal: AbortSignal.abort() })).rejects.toThrow(DpoKernelsError);
      expect(objective.state()).toEqual(state);
    });

    it("is not kept by other losses", () => {
      const objective = new DpoKernels({ loss: "sigmoid", kernel: kernels.rbf() });
      objective.lossAndGradSync(batch(0));
      expect(objective.state().bco).toEqual({ delta: 0, count: 0 });
    });
  });

  it("counts steps, and only steps", () => {
    const objective = new DpoKernels();
    for (let step = 1; step <= 3; step++) {
      objective.lossAndGradSync(batch(step));
      objective.lossSync(batch(step));
      expect(objective.state().steps).toBe(step);
    }
  });

  describe("parameters", () => {
    it("are none without a kernel", () => {
      expect(new DpoKernels().parameters()).toEqual({});
    });

    it("are the kernel's, and alive: writing to them changes the objective", () => {
      const objective = new DpoKernels({ kernel: kernels.rbf({ sigma: 2 }) });
      const { sigma } = objective.parameters();
      expect([...(sigma?.data ?? [])]).toEqual([2]);
      expect(objective.parameters().sigma === sigma).toBe(true);
      sigma?.data.fill(0.6);
      const fresh = new DpoKernels({ kernel: kernels.rbf({ sigma: 0.6 }) });
      expectSameResults(objective.lossAndGradSync(batch(1)), fresh.lossAndGradSync(batch(1)), "step");
      expect(objective.state().kernel).toEqual(fresh.state().kernel);
    });

    it("carry the names and shapes of their gradients", () => {
      const objective = new DpoKernels({ kernel: kernels.rbf() });
      const { kernel = {} } = objective.lossAndGradSync(batch(1)).grads;
      const shapes = (tensors: object) => Object.entries(tensors).map(([name, { shape, dtype }]) => [name, shape, dtype]);
      expect(shapes(kernel)).toEqual(shapes(objective.parameters()));
    });

    it("descend: a step against the gradient lowers the loss", () => {
      const objective = new DpoKernels({ kernel: kernels.rbf({ sigma: 1 }), gamma: 1 });
      const before = objective.lossAndGradSync(batch(7));
      const { sigma } = objective.parameters();
      const slope = before.grads.kernel?.sigma?.data[0] ?? 0;
      expect(slope).not.toBe(0);
      sigma?.data.fill(1 - 0.01 * Math.sign(slope));
      expect(objective.lossSync(batch(7)).loss).toBeLessThan(before.loss);
    });

    it("of an objective made from a state are its own", () => {
      const objective = new DpoKernels({ kernel: kernels.rbf({ sigma: 1 }) });
      const state = objective.state();
      const copy = DpoKernels.fromState(state);
      copy.parameters().sigma?.data.fill(5);
      expect(objective.parameters().sigma?.data[0]).toBe(1);
      expect(state.kernel).toMatchObject({ name: "rbf", parameters: { sigma: { data: [1] } } });
    });
  });

  describe("a state", () => {
    it("is a snapshot: further steps do not change it", () => {
      const objective = new DpoKernels({ loss: "bco_pair", kernel: kernels.rbf() });
      const state = objective.state();
      const before = throughJson(state);
      objective.parameters().sigma?.data.fill(3);
      objective.lossAndGradSync(batch(1));
      expect(state).toEqual(before);
    });

    it("is a copy: changing it does not change the objective", () => {
      const objective = new DpoKernels({ loss: ["sigmoid", "ipo"], lossWeights: [1, 1], kernel: kernels.rbf() });
      const before = throughJson(objective.state());
      const state = objective.state() as unknown as { options: { beta?: number; loss: string[]; lossWeights: number[] }; bco: { delta: number } };
      state.options.beta = 9;
      state.options.loss.pop();
      state.options.lossWeights.fill(7);
      state.bco.delta = 4;
      expect(objective.state()).toEqual(before);
    });

    it("does not follow the options it was made from", () => {
      const options: { loss: ("sigmoid" | "ipo")[]; lossWeights: number[]; beta: number } = {
        loss: ["sigmoid", "ipo"],
        lossWeights: [1, 1],
        beta: 0.2,
      };
      const objective = new DpoKernels(options);
      const { loss } = objective.lossSync(batch(1));
      options.beta = 5;
      options.lossWeights.fill(7);
      expect(objective.lossSync(batch(1)).loss).toBe(loss);
    });
  });

  describe("fromState refuses", () => {
    const good = (): Record<string, unknown> => {
      const objective = new DpoKernels({ loss: "bco_pair", kernel: kernels.rbf(), beta: 0.2 });
      objective.lossAndGradSync(batch(1));
      return throughJson(objective.state()) as unknown as Record<string, unknown>;
    };
    const without = (key: string) => {
      const { [key]: _, ...rest } = good();
      return rest;
    };
    const withOption = (option: object) => ({ ...good(), options: { ...(good().options as object), ...option } });
    const withKernel = (change: object) => ({ ...good(), kernel: { ...(good().kernel as object), ...change } });
    const withSigma = (sigma: unknown) => withKernel({ parameters: { sigma } });

    const bad: [string, () => unknown][] = [
      ["nothing", () => undefined],
      ["null", () => null],
      ["a number", () => 1],
      ["a string", () => JSON.stringify(good())],
      ["an array", () => [good()]],
      ["an empty object", () => ({})],
      ["another version", () => ({ ...good(), version: 2 })],
      ["a version that is no number", () => ({ ...good(), version: "1" })],
      ["no version", () => without("version")],
      ["no options", () => without("options")],
      ["options null", () => ({ ...good(), options: null })],
      ["options in an array", () => ({ ...good(), options: [] })],
      ["options that are a string", () => ({ ...good(), options: "sigmoid" })],
      ["an unknown loss", () => withOption({ loss: "dpo" })],
      ["a loss that is a number", () => withOption({ loss: 3 })],
      ["beta below 0", () => withOption({ beta: -1 })],
      ["beta null, as JSON writes NaN", () => withOption({ beta: null })],
      ["beta in words", () => withOption({ beta: "0.1" })],
      ["weights that do not go with the losses", () => withOption({ lossWeights: [1, 2] })],
      ["no bco", () => without("bco")],
      ["bco null", () => ({ ...good(), bco: null })],
      ["no delta", () => ({ ...good(), bco: { count: 4 } })],
      ["delta null, as JSON writes NaN", () => ({ ...good(), bco: { delta: null, count: 4 } })],
      ["delta NaN", () => ({ ...good(), bco: { delta: Number.NaN, count: 4 } })],
      ["no count", () => ({ ...good(), bco: { delta: 0 } })],
      ["a count below 0", () => ({ ...good(), bco: { delta: 0, count: -2 } })],
      ["a count in words", () => ({ ...good(), bco: { delta: 0, count: "6" } })],
      ["no steps", () => without("steps")],
      ["steps in words", () => ({ ...good(), steps: "1" })],
      ["steps below 0", () => ({ ...good(), steps: -1 })],
      ["half a step", () => ({ ...good(), steps: 1.5 })],
      ["no kernel, and gamma not 0", () => without("kernel")],
      ["a kernel's name alone", () => ({ ...good(), kernel: "rbf" })],
      ["an empty kernel", () => ({ ...good(), kernel: {} })],
      ["an unknown kernel", () => withKernel({ name: "cosine" })],
      ["a kernel whose normalize is no boolean", () => withKernel({ normalize: "yes" })],
      ["a kernel without parameters", () => withKernel({ parameters: undefined })],
      ["a kernel whose parameters are null", () => withKernel({ parameters: null })],
      ["a kernel without sigma", () => withKernel({ parameters: {} })],
      [
        "a kernel with a parameter too many",
        () => withKernel({ parameters: { sigma: { shape: [1], data: [1] }, degree: { shape: [1], data: [2] } } }),
      ],
      ["sigma null", () => withSigma(null)],
      ["sigma a number", () => withSigma(1)],
      ["sigma without data", () => withSigma({ shape: [1] })],
      ["sigma without a shape", () => withSigma({ data: [1] })],
      ["sigma of another shape", () => withSigma({ shape: [2], data: [1, 1] })],
      ["sigma with data that do not fill its shape", () => withSigma({ shape: [1], data: [1, 2] })],
      ["sigma null within, as JSON writes NaN", () => withSigma({ shape: [1], data: [null] })],
      ["sigma in words", () => withSigma({ shape: [1], data: ["wide"] })],
      ["sigma 0", () => withSigma({ shape: [1], data: [0] })],
      ["sigma below 0", () => withSigma({ shape: [1], data: [-1] })],
    ];

    it.each(bad)("%s", (_, state) => {
      let error: unknown;
      try {
        DpoKernels.fromState(state() as ObjectiveState);
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toBeInstanceOf(DataError);
      expect(error).toMatchObject({ code: "ERR_DATA" });
    });

    it("but takes the good one", () => {
      expect(DpoKernels.fromState(good() as unknown as ObjectiveState).state()).toEqual(good());
    });
  });
});
