/** Least and most. */
export type Interval = [number, number];

/** Milliseconds of repeated runs. */
export interface Timing {
  median: number;
  q20: number;
  q80: number;
  /** How many; with the interval absent from results that were saved before these were kept. */
  runs?: number;
  /** Holds the true median with a probability of at least 95 %, as far as blocks of runs are independent; none of fewer than FEWEST_RUNS. */
  interval?: Interval;
}

const CONFIDENCE = 0.95;
/** Even the least and the most of fewer miss the median too often: by 2 × ½ⁿ. */
export const FEWEST_RUNS = 6;

/** Something to be timed: runs once, or several times in a process of its own, and tells how many milliseconds each run took. */
export type Variant = () => number[] | Promise<number[]>;

function sorted(values: readonly number[]): number[] {
  return [...values].sort((a, b) => a - b);
}

function quantile(ascending: readonly number[], q: number): number {
  return ascending[Math.min(ascending.length - 1, Math.floor(q * ascending.length))] ?? Number.NaN;
}

/** Many runs in a row are not independent, since the machine's speed wanders: from twice as many on, so many blocks of them count as one each. */
const BLOCKS = 15;

function blockMedians(times: readonly number[]): readonly number[] {
  if (times.length < 2 * BLOCKS) return times;
  const begin = (block: number) => Math.floor((block * times.length) / BLOCKS);
  return Array.from({ length: BLOCKS }, (_, block) => quantile(sorted(times.slice(begin(block), begin(block + 1))), 0.5));
}

/**
 * Between two order statistics: the k-th least and the k-th most miss the median when fewer than k of n runs fall on one side of it, each with probability ½,
 * whatever the distribution of times.
 */
function medianInterval(times: readonly number[]): Interval | undefined {
  const ascending = sorted(times);
  const n = ascending.length;
  if (n < FEWEST_RUNS) return undefined;
  let probability = 0.5 ** n;
  let missed = 2 * probability;
  let k = 0;
  while (missed <= 1 - CONFIDENCE) {
    k++;
    probability *= (n - k + 1) / k;
    missed += 2 * probability;
  }
  return [ascending[k - 1] as number, ascending[n - k] as number];
}

/** @param times in the order of the runs */
export function timingOf(times: readonly number[]): Timing {
  const ascending = sorted(times);
  const interval = medianInterval(blockMedians(times));
  return {
    median: quantile(ascending, 0.5),
    q20: quantile(ascending, 0.2),
    q80: quantile(ascending, 0.8),
    runs: times.length,
    ...(interval && { interval }),
  };
}

/** Times a function of this process. */
export function local(run: () => unknown): Variant {
  return () => {
    const begin = performance.now();
    run();
    return [performance.now() - begin];
  };
}

/** How often what takes seconds runs where others run `rounds` times: of the usual 15, so often that its median has an interval. */
export function slowRounds(rounds: number): number {
  return Math.max(1, Math.floor(0.4 * rounds));
}

/** Milliseconds of a run from which on a peer is slow. */
const SLOW_PEER = 300;

/**
 * Runs the variants in turn, round after round after one that is not counted, so that a drift of the machine's speed meets all of them. Peers that are slow
 * run less often.
 */
export async function interleave<Name extends string, Peer extends string = never>(
  variants: Record<Name, Variant>,
  rounds: number,
  peers: Partial<Record<Peer, Variant>> = {},
): Promise<Record<Name, Timing> & { peers: Record<string, Timing> }> {
  const ours = Object.entries<Variant>(variants);
  const theirs = Object.entries<Variant | undefined>(peers);
  const times = new Map<string, number[]>();
  const roundsOf = new Map<string, number>();
  for (const [name, variant] of [...ours, ...theirs]) {
    const warming = (await variant?.()) ?? [];
    const slow = Object.hasOwn(peers, name) && Math.max(...warming) > SLOW_PEER;
    roundsOf.set(name, slow ? slowRounds(rounds) : rounds);
    times.set(name, []);
  }
  for (let round = 0; round < rounds; round++) {
    for (const [name, variant] of [...ours, ...theirs]) {
      if (round < (roundsOf.get(name) ?? 0)) times.get(name)?.push(...((await variant?.()) ?? []));
    }
  }
  const timingsOf = (names: readonly string[]) => Object.fromEntries(names.map((name) => [name, timingOf(times.get(name) ?? [])]));
  return { ...(timingsOf(Object.keys(variants)) as Record<Name, Timing>), peers: timingsOf(Object.keys(peers)) };
}
