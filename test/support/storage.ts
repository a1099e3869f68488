/**
 * The storage types of a tensor, emulated from float64: which value does a number become when it is stored, and how
 * far apart are neighbours there. Written from IEEE 754 (round to nearest, ties to even), apart from native code.
 */

export type Storage = "f64" | "f32" | "bf16" | "f16";
export type Storage16 = "bf16" | "f16";

interface Format {
  /** Significant bits, the implicit one included. */
  readonly precision: number;
  readonly minExponent: number;
  readonly maxExponent: number;
}

const FORMATS: Readonly<Record<Storage, Format>> = {
  f64: { precision: 53, minExponent: -1022, maxExponent: 1023 },
  f32: { precision: 24, minExponent: -126, maxExponent: 127 },
  bf16: { precision: 8, minExponent: -126, maxExponent: 127 },
  f16: { precision: 11, minExponent: -14, maxExponent: 15 },
};

const LEAST_POWER = -1074;
/** 2^(LEAST_POWER + i): a table, since a tenth of the time of all tests went into taking these powers. */
const POWERS_OF_TWO = Float64Array.from({ length: 1024 - LEAST_POWER }, (_, i) => 2 ** (LEAST_POWER + i));

function powerOfTwo(exponent: number): number {
  return POWERS_OF_TWO[exponent - LEAST_POWER] ?? 2 ** exponent;
}

/** The distance between neighbours at |x|: one unit in the last place, the smallest subnormal's spacing near 0. */
export function ulp(x: number, storage: Storage): number {
  const { precision, minExponent, maxExponent } = FORMATS[storage];
  const exponent = Math.min(Math.max(exponentOf(x), minExponent), maxExponent);
  return powerOfTwo(exponent - precision + 1);
}

/** The largest finite value. */
export function largest(storage: Storage): number {
  const { precision, maxExponent } = FORMATS[storage];
  return (2 - powerOfTwo(1 - precision)) * powerOfTwo(maxExponent);
}

/** The value that x has after being stored. */
export function stored(x: number, storage: Storage): number {
  if (storage === "f64" || x === 0 || !Number.isFinite(x)) return x;
  const spacing = ulp(x, storage);
  const rounded = roundHalfToEven(x / spacing) * spacing; // both exact: spacing is a power of two
  if (Math.abs(rounded) > largest(storage)) return Math.sign(x) * Infinity;
  return rounded === 0 ? Math.sign(x) * 0 : rounded;
}

/** The values that xs have after being stored. */
export function storedAll(xs: ArrayLike<number>, storage: Storage): Float64Array {
  return Float64Array.from(xs, (x) => stored(x, storage));
}

/** The 16 bits of x, rounded once, straight from float64. */
export function toBits16(x: number, storage: Storage16): number {
  const { precision, minExponent, maxExponent } = FORMATS[storage];
  const fractionBits = precision - 1;
  const value = stored(x, storage);
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const infinity = (maxExponent - minExponent + 2) << fractionBits;
  if (Number.isNaN(value)) return infinity | (1 << (fractionBits - 1));
  const magnitude = Math.abs(value);
  if (magnitude === Infinity) return sign | infinity;
  const steps = magnitude / ulp(magnitude, storage); // an integer below 2^precision
  const exponent = Math.max(exponentOf(magnitude), minExponent);
  // A normal number's leading bit adds one to the exponent field, a subnormal has none to add.
  return sign | (((exponent - minExponent) << fractionBits) + steps);
}

export function fromBits16(bits: number, storage: Storage16): number {
  const { precision, minExponent, maxExponent } = FORMATS[storage];
  const fractionBits = precision - 1;
  const sign = bits & 0x8000 ? -1 : 1;
  const fraction = bits & ((1 << fractionBits) - 1);
  const field = (bits & 0x7fff) >> fractionBits;
  if (field === maxExponent - minExponent + 2) return fraction === 0 ? sign * Infinity : Number.NaN;
  const spacing = powerOfTwo(Math.max(field, 1) - 1 + minExponent - fractionBits);
  return sign * ((field === 0 ? 0 : 1 << fractionBits) + fraction) * spacing;
}

export function encode16(xs: ArrayLike<number>, storage: Storage16): Uint16Array {
  return Uint16Array.from(xs, (x) => toBits16(x, storage));
}

export function decode16(bits: ArrayLike<number>, storage: Storage16): Float64Array {
  return Float64Array.from(bits, (word) => fromBits16(word, storage));
}

const view = new DataView(new ArrayBuffer(8));

/** floor(log2 |x|), exactly; of 0 and of float64 subnormals it is -1023. */
function exponentOf(x: number): number {
  view.setFloat64(0, x);
  return ((view.getUint16(0) >> 4) & 0x7ff) - 1023;
}

function roundHalfToEven(x: number): number {
  const floor = Math.floor(x);
  const above = x - floor;
  if (above !== 0.5) return above < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}
