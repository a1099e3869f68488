/** DpoKernels with mixtures of kernels: against its parts put together, finite differences, and itself. */

import {
  AdamW,
  DpoKernels,
  type Embeddings,
  fitKernel,
  fitKernelSync,
  type Kernel,
  kernels,
  type MixtureKernel,
  type ObjectiveOptions,
  pairKernelSync,
  preferenceLossSync,
  type Step,
  type Tensor,
  tensor,
} from "dpo-kernels";
import { describe, expect, it } from "vitest";
import { describeBackends } from "./support/backends.js";
import { expectBitwiseEqual, expectValue, expectValues } from "./support/bounds.js";
import { combinations, expectSameResults, STORAGES, tensorOf, valuesOf } from "./support/cases.js";
import { expectFiniteDifferences } from "./support/finite-differences.js";
import { batchOf, inputsOf } from "./support/objective-cases.js";
import { createRandom } from "./support/random.js";
import type { Storage } from "./support/storage.js";
import { at, dot } from "./support/truth/numbers.js";

const LENGTHS = [3, 5, 2, 4, 1, 4, 2, 2, 3, 1, 4, 2];
const GROUPS = ["", "global", "local"];
const MEMBERS = ["global/mahalanobis", "global/spectral", "local/polynomial", "local/rbf"];

function batch(storage: Storage = "f64", seed = 1) {
  return inputsOf(batchOf({ storage, lengths: LENGTHS, width: 5, seed }), "logProbs");
}

/** A mixture whose weights are not equal. */
function unequal(normalize = true): MixtureKernel {
  const kernel = kernels.hmk({ normalize });
  kernel.logits.data.set([0.3, -0.2]);
  (kernel.members.local as MixtureKernel).logits.data.set([-0.5, 0.4]);
  (kernel.members.global as MixtureKernel).logits.data.set([0.1, 0.7]);
  return kernel;
}

function fittedTo({ embeddings }: { embeddings: Embeddings }, normalize = true): Kernel {
  return fitKernelSync({ kernel: unequal(normalize), embeddings });
}

/** Rows of a batch's three sides, of length 1 where the kernel normalises. */
function unitRows({ prompt, chosen, rejected }: Embeddings, normalize: boolean): Float64Array[] {
  return [prompt, chosen, rejected].flatMap((side) => {
    const [count = 0, width = 0] = side.shape;
    const values = valuesOf(side);
    return Array.from({ length: count }, (_, i) => {
      const row = values.slice(i * width, (i + 1) * width);
      const norm = normalize ? Math.hypot(...row) : 1;
      return row.map((value) => value / norm);
    });
  });
}

function medianSquare(rows: readonly Float64Array[], weights?: Float64Array): number {
  const squares = rows.flatMap((a, i) =>
    rows.slice(0, i).map((b) => a.reduce((sum, value, j) => sum + ((value - at(b, j)) * (weights === undefined ? 1 : at(weights, j))) ** 2, 0)),
  );
  return squares.sort((a, b) => a - b)[squares.length >> 1] ?? Number.NaN;
}

const parametersOf = ({ parameters }: { parameters: Readonly<Record<string, Tensor>> }) =>
  Object.fromEntries(Object.entries(parameters).map(([name, { data }]) => [name, [...data]]));

