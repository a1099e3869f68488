import * as library from "dpo-kernels";
import { describe, expect, it } from "vitest";
import { nameOf } from "../bench/survey/case.js";
import { type Extent, surveyCases } from "../bench/survey/cases.js";

/** Exported operations that are not surveyed, and why. */
const LEFT_OUT: Record<string, string> = {
  gaussianNoiseScale: "one number from three, whatever the shape",
  featureError: "a measurement of features, half of it in JavaScript",
};

const exported = Object.keys(library)
  .filter((name) => name.endsWith("Sync"))
  .map((name) => name.slice(0, -"Sync".length));

describe("the survey", () => {
  it.each<Extent>(["tiny", "small", "full"])("has every exported operation (%s)", (extent) => {
    const surveyed = new Set(surveyCases(extent).flatMap(({ calls }) => calls));
    expect([...exported].filter((name) => !surveyed.has(name)).sort()).toEqual(Object.keys(LEFT_OUT).sort());
    expect([...surveyed].filter((name) => !exported.includes(name)).sort()).toEqual([
      "DpoKernels.loss",
      "DpoKernels.lossAndGrad",
      "NystromFeatures.transform",
      "NystromFeatures.transformVjp",
      "RandomFeatures.transform",
      "RandomFeatures.transformVjp",
    ]);
  });

  it("names no two cases alike, for processes find them by name", () => {
    const names = surveyCases("full").map(nameOf);
    expect(new Set(names).size).toBe(names.length);
  });

  it("runs every case of the tiny shapes, both ways", async () => {
    for (const one of surveyCases("tiny")) {
      const { sync, async } = one.prepare((value) => value);
      expect(() => sync(), nameOf(one)).not.toThrow();
      await async();
    }
  });
});
