import { NonFiniteError, OutOfRangeError } from "../errors.js";
import type { OwnGeneratorDivergence } from "./index.js";

/** f lies this far below its tangent, of the size of the terms, before rounding no longer explains it. */
const CONVEXITY_TOLERANCE = 1e-9;

/**
 * A caller's generator, evaluated on density ratios r = p/q and centred: h(r) = f(r) − f(1) − f′(1)(r − 1), which leaves the divergence as it is, and
 * h′(r) = f′(r) − f′(1). At r = ∞ both are the limit of h′.
 */
export class CentredGenerator {
  readonly #f: (ratio: number) => number;
  readonly #derivative: (ratio: number) => number;
  readonly #valueAtOne: number;
  readonly #slopeAtOne: number;

  /** @throws NonFiniteError when f or its derivative is not finite at 1. */
  constructor({ f, derivative }: OwnGeneratorDivergence) {
    this.#f = f;
    this.#derivative = derivative;
    this.#valueAtOne = f(1);
    this.#slopeAtOne = derivative(1);
    if (!Number.isFinite(this.#valueAtOne)) throw new NonFiniteError(`f: f(1) is ${this.#valueAtOne}`);
    if (!Number.isFinite(this.#slopeAtOne)) throw new NonFiniteError(`f: derivative(1) is ${this.#slopeAtOne}`);
  }

  values(ratios: Float64Array, into: Float64Array): void {
    for (let i = 0; i < ratios.length; i++) {
      const ratio = ratios[i] as number;
      into[i] = ratio === Number.POSITIVE_INFINITY ? this.#slope(ratio) : this.#value(ratio);
    }
  }

  slopes(ratios: Float64Array, into: Float64Array): void {
    for (let i = 0; i < ratios.length; i++) into[i] = this.#slope(ratios[i] as number);
  }

  #value(ratio: number): number {
    const value = this.#f(ratio);
    const linear = this.#slopeAtOne * (ratio - 1);
    const centred = value - this.#valueAtOne - linear;
    if (centred >= 0) return centred;
    if (Number.isNaN(centred)) throw new NonFiniteError(`f: f(${ratio}) is ${value}`);
    const size = Math.abs(value) + Math.abs(this.#valueAtOne) + Math.abs(linear);
    if (centred >= -CONVEXITY_TOLERANCE * size) return 0;
    throw new OutOfRangeError(`f: f(${ratio}) lies below the tangent at 1; f must be convex, and derivative its derivative`);
  }

  #slope(ratio: number): number {
    const slope = this.#derivative(ratio);
    if (Number.isNaN(slope)) throw new NonFiniteError(`f: derivative(${ratio}) is NaN`);
    return slope - this.#slopeAtOne;
  }
}