describeBackends(() => {
  describe("fitKernel", () => {
    it.each(combinations([{ normalize: true }, { normalize: false }], STORAGES))(
      "takes the median distance as bandwidth: normalize $normalize, $storage",
      ({ normalize, storage }) => {
        const { embeddings } = batch(storage);
        const kernel = fitKernelSync({ kernel: kernels.rbf({ sigma: "median", normalize }), embeddings });
        expect(kernel.fitted).toBe(true);
        const truth = Math.sqrt(medianSquare(unitRows(embeddings, normalize)));
        expectValue(kernel.parameters.sigma?.data[0] ?? Number.NaN, truth, { abs: 0, rel: 1e-9 });
      },
    );

    it.each([kernels.matern({ sigma: "median" }), kernels.rationalQuadratic({ sigma: "median", alpha: 0.7 }), kernels.wavelet({ sigma: "median" })])(
      "does so for $name, and keeps its other parameters",
      (kernel) => {
        const { embeddings } = batch();
        const { parameters } = fitKernelSync({ kernel, embeddings });
        expectValue(parameters.sigma?.data[0] ?? Number.NaN, Math.sqrt(medianSquare(unitRows(embeddings, true))), { abs: 0, rel: 1e-9 });
        expect(parameters.alpha?.data).toEqual(kernel.parameters.alpha?.data);
      },
    );

    it("finds tiny distances, and takes 1 where all rows are equal", () => {
      const base = batch().embeddings.prompt;
      const random = createRandom(3);
      const near = (spread: number): Tensor =>
        tensorOf(
          Float64Array.from({ length: base.size }, (_, i) => at(base.data, i % 5) * (1 + spread * random.normal())),
          base.shape,
          "f64",
        );
      for (const spread of [1e-2, 1e-4, 1e-5]) {
        const embeddings = { prompt: near(spread), chosen: near(spread), rejected: near(spread) };
        const { parameters } = fitKernelSync({ kernel: kernels.rbf({ sigma: "median" }), embeddings });
        expectValue(parameters.sigma?.data[0] ?? Number.NaN, Math.sqrt(medianSquare(unitRows(embeddings, true))), { abs: 0, rel: 1e-4 });
      }
      const equal = fitKernelSync({ kernel: kernels.hmk(), embeddings: near(0) });
      expect(equal.parameters["local/rbf/sigma"]?.data).toEqual(Float64Array.of(1));
      const { logK } = pairKernelSync({ u: near(0), v: near(0), kernel: equal });
      for (const value of logK.data) expectValue(value, 0, { abs: 1e-9 });
    });

    it("scales mahalanobis to a median of 1, columns of small variance more", () => {
      const { embeddings } = batch();
      const { parameters } = fitKernelSync({ kernel: kernels.mahalanobis(), embeddings });
      const factor = parameters.factor?.data as Float64Array;
      const rows = unitRows(embeddings, true);
      expectValue(medianSquare(rows, factor), 1, { abs: 1e-9 });
      const variances = Array.from(factor, (_, j) => {
        const mean = rows.reduce((sum, row) => sum + at(row, j), 0) / rows.length;
        return rows.reduce((sum, row) => sum + (at(row, j) - mean) ** 2, 0) / rows.length;
      });
      const average = variances.reduce((sum, value) => sum + value, 0) / variances.length;
      const expected = variances.map((variance) => 1 / Math.sqrt((variance + average) / 2));
      const ratio = at(factor, 0) / (expected[0] ?? 0);
      expectValues(
        factor,
        expected.map((value) => value * ratio),
        { abs: 0, rel: 1e-9 },
      );
    });

    it("gives spectral its landmarks and eigenfunctions: at landmarks, with full rank, it is its base", () => {
      const { embeddings } = batch();
      const base = kernels.rbf({ sigma: 0.8 });
      const spectral = kernels.spectral({ landmarks: 9, rank: 9, base, unitDiagonal: false });
      const kernel = fitKernelSync({ kernel: spectral, embeddings }) as typeof spectral;
      const landmarks = kernel.landmarks as Tensor<"f64">;
      expect(landmarks.shape).toEqual([9, 5]);
      expect(kernel.parameters.lambdas?.size).toBe(9);
      const order = [3, 1, 4, 0, 5, 8, 2, 7, 6];
      const v = tensor(Float64Array.from(order.flatMap((row) => [...landmarks.rows(row, row + 1).data])), [9, 5]);
      const [ofSpectral, ofBase] = [kernel, base].map((one) => pairKernelSync({ u: landmarks, v, kernel: one }).logK.data);
      expectValues(ofSpectral ?? [], ofBase ?? [], { abs: 1e-8 });
    });

    it("needs no more rows than there are, and takes a matrix too", async () => {
      const few = inputsOf(batchOf({ storage: "f64", lengths: [2, 3] }), "logProbs");
      const kernel = fitKernelSync({ kernel: kernels.hmk(), embeddings: few.embeddings });
      expect((kernel as MixtureKernel).parameters["global/spectral/lambdas"]?.size).toBeLessThanOrEqual(3);
      const alone = fitKernelSync({ kernel: kernels.hmk(), embeddings: few.embeddings.prompt });
      expect(alone.fitted).toBe(true);
      const matrix = batch().embeddings.prompt;
      const [sync, async] = [
        fitKernelSync({ kernel: kernels.hmk(), embeddings: matrix }),
        await fitKernel({ kernel: kernels.hmk(), embeddings: matrix }),
      ];
      expect(parametersOf(async)).toEqual(parametersOf(sync));
    });

    it("returns a kernel that needs nothing as it is, and leaves the one given unfitted", () => {
      const { embeddings } = batch();
      const [fixed, open] = [kernels.rbf({ sigma: 2 }), kernels.hmk()];
      expect(fitKernelSync({ kernel: fixed, embeddings })).toBe(fixed);
      fitKernelSync({ kernel: open, embeddings });
      expect(open.fitted).toBe(false);
      expect(() => pairKernelSync({ u: embeddings.prompt, v: embeddings.chosen, kernel: open })).toThrow(
        expect.objectContaining({ code: "ERR_RANGE", message: expect.stringContaining("fitKernel") }),
      );
    });

    it("refuses rows that are not finite, zero, or no matrix", () => {
      const { embeddings } = batch();
      const broken = (value: number) => tensor(Float64Array.from(valuesOf(embeddings.prompt)).fill(value, 0, 5), embeddings.prompt.shape);
      const kernel = kernels.hmk();
      expect(() => fitKernelSync({ kernel, embeddings: broken(Number.NaN) })).toThrow(expect.objectContaining({ code: "ERR_NONFINITE" }));
      expect(() => fitKernelSync({ kernel, embeddings: broken(0) })).toThrow(expect.objectContaining({ code: "ERR_RANGE" }));
      expect(() => fitKernelSync({ kernel, embeddings: tensor(new Float64Array(4), [4]) })).toThrow(expect.objectContaining({ code: "ERR_SHAPE" }));
    });
  });

  describe("an objective with a mixture", () => {
    const OPTIONS = { gamma: 0.6, beta: 0.2, entropyWeight: 0.3 } satisfies ObjectiveOptions;

    it.each(STORAGES.filter((storage) => storage === "f32" || storage === "f64"))("is the loss of its log k, less the entropies: %s", (storage) => {
      const inputs = batch(storage);
      const kernel = fittedTo(inputs);
      const { prompt, chosen, rejected } = inputs.embeddings;
      const [plus, minus] = [chosen, rejected].map((v) => pairKernelSync({ u: prompt, v, kernel }));
      const logKernel = tensorOf([...valuesOf(plus?.logK as Tensor), ...valuesOf(minus?.logK as Tensor)], [LENGTHS.length], storage);
      const { logProbs } = inputs.policy as { logProbs: Tensor };
      const { logProbs: reference } = inputs.reference as { logProbs: Tensor };
      const { entropyWeight, ...preference } = OPTIONS;
      const alone = preferenceLossSync({ ...preference, policy: logProbs, reference, logKernel, weights: inputs.weights as Tensor });
      const entropies = Object.values(plus?.diagnostics?.entropies ?? {});
      expect(entropies).toHaveLength(3);
      const step = new DpoKernels({ ...OPTIONS, kernel }).lossAndGradSync(inputs);
      expectValue(step.loss, alone.loss - entropyWeight * entropies.reduce((sum, h) => sum + h, 0), { abs: 1e-6, rel: 1e-6 });
      expectSameResults(step.grads.policy, { logProbs: alone.grads.policy });
    });

    it.each([true, false])("has gradients that finite differences agree with, normalize %s", (normalize) => {
      const inputs = batch();
      const kernel = fittedTo(inputs, normalize);
      const objective = new DpoKernels({ ...OPTIONS, kernel });
      const { grads } = objective.lossAndGradSync(inputs);
      const parameters = objective.parameters();
      expect(Object.keys(grads.kernel ?? {})).toEqual(Object.keys(parameters));
      expect(Object.keys(parameters).length).toBe(8);
      for (const [name, parameter] of Object.entries(parameters)) {
        const start = Float64Array.from(parameter.data);
        const loss = (values: Float64Array): number => {
          parameter.data.set(values);
          const { loss } = objective.lossSync(inputs);
          parameter.data.set(start);
          return loss;
        };
        expectFiniteDifferences(loss, start, grads.kernel?.[name]?.data ?? [], { label: name, step: Math.min(...start.map(Math.abs)) / 8 });
      }
      for (const side of ["prompt", "chosen", "rejected"] as const) {
        const loss = (values: Float64Array): number =>
          objective.lossSync({ ...inputs, embeddings: { ...inputs.embeddings, [side]: tensor(values.slice(), [6, 5]) } }).loss;
        expectFiniteDifferences(loss, valuesOf(inputs.embeddings[side]), grads.embeddings?.[side].data ?? [], { label: side });
      }
    });

    it("reports weights, entropies, effective numbers and responsibilities", () => {
      const inputs = batch();
      const { metrics } = new DpoKernels({ ...OPTIONS, kernel: fittedTo(inputs) }).lossAndGradSync(inputs);
      const of = (name: string) => metrics[name] ?? Number.NaN;
      const path = (name: string, group: string) => (group === "" ? `hmk/${name}` : `hmk/${name}/${group}`);
      const weights = { "": ["local", "global"], local: ["local/rbf", "local/polynomial"], global: ["global/spectral", "global/mahalanobis"] };
      const logits: Record<string, [number, number]> = { "": [0.3, -0.2], local: [-0.5, 0.4], global: [0.1, 0.7] };
      for (const [group, [a = "", b = ""]] of Object.entries(weights)) {
        const [za, zb] = logits[group] ?? [0, 0];
        const wa = 1 / (1 + Math.exp(zb - za));
        expectValue(of(`hmk/weight/${a}`), wa, { abs: 1e-14 });
        expectValue(of(`hmk/weight/${b}`), 1 - wa, { abs: 1e-14 });
        const entropy = -wa * Math.log(wa) - (1 - wa) * Math.log(1 - wa);
        expectValue(of(path("entropy", group)), entropy, { abs: 1e-14 });
        expectValue(of(path("effective", group)), Math.exp(entropy), { abs: 1e-14 });
      }
      const shares = MEMBERS.map((member) => of(`hmk/responsibility/${member}`));
      for (const share of shares) expect(share).toBeGreaterThan(0);
      expectValue(
        shares.reduce((sum, share) => sum + share, 0),
        1,
        { abs: 1e-12 },
      );
      expect(of("hmk/collapsed")).toBe(0);
      const known = [
        ...MEMBERS.flatMap((member) => [`hmk/weight/${member}`, `hmk/responsibility/${member}`]),
        "hmk/weight/local",
        "hmk/weight/global",
      ];
      const expected = [...known, "hmk/collapsed", ...GROUPS.flatMap((group) => [path("entropy", group), path("effective", group)])];
      expect(
        Object.keys(metrics)
          .filter((name) => name.startsWith("hmk/"))
          .sort(),
      ).toEqual(expected.sort());
    });

    it("fits its kernel to the first batch that it sees, training or not, and to no other", async () => {
      const [first, second] = [batch("f32", 1), batch("f32", 2)];
      const expected = parametersOf(fitKernelSync({ kernel: kernels.hmk(), embeddings: first.embeddings }));
      for (const see of [
        (objective: DpoKernels) => objective.lossSync(first),
        (objective: DpoKernels) => objective.lossAndGrad(first),
        (objective: DpoKernels) => objective.fit(first.embeddings),
        (objective: DpoKernels) => objective.fitSync(first.embeddings),
      ]) {
        const objective = new DpoKernels({ kernel: kernels.hmk() });
        expect(Object.keys(objective.parameters())).not.toContain("global/mahalanobis/factor");
        await see(objective);
        expect(objective.kernel?.fitted).toBe(true);
        expect(parametersOf({ parameters: objective.parameters() })).toEqual(expected);
        objective.lossAndGradSync(second);
        objective.fitSync(second.embeddings);
        expect(parametersOf({ parameters: objective.parameters() })).toEqual(expected);
      }
    });

    it("steps at once from before the fit agree on one kernel", async () => {
      const objective = new DpoKernels({ kernel: kernels.hmk() });
      const [one, other] = [batch("f32", 1), batch("f32", 2)];
      await Promise.all([objective.lossAndGrad(one), objective.lossAndGrad(other)]);
      const again = await objective.lossAndGrad(one);
      expect(Object.keys(again.grads.kernel ?? {})).toEqual(Object.keys(objective.parameters()));
    });

    it("goes on from a state, before and after its fit, with the same bits", () => {
      const inputs = batch("f32");
      const objective = new DpoKernels({ ...OPTIONS, kernel: unequal() });
      const through = (one: DpoKernels) => DpoKernels.fromState(JSON.parse(JSON.stringify(one.state())));
      const early = through(objective);
      const step = objective.lossAndGradSync(inputs);
      expectSameResults(early.lossAndGradSync(inputs), step);
      expectSameResults(through(objective).lossAndGradSync(inputs), objective.lossAndGradSync(inputs));
      expect(through(objective).state()).toEqual(objective.state());
    });

    it("without a mixture has no entropy, and says so", () => {
      expect(() => new DpoKernels({ entropyWeight: 0.1 })).toThrow(expect.objectContaining({ code: "ERR_RANGE" }));
      expect(() => new DpoKernels({ kernel: kernels.rbf(), entropyWeight: 0.1 })).toThrow(expect.objectContaining({ code: "ERR_RANGE" }));
      for (const entropyWeight of [-1, Number.NaN, Infinity]) {
        expect(() => new DpoKernels({ kernel: kernels.hmk(), entropyWeight })).toThrow(expect.objectContaining({ code: "ERR_RANGE" }));
      }
      const { metrics } = new DpoKernels({ kernel: kernels.rbf() }).lossAndGradSync(batch());
      expect(Object.keys(metrics).some((name) => name.startsWith("hmk"))).toBe(false);
    });

    it.each(STORAGES)("has embedding gradients in %s", (storage) => {
      const inputs = inputsOf(batchOf({ storage, lengths: LENGTHS, width: 64 }), "logits");
      const step = new DpoKernels({ kernel: kernels.hmk() }).lossAndGradSync(inputs);
      for (const side of Object.values(step.grads.embeddings ?? {}) as Tensor[]) {
        expect(side.dtype).toBe(storage);
        expect(valuesOf(side).some((value) => value !== 0)).toBe(true);
      }
    });
  });

  describe("training a mixture", () => {
    /** Steps on one batch, in which only the kernel learns. */
    function train(options: ObjectiveOptions, steps: number): { objective: DpoKernels; last: Step; first: Step } {
      const inputs = batch();
      const objective = new DpoKernels({ beta: 1e-3, gamma: 1, kernel: kernels.hmk(), ...options });
      const adamw = new AdamW({ learningRate: 0.3 });
      const first = objective.lossAndGradSync(inputs);
      let last = first;
      for (let step = 0; step < steps; step++) {
        adamw.step(objective.parameters(), last.grads.kernel);
        last = objective.lossAndGradSync(inputs);
      }
      return { objective, first, last };
    }

    it("lowers the loss, with AdamW and nothing else", () => {
      const { first, last } = train({ entropyWeight: 0.01 }, 40);
      expect(last.loss).toBeLessThan(first.loss - 0.05);
    });

    it("collapses without the entropy guard, which is noticed, and with it does not", () => {
      const free = train({ entropyWeight: 0 }, 1000).last.metrics;
      const guarded = train({ entropyWeight: 1 }, 1000).last.metrics;
      expect(free["hmk/collapsed"]).toBeGreaterThan(0);
      expect(guarded["hmk/collapsed"]).toBe(0);
      for (const group of ["hmk/effective", "hmk/effective/local", "hmk/effective/global"]) {
        expect(guarded[group]).toBeGreaterThan(1.5);
      }
    });

    it("counts the steps near collapse over a state, and forgets them when weights recover", () => {
      const inputs = batch();
      const kernel = kernels.hmk();
      kernel.logits.data.set([0, 9]);
      let objective = new DpoKernels({ kernel });
      const collapsed = () => objective.lossAndGradSync(inputs).metrics["hmk/collapsed"];
      for (let step = 0; step < 6; step++) expect(collapsed()).toBe(0);
      objective = DpoKernels.fromState(objective.state());
      for (let step = 0; step < 3; step++) expect(collapsed()).toBe(0);
      expect(collapsed()).toBe(1);
      expect(objective.lossSync(inputs).metrics["hmk/collapsed"]).toBe(1);
      objective.parameters().logits?.data.set([0, 0]);
      expect(collapsed()).toBe(0);
    });
  });

  describe("a mixture of one kernel", () => {
    it("never counts as collapsed", () => {
      const objective = new DpoKernels({ kernel: kernels.mixture({ rbf: kernels.rbf() }) });
      for (let step = 0; step < 12; step++) expect(objective.lossAndGradSync(batch()).metrics["hmk/collapsed"]).toBe(0);
    });
  });

  it("a step of hmk is bitwise the same run to run", () => {
    const inputs = batch("f32");
    const [one, other] = [1, 2].map(() => new DpoKernels({ kernel: kernels.hmk() }).lossAndGradSync(inputs));
    expectSameResults(one as Step, other as Step);
    expectBitwiseEqual(one?.grads.kernel?.logits?.data ?? [], other?.grads.kernel?.logits?.data ?? []);
    expect(dot(one?.grads.kernel?.logits?.data ?? [], [1, 1])).toBeCloseTo(0, 12);
  });
});

