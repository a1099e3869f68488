import { DataError, OutOfRangeError, ShapeError } from "./errors.js";
import type { KernelParameters } from "./kernels/kernel.js";
import { describe } from "./native/frame.js";
import { checkOut, dataOf, type Tensor } from "./tensor.js";

export interface AdamWOptions {
  /** Default 1e-2. */
  learningRate?: number;
  /** Default 0.9. */
  beta1?: number;
  /** Default 0.999. */
  beta2?: number;
  /** Default 1e-8. */
  epsilon?: number;
  /** Decoupled; of logits and factors only. Default 0. */
  weightDecay?: number;
}

interface Moments {
  steps: number;
  first: Float64Array;
  second: Float64Array;
}

/** What state() returns: plain JSON. */
export interface AdamWState {
  options: Required<AdamWOptions>;
  moments: Record<string, { steps: number; first: number[]; second: number[] }>;
}

/** Parameters that must stay above 0. */
const POSITIVE = new Set(["sigma", "alpha", "degree", "coef0", "lambdas", "rates"]);

/**
 * AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) for the few parameters of a kernel, so that a trainer needs no optimiser for them:
 * `adamw.step(objective.parameters(), step.grads.kernel)`. Parameters that must stay positive (bandwidths, rates, …) take their step in their logarithm,
 * as θ = e^s with ∂/∂s = θ·∂/∂θ; logits and factors take it as they are.
 */
export class AdamW {
  readonly options: Readonly<Required<AdamWOptions>>;
  readonly #moments = new Map<string, Moments>();

  /** @throws OutOfRangeError for options outside their range. */
  constructor({ learningRate = 1e-2, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weightDecay = 0 }: AdamWOptions = {}) {
    this.options = Object.freeze({ learningRate, beta1, beta2, epsilon, weightDecay });
    for (const [name, value] of Object.entries(this.options)) {
      const below = name.startsWith("beta") ? 1 : Infinity;
      if (typeof value !== "number" || !(value >= 0 && value < below))
        throw new OutOfRangeError(`${name}: expected a number of at least 0 and less than ${below}, got ${describe(value)}`);
    }
  }

  /**
   * Moves the parameters, in place. Each parameter counts its own steps, so that some may come later.
   * @throws ShapeError for a gradient that is missing or has another shape; OutOfRangeError for one that is not finite. Nothing is moved then.
   */
  step(parameters: KernelParameters, grads: Readonly<Record<string, Tensor<"f64">>> = {}): void {
    for (const [name, parameter] of Object.entries(parameters)) checkGradient(name, parameter, grads[name]);
    for (const [name, parameter] of Object.entries(parameters)) this.#move(name, parameter, grads[name] as Tensor<"f64">);
  }

  #move(name: string, parameter: Tensor<"f64">, gradient: Tensor<"f64">): void {
    const { learningRate, beta1, beta2, epsilon, weightDecay } = this.options;
    const moments = this.#momentsOf(name, parameter.size);
    moments.steps += 1;
    const positive = POSITIVE.has(name.slice(name.lastIndexOf("/") + 1));
    const [unbiased1, unbiased2] = [1 - beta1 ** moments.steps, 1 - beta2 ** moments.steps];
    for (let i = 0; i < parameter.size; i++) {
      const value = parameter.data[i] ?? 0;
      const slope = (gradient.data[i] ?? 0) * (positive ? value : 1);
      const first = beta1 * (moments.first[i] ?? 0) + (1 - beta1) * slope;
      const second = beta2 * (moments.second[i] ?? 0) + (1 - beta2) * slope * slope;
      moments.first[i] = first;
      moments.second[i] = second;
      const move = (-learningRate * (first / unbiased1)) / (Math.sqrt(second / unbiased2) + epsilon);
      parameter.data[i] = positive ? value * Math.exp(move) : value * (1 - learningRate * weightDecay) + move;
    }
  }

  #momentsOf(name: string, size: number): Moments {
    const known = this.#moments.get(name);
    if (known !== undefined && known.first.length === size) return known;
    const made = { steps: 0, first: new Float64Array(size), second: new Float64Array(size) };
    this.#moments.set(name, made);
    return made;
  }

  /** All that fromState needs to go on from here. */
  state(): AdamWState {
    const moments = [...this.#moments].map(([name, { steps, first, second }]) => [name, { steps, first: [...first], second: [...second] }]);
    return { options: { ...this.options }, moments: Object.fromEntries(moments) };
  }

  /** @throws DataError when this is not what state() returned. */
  static fromState({ options, moments }: AdamWState): AdamW {
    try {
      const adamw = new AdamW(options);
      for (const [name, { steps, first, second }] of Object.entries(moments)) {
        const sound = Number.isSafeInteger(steps) && steps >= 0 && first.length === second.length && [...first, ...second].every(Number.isFinite);
        if (!sound) throw new DataError(`moments of ${name}: are damaged`);
        adamw.#moments.set(name, { steps, first: Float64Array.from(first), second: Float64Array.from(second) });
      }
      return adamw;
    } catch (cause) {
      throw new DataError("not a state of AdamW that this package reads", { cause });
    }
  }
}

function checkGradient(name: string, parameter: Tensor<"f64">, gradient: Tensor<"f64"> | undefined): void {
  if (gradient === undefined) throw new ShapeError(`grads.${name}: is missing`);
  dataOf(name, parameter);
  checkOut(`grads.${name}`, gradient, "f64", parameter.shape);
  const index = gradient.data.findIndex((value) => !Number.isFinite(value));
  if (index >= 0) throw new OutOfRangeError(`grads.${name}: element ${index} is not finite`, { index });
}
