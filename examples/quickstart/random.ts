/** A source of numbers in [0, 1) that depends on the seed only. */
export type Random = () => number;

/** mulberry32: 32 bits of state, the same numbers on every machine. */
export function seeded(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Normally distributed values (Box-Muller). */
export function normals(count: number, deviation: number, random: Random): Float32Array {
  return Float32Array.from({ length: count }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - random()));
    return deviation * radius * Math.cos(2 * Math.PI * random());
  });
}

/** A shuffled copy (Fisher-Yates). */
export function shuffled<T>(items: readonly T[], random: Random): T[] {
  const result = [...items];
  for (let last = result.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    const kept = result[last] as T;
    result[last] = result[other] as T;
    result[other] = kept;
  }
  return result;
}

/** Endless batches of a fixed size: every item once per pass, in a new order each pass. */
export function* batches<T>(items: readonly T[], size: number, random: Random): Generator<T[], never> {
  let queue: T[] = [];
  for (;;) {
    while (queue.length < size) queue = queue.concat(shuffled(items, random));
    yield queue.splice(0, size);
  }
}
