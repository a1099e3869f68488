/** The bounds themselves: each passes what it should, and fails on what is off, on NaN, on nothing to compare. */

import { describe, expect, it } from "vitest";
import {
  expectBitwiseEqual,
  expectGradient,
  expectNoWorseThanPlain,
  expectSameAcrossBackends,
  expectStored16,
  expectUlps,
  expectValue,
  expectValues,
  normalisedSquaredError,
} from "./support/bounds.js";
import { expectFiniteDifferences } from "./support/finite-differences.js";
import { decode16, encode16, stored, toBits16, ulp } from "./support/storage.js";

type Compare = (actual: readonly number[], truth: readonly number[]) => unknown;

const COMPARISONS: readonly (readonly [string, Compare])[] = [
  ["expectValues", (a, t) => expectValues(a, t)],
  ["expectGradient", (a, t) => expectGradient(a, t)],
  ["expectGradient with termSums", (a, t) => expectGradient(a, t, { termSums: t.map(() => 1) })],
  ["expectStored16", (a, t) => expectStored16(encode16(a, "bf16"), t, "bf16")],
  ["expectUlps", (a, t) => expectUlps(a, t)],
  ["expectSameAcrossBackends", (a, t) => expectSameAcrossBackends(a, t)],
  ["expectBitwiseEqual", (a, t) => expectBitwiseEqual(a, t)],
  ["expectNoWorseThanPlain", (a, t) => expectNoWorseThanPlain(a, t, t)],
];

describe.each(COMPARISONS)("%s", (name, compare) => {
  it("passes the truth itself", () => {
    compare([1, -2, 0, 0.5], [1, -2, 0, 0.5]);
  });

  it("fails when there is nothing to compare", () => {
    expect(() => compare([], [])).toThrow(/nothing to compare/);
  });

  it("fails on different lengths", () => {
    expect(() => compare([1, 2], [1])).toThrow(/has 2 values.*has 1/);
    expect(() => compare([1], [1, 2])).toThrow(/has 1 values.*has 2/);
  });

  it("fails on values that are off", () => {
    expect(() => compare([1, 2.5, 3], [1, 2, 3])).toThrow(/\[1\]/);
    expect(() => compare([1, Infinity, 3], [1, 2, 3])).toThrow(/\[1\]/);
    expect(() => compare([1, 2, 3], [1, -2, 3])).toThrow(/\[1\]/);
  });

  if (name === "expectBitwiseEqual") return; // the same NaN does not differ
  it("fails on NaN on either side, and on both", () => {
    expect(() => compare([1, Number.NaN], [1, 2])).toThrow(/NaN/);
    expect(() => compare([1, 2], [1, Number.NaN])).toThrow(/NaN/);
    expect(() => compare([1, Number.NaN], [1, Number.NaN])).toThrow(/NaN/);
  });
});

