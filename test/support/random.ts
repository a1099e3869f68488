/** Random numbers for tests: small, seeded, the same on every machine. */

export interface Random {
  /** In [low, high), by default [0, 1). */
  uniform(low?: number, high?: number): number;
  normal(mean?: number, deviation?: number): number;
  /** An integer in [low, high). */
  integer(low: number, high: number): number;
  pick<T>(choices: readonly [T, ...T[]]): T;
  uniforms(count: number, low?: number, high?: number): Float64Array;
  normals(count: number, mean?: number, deviation?: number): Float64Array;
  integers(count: number, low: number, high: number): Int32Array;
}

export function createRandom(seed: number): Random {
  const next = sfc32(seed);
  const unit = (): number => (next() * 2 ** 21 + (next() >>> 11)) * 2 ** -53;

  const random: Random = {
    uniform: (low = 0, high = 1) => low + (high - low) * unit(),
    // Box–Muller; 1 - unit() is never 0.
    normal: (mean = 0, deviation = 1) => mean + deviation * Math.sqrt(-2 * Math.log(1 - unit())) * Math.cos(2 * Math.PI * unit()),
    integer: (low, high) => low + Math.floor((high - low) * unit()),
    pick: (choices) => choices[random.integer(0, choices.length)] ?? choices[0],
    uniforms: (count, low, high) => Float64Array.from({ length: count }, () => random.uniform(low, high)),
    normals: (count, mean, deviation) => Float64Array.from({ length: count }, () => random.normal(mean, deviation)),
    integers: (count, low, high) => Int32Array.from({ length: count }, () => random.integer(low, high)),
  };
  return random;
}

/** Chris Doty-Humphrey's "small fast counter" generator: 32 uniform bits a call. */
function sfc32(seed: number): () => number {
  let a = seed | 0;
  let b = Math.floor(seed / 2 ** 32) | 0;
  let c = 0x2545f491;
  let counter = 1;
  const next = (): number => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  for (let warmUp = 0; warmUp < 16; warmUp++) next();
  return next;
}
