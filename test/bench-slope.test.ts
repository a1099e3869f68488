import { describe, expect, it } from "vitest";
import { exponentOf, type Point, upperHalf } from "../bench/slope.js";

describe("the exponent of a curve", () => {
  it("is that of a power law, whatever its factor", () => {
    const law = (exponent: number) => [1, 2, 5, 11].map((x): Point => [x, 7 * x ** exponent]);
    for (const exponent of [2, 1, 0, -1]) expect(exponentOf(law(exponent))).toBeCloseTo(exponent, 12);
  });

  it("is the least-squares slope of points beside a law", () => {
    // ln y = 0, 1, 1 at ln x = 0, 1, 2.
    expect(exponentOf([0, 1, 1].map((y, x): Point => [Math.exp(x), Math.exp(y)]))).toBeCloseTo(0.5, 12);
  });

  it("is taken from the upper half of the points, two at the least", () => {
    expect(upperHalf([1, 2, 3, 4, 5])).toEqual([3, 4, 5]);
    expect(upperHalf([1, 2])).toEqual([1, 2]);
    expect(upperHalf([1])).toEqual([1]);
  });
});