describe("kernels refuses", () => {
  const rbf = kernels.rbf();
  const made: [string, () => unknown][] = [
    ["mixture of none", () => kernels.mixture({})],
    ["mixture of no kernel", () => kernels.mixture({ rbf: {} as never })],
    ["mixture: a member's name with a slash", () => kernels.mixture({ "a/b": rbf })],
    ["mixture: a member named logits", () => kernels.mixture({ logits: rbf })],
    ["mixture: normalize that differs", () => kernels.mixture({ rbf, polynomial: kernels.polynomial({ normalize: false }) })],
    ["mixture: a weight of 0", () => kernels.mixture({ a: rbf, b: rbf }, { weights: [1, 0] })],
    ["mixture: too few weights", () => kernels.mixture({ a: rbf, b: rbf }, { weights: [1] })],
    ["hmk: normalize that differs", () => kernels.hmk({ normalize: false, local: { rbf } })],
    ["matern: nu 2", () => kernels.matern({ nu: 2 as never })],
    ["laplacian: both", () => kernels.laplacian({ sigma: 1, gamma: 1 })],
    ["rational_quadratic: alpha 0", () => kernels.rationalQuadratic({ alpha: 0 })],
    ["rbf_mixture: no rates", () => kernels.rbfMixture({ rates: [] })],
    ["rbf_mixture: other counts", () => kernels.rbfMixture({ rates: [1, 2], lambdas: [1] })],
    ["rbf_mixture: a negative rate", () => kernels.rbfMixture({ rates: [1, -2] })],
    ["polynomial: degree 0", () => kernels.polynomial({ degree: 0 })],
    ["polynomial: coef0 -1", () => kernels.polynomial({ coef0: -1 })],
    ["polynomial: floor 1", () => kernels.polynomial({ floor: 1 })],
    ["wavelet: floor 0", () => kernels.wavelet({ floor: 0 })],
    ["mahalanobis: f32", () => kernels.mahalanobis({ factor: tensor(new Float32Array(4), [2, 2]) as never })],
    ["spectral: landmarks 0", () => kernels.spectral({ landmarks: 0 })],
    ["spectral: rank 1.5", () => kernels.spectral({ rank: 1.5 })],
    ["spectral: an unknown method", () => kernels.spectral({ method: "random" as never })],
    ["spectral: base laplacian", () => kernels.spectral({ base: kernels.laplacian() })],
    ["spectral: base that normalises otherwise", () => kernels.spectral({ base: kernels.rbf({ normalize: false }) })],
  ];
  it.each(made)("%s", (_, make) => {
    expect(make).toThrow(expect.objectContaining({ code: expect.stringMatching(/^ERR_(RANGE|DTYPE|SHAPE)$/) }));
  });
});
