/** Milliseconds of repeated runs. */
export interface Timing {
  median: number;
  q20: number;
  q80: number;
}

/** Something to be timed: runs once, or several times in a process of its own, and tells how many milliseconds each run took. */
export type Variant = () => number[] | Promise<number[]>;

function quantile(sorted: readonly number[], q: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

export function timingOf(times: readonly number[]): Timing {
  const sorted = [...times].sort((a, b) => a - b);
  return { median: quantile(sorted, 0.5), q20: quantile(sorted, 0.2), q80: quantile(sorted, 0.8) };
}

/** Times a function of this process. */
export function local(run: () => unknown): Variant {
  return () => {
    const begin = performance.now();
    run();
    return [performance.now() - begin];
  };
}

/** Runs the variants in turn, round after round after one that is not counted, so that a drift of the machine's speed meets all of them. */
export async function interleave<Name extends string, Peer extends string = never>(
  variants: Record<Name, Variant>,
  rounds: number,
  peers: Partial<Record<Peer, Variant>> = {},
): Promise<Record<Name, Timing> & { peers: Record<string, Timing> }> {
  const all = [...Object.entries<Variant>(variants), ...Object.entries<Variant | undefined>(peers)];
  const times = new Map<string, number[]>(all.map(([name]) => [name, []]));
  for (let round = -1; round < rounds; round++) {
    for (const [name, variant] of all) {
      const taken = (await variant?.()) ?? [];
      if (round >= 0) times.get(name)?.push(...taken);
    }
  }
  const timingsOf = (names: readonly string[]) => Object.fromEntries(names.map((name) => [name, timingOf(times.get(name) ?? [])]));
  return { ...(timingsOf(Object.keys(variants)) as Record<Name, Timing>), peers: timingsOf(Object.keys(peers)) };
}
