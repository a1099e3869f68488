import { AdamW, type KernelParameters, tensor } from "dpo-kernels";
import { describe, expect, it } from "vitest";
import { expectValues } from "./support/bounds.js";
import { loadFixture } from "./support/truth/fixtures.js";

const vectorsOf = (values: Readonly<Record<string, readonly number[]>>): KernelParameters =>
  Object.fromEntries(Object.entries(values).map(([name, list]) => [name, tensor(Float64Array.from(list), [list.length])]));

const atStep = (values: Readonly<Record<string, readonly (readonly number[])[]>>, step: number): KernelParameters =>
  vectorsOf(Object.fromEntries(Object.entries(values).map(([name, steps]) => [name, steps[step] ?? []])));

const plainOf = (parameters: KernelParameters) => Object.fromEntries(Object.entries(parameters).map(([name, { data }]) => [name, [...data]]));

describe("AdamW", () => {
  const { cases } = loadFixture("adamw");

  it.each(cases)("moves as PyTorch's: $options", ({ options, start, grads, expected }) => {
    const adamw = new AdamW(options);
    const parameters = vectorsOf(start);
    const nested = { "local/logits": parameters.logits, "local/rbf/sigma": parameters.sigma } as KernelParameters;
    const steps = expected.sigma?.length ?? 0;
    expect(steps).toBeGreaterThan(3);
    for (let step = 0; step < steps; step++) {
      const { logits, sigma } = atStep(grads, step);
      adamw.step(nested, { "local/logits": logits, "local/rbf/sigma": sigma } as KernelParameters);
      for (const name of ["logits", "sigma"])
        expectValues(parameters[name]?.data ?? [], expected[name]?.[step] ?? [], { abs: 0, rel: 1e-13, label: name });
    }
  });

  it("keeps positive parameters positive, whatever the gradient", () => {
    const parameters = vectorsOf({ sigma: [1e-3], degree: [2], coef0: [0.5], lambdas: [1, 1e-9], rates: [4], alpha: [1] });
    const adamw = new AdamW({ learningRate: 0.5 });
    const before = plainOf(parameters);
    for (let step = 0; step < 50; step++) {
      adamw.step(parameters, vectorsOf(Object.fromEntries(Object.entries(before).map(([name, list]) => [name, list.map(() => 1e3)]))));
    }
    for (const [name, { data }] of Object.entries(parameters)) {
      data.forEach((value, i) => {
        expect(value).toBeGreaterThan(0);
        expect(value).toBeLessThan(before[name]?.[i] ?? 0);
      });
    }
  });

  it("goes on from a state with the same bits", () => {
    const [{ start, grads, options } = { start: {}, grads: {}, options: {} }] = cases;
    const [one, other] = [vectorsOf(start), vectorsOf(start)];
    const adamw = new AdamW(options);
    adamw.step(one, atStep(grads, 0));
    adamw.step(one, atStep(grads, 1));
    let resumed = new AdamW(options);
    resumed.step(other, atStep(grads, 0));
    resumed = AdamW.fromState(JSON.parse(JSON.stringify(resumed.state())));
    resumed.step(other, atStep(grads, 1));
    expect(plainOf(other)).toEqual(plainOf(one));
    expect(resumed.state()).toEqual(adamw.state());
  });

  it("takes in parameters that come later", () => {
    const adamw = new AdamW();
    const early = vectorsOf({ logits: [0, 0] });
    adamw.step(early, vectorsOf({ logits: [1, -1] }));
    const parameters = { ...early, ...vectorsOf({ factor: [1, 2] }) };
    adamw.step(parameters, vectorsOf({ logits: [1, -1], factor: [1, -1] }));
    // The first step of AdamW has the learning rate's length.
    expectValues(parameters.factor?.data ?? [], [0.99, 2.01], { abs: 1e-9 });
    expect(adamw.state().moments.factor?.steps).toBe(1);
  });

  it.each([
    [{ learningRate: -1 }, "learningRate"],
    [{ learningRate: Number.NaN }, "learningRate"],
    [{ beta1: 1 }, "beta1"],
    [{ beta2: -0.1 }, "beta2"],
    [{ epsilon: Infinity }, "epsilon"],
    [{ weightDecay: "0" as never }, "weightDecay"],
  ])("refuses %j", (options, name) => {
    expect(() => new AdamW(options)).toThrow(expect.objectContaining({ code: "ERR_RANGE", message: expect.stringContaining(name) }));
  });

  it("refuses gradients that are missing, of another shape, or not finite, and moves nothing", () => {
    const parameters = vectorsOf({ logits: [1, 2], sigma: [3] });
    const before = plainOf(parameters);
    const adamw = new AdamW();
    expect(() => adamw.step(parameters, vectorsOf({ logits: [1, 1] }))).toThrow(expect.objectContaining({ code: "ERR_SHAPE" }));
    expect(() => adamw.step(parameters)).toThrow(expect.objectContaining({ code: "ERR_SHAPE" }));
    expect(() => adamw.step(parameters, vectorsOf({ logits: [1, 1], sigma: [1, 1] }))).toThrow(expect.objectContaining({ code: "ERR_SHAPE" }));
    const notFinite = vectorsOf({ logits: [1, 1], sigma: [Number.NaN] });
    expect(() => adamw.step(parameters, notFinite)).toThrow(expect.objectContaining({ code: "ERR_RANGE", index: 0 }));
    expect(plainOf(parameters)).toEqual(before);
    expect(adamw.state().moments).toEqual({});
  });

  it.each([{}, { options: {} }, { options: {}, moments: { a: { steps: -1, first: [], second: [] } } }, { options: { beta1: 2 }, moments: {} }])(
    "refuses a state that is none: %j",
    (state) => {
      expect(() => AdamW.fromState(state as never)).toThrow(expect.objectContaining({ code: "ERR_DATA" }));
    },
  );
});
