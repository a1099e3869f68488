/**
 * Float64 formulas with their derivatives: a tape of elementary steps, walked back once. Beside every value and derivative it keeps Σ|terms|: how
 * large its error may be, in units of rounding, whatever the order of evaluation (SPEC 9). Where terms cancel that is far more than the number itself.
 */

/** A number on the tape. */
export type Term = number & { readonly brand: "term" };

export interface Derivatives {
  readonly values: Float64Array;
  readonly magnitudes: Float64Array;
}

export class Tape {
  readonly #values: number[] = [];
  readonly #magnitudes: number[] = [];
  /** Per step two operands, −1 where there is none, and the partial derivatives in them. */
  readonly #operands: number[] = [];
  readonly #partials: number[] = [];
  readonly #partialMagnitudes: number[] = [];

  /** Something to differentiate by, or a constant. */
  variable(value: number): Term {
    return this.#step(value, Math.abs(value), []);
  }
  variables(values: ArrayLike<number>): Term[] {
    return Array.from(values, (value) => this.variable(value));
  }
  value(of: Term): number {
    return stored(this.#values, of);
  }
  #magnitude(of: Term): number {
    return stored(this.#magnitudes, of);
  }

  add(a: Term, b: Term): Term {
    return this.#step(this.value(a) + this.value(b), this.#magnitude(a) + this.#magnitude(b), [exactly(a, 1), exactly(b, 1)]);
  }
  subtract(a: Term, b: Term): Term {
    return this.#step(this.value(a) - this.value(b), this.#magnitude(a) + this.#magnitude(b), [exactly(a, 1), exactly(b, -1)]);
  }
  multiply(a: Term, b: Term): Term {
    const magnitude = Math.abs(this.value(a)) * this.#magnitude(b) + Math.abs(this.value(b)) * this.#magnitude(a);
    return this.#step(this.value(a) * this.value(b), magnitude, [
      { of: a, slope: this.value(b), magnitude: this.#magnitude(b) },
      { of: b, slope: this.value(a), magnitude: this.#magnitude(a) },
    ]);
  }
  divide(a: Term, b: Term): Term {
    return this.multiply(
      a,
      this.#smooth(b, (x) => [1 / x, -1 / x ** 2, 2 / x ** 3]),
    );
  }
  /** factor·a + offset. */
  affine(a: Term, factor: number, offset = 0): Term {
    return this.#step(factor * this.value(a) + offset, Math.abs(factor) * this.#magnitude(a) + Math.abs(offset), [exactly(a, factor)]);
  }
  exp(a: Term): Term {
    return this.#smooth(a, (x) => [Math.exp(x), Math.exp(x), Math.exp(x)]);
  }
  log(a: Term): Term {
    return this.#smooth(a, (x) => [Math.log(x), 1 / x, -1 / x ** 2]);
  }
  log1p(a: Term): Term {
    return this.#smooth(a, (x) => [Math.log1p(x), 1 / (1 + x), -1 / (1 + x) ** 2]);
  }
  cos(a: Term): Term {
    return this.#smooth(a, (x) => [Math.cos(x), -Math.sin(x), -Math.cos(x)]);
  }
  sin(a: Term): Term {
    return this.#smooth(a, (x) => [Math.sin(x), Math.cos(x), -Math.sin(x)]);
  }
  /** |a|, whose derivative at 0 counts as 0. */
  abs(a: Term): Term {
    return this.#step(Math.abs(this.value(a)), this.#magnitude(a), [exactly(a, Math.sign(this.value(a)))]);
  }
  /** √a, whose derivative at 0 counts as 0. */
  sqrt(a: Term): Term {
    return this.#smooth(a, (x) => (x === 0 ? [0, 0, 0] : [Math.sqrt(x), 0.5 / Math.sqrt(x), -0.25 / Math.sqrt(x) ** 3]));
  }

  sum(terms: readonly Term[]): Term {
    return terms.reduce((total, term) => this.add(total, term), this.variable(0));
  }
  /** Σ a·b. */
  dot(a: readonly Term[], b: readonly Term[]): Term {
    return this.sum(a.map((x, i) => this.multiply(x, b[i] as Term)));
  }
  /** ln Σ e^a. */
  logSumExp(terms: readonly Term[]): Term {
    const largest = Math.max(...terms.map((term) => this.value(term)));
    return this.affine(this.log(this.sum(terms.map((term) => this.exp(this.affine(term, 1, -largest))))), 1, largest);
  }

  /** The derivatives of `result` in every step; those of terms are at their index. */
  derivatives(result: Term): Derivatives {
    const count = this.#values.length;
    const [values, magnitudes] = [new Float64Array(count), new Float64Array(count)];
    values[result] = 1;
    magnitudes[result] = 1;
    for (let step = result as number; step >= 0; step--) {
      for (let side = 2 * step; side < 2 * step + 2; side++) {
        const operand = this.#operands[side] ?? -1;
        if (operand < 0) continue;
        values[operand] = (values[operand] ?? 0) + (values[step] ?? 0) * (this.#partials[side] ?? 0);
        magnitudes[operand] = (magnitudes[operand] ?? 0) + (magnitudes[step] ?? 0) * (this.#partialMagnitudes[side] ?? 0);
      }
    }
    return { values, magnitudes };
  }

  /** f(a), where f gives value, slope and second derivative. */
  #smooth(a: Term, f: (x: number) => [number, number, number]): Term {
    const [value, slope, bend] = f(this.value(a));
    const magnitude = Math.abs(slope) + Math.abs(bend) * this.#magnitude(a);
    return this.#step(value, Math.abs(value) + Math.abs(slope) * this.#magnitude(a), [{ of: a, slope, magnitude }]);
  }

  #step(value: number, magnitude: number, partials: readonly Partial[]): Term {
    for (const side of [0, 1]) {
      const partial = partials[side];
      this.#operands.push(partial?.of ?? -1);
      this.#partials.push(partial?.slope ?? 0);
      this.#partialMagnitudes.push(partial?.magnitude ?? 0);
    }
    this.#magnitudes.push(magnitude);
    return (this.#values.push(value) - 1) as Term;
  }
}

/** A partial derivative of a step in one of its operands. */
interface Partial {
  readonly of: Term;
  readonly slope: number;
  readonly magnitude: number;
}

function exactly(of: Term, slope: number): Partial {
  return { of, slope, magnitude: Math.abs(slope) };
}

function stored(values: readonly number[], index: number): number {
  const value = values[index];
  if (value === undefined) throw new RangeError(`the tape has no step ${index}`);
  return value;
}