describe("where each bound lies", () => {
  it("values: abs 1e-5 + rel 1e-6", () => {
    expectValue(100 + 1.09e-4, 100);
    expect(() => expectValue(100 + 1.11e-4, 100)).toThrow(/out of bounds/);
    expectValue(1e-5, 0);
    expect(() => expectValue(1.1e-5, 0)).toThrow(/bound 0.00001/);
    expectValue(-Infinity, -Infinity);
    expect(() => expectValue(-1e300, -Infinity)).toThrow();
    expect(() => expectValue(-Infinity, -1e300)).toThrow();
    expect(() => expectValues([1], [1], { rel: Number.NaN })).toThrow(/bounds nothing/);
    expect(() => expectValues([1], [2], { abs: Infinity })).toThrow(/bounds nothing/);
  });

  it("gradients: the largest error and the NMSE, each by itself", () => {
    const truth = [1, 1, 1, 1];
    const epsilon = 2 ** -23;
    expect(() => expectGradient([1 + 25 * epsilon, 1, 1, 1], truth, { nmse: 1 })).toThrow(/20·Σ\|terms\|·eps/);
    expectGradient([1 + 15 * epsilon, 1, 1, 1], truth);
    expect(() => expectGradient([1 + 1e-5, 1, 1, 1], truth, { termSums: 1e3 })).toThrow(/NMSE/);
    expect(() => expectGradient([0, 0], [1, 1], { termSums: 1e9 })).not.toThrow(); // a gradient that cancels wholly is only noise
    expect(() => expectGradient([1, 1e-3], [1, 0], { termSums: [1, 1e-6] })).toThrow(/\[1\]/);
    expect(() => expectGradient([1], [1], { termSums: [1, 1] })).toThrow(/termSums/);
    expect(() => expectGradient([1, 2], [1, 2], { termSums: Number.NaN })).toThrow(/bounds nothing/);
    expect(() => expectGradient([1e-20], [0])).not.toThrow(/NaN/);
    expect(() => expectGradient([1e-20], [0])).toThrow();
  });

  it("16-bit: one ulp, counted in the storage type", () => {
    for (const storage of ["bf16", "f16"] as const) {
      const bits = toBits16(1.5, storage);
      expectStored16([bits + 1], [1.5], storage);
      expect(() => expectStored16([bits + 2], [1.5], storage)).toThrow(/1 ulp/);
      expectStored16([bits], [stored(1.5, storage) + 0.9 * ulp(1.5, storage)], storage);
      expectStored16([toBits16(Infinity, storage)], [1e39], storage);
      expect(() => expectStored16([toBits16(1, storage)], [1e39], storage)).toThrow();
      expect(() => expectStored16([toBits16(-Infinity, storage)], [1e39], storage)).toThrow();
      expectBitwiseEqual(
        decode16(encode16([0.1, -3, 1e-6], storage), storage),
        [0.1, -3, 1e-6].map((x) => stored(x, storage)),
      );
    }
    expect(() => expectStored16([toBits16(1e-2, "bf16")], [0], "bf16")).toThrow();
  });

  it("scalar formulas: 4 ulps", () => {
    expectUlps([1 + 4 * 2 ** -23], [1]);
    expect(() => expectUlps([1 + 5 * 2 ** -23], [1])).toThrow(/4 ulp of f32/);
    expectUlps([1 + 4 * 2 ** -52], [1], "f64");
    expect(() => expectUlps([1 + 5 * 2 ** -52], [1], "f64")).toThrow();
  });

  it("backends against each other: NMSE 1e-11", () => {
    expectSameAcrossBackends([1, 1 + 1e-6], [1, 1]);
    expect(() => expectSameAcrossBackends([1, 1 + 1e-5], [1, 1])).toThrow(/NMSE/);
    expect(normalisedSquaredError([0, 0], [0, 0])).toBe(0);
    expect(normalisedSquaredError([0, 1], [0, 0])).toBe(Infinity);
  });

  it("bits: the sign of 0 counts", () => {
    expectBitwiseEqual([Number.NaN, -0], [Number.NaN, -0]);
    expect(() => expectBitwiseEqual([0], [-0])).toThrow(/bits differ/);
  });

  it("the plain formula's error, twice", () => {
    expectNoWorseThanPlain([1.002], [1.001], [1]);
    expect(() => expectNoWorseThanPlain([1.003], [1.001], [1])).toThrow(/plain error/);
  });

  it("finite differences: rel 1e-6", () => {
    const cubes = (x: Float64Array): number => x.reduce((total, xi) => total + xi ** 3, 0);
    expectFiniteDifferences(cubes, [1, -2], [3, 12]);
    expect(() => expectFiniteDifferences(cubes, [1, -2], [3, 12 * (1 + 3e-6)])).toThrow(/\[1\] differs/);
    expect(() => expectFiniteDifferences(cubes, [1, -2], [3, Number.NaN])).toThrow(/differs/);
    expect(() => expectFiniteDifferences(cubes, [], [])).toThrow(/nothing/);
    expect(() => expectFiniteDifferences(cubes, [1], [3, 3])).toThrow(/2 values/);
    expect(() => expectFiniteDifferences(([x = 0]) => Math.abs(x - 1.5001), [1.5], [-1])).toThrow(/uncertain/); // a kink within the steps
    expect(() => expectFiniteDifferences(() => Number.NaN, [1], [0])).toThrow();
  });
});
