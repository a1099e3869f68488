/** What the self-tests compute in. */
export const PRECISIONS = ["f32", "f64"] as const;
export type Precision = (typeof PRECISIONS)[number];

/** Numbers that a self-test saw, and what they must be. */
export interface Check {
  readonly what: string;
  readonly seen: readonly number[];
  readonly expected: readonly number[];
  /** Largest difference, of numbers above 1 relative to them. Default: that of the precision. */
  readonly within?: number;
}

export interface Judged {
  precision: Precision;
  what: string;
  seen: number[];
  expected: number[];
  ok: boolean;
  /** The element that is furthest off. */
  worst: number;
}

/** f32: what the package promises of log-probabilities and the like. */
const WITHIN: Readonly<Record<Precision, number>> = { f32: 1e-5, f64: 1e-12 };

export function judge({ what, seen, expected, within }: Check, precision: Precision): Judged {
  const most = within ?? WITHIN[precision];
  const length = Math.max(seen.length, expected.length);
  const errors = Array.from({ length }, (_, i) => errorOf(seen[i], expected[i]));
  const worst = errors.indexOf(errors.reduce((a, b) => Math.max(a, b), 0));
  // An empty check would hold whatever the operation does.
  const ok = length > 0 && errors.every((error) => error <= most);
  return { precision, what, seen: [...seen], expected: [...expected], ok, worst };
}

/** Infinite where a number is missing or is none. */
function errorOf(seen = Number.NaN, expected = Number.NaN): number {
  const error = seen === expected ? 0 : Math.abs(seen - expected) / Math.max(1, Math.abs(expected));
  return Number.isNaN(error) ? Infinity : error;
}
