import { type Timing, timingOf } from "../measure.js";
import type { Call } from "./case.js";

const ROUNDS = 9;
/** Milliseconds that all runs of a variant may take, the warming one among them. */
const BUDGET = 500;
/** Milliseconds: a first run that takes longer is the only one. */
export const SLOW = 2000;
/** Shorter calls are timed so many together that it takes about this long. */
const SHORT = 0.5;
const WARM = 20;
const MOST_REPEATS = 100;

/** Milliseconds of one of so many calls in a row. */
type Timer = (repeats: number) => number | Promise<number>;

async function timed(timer: Timer): Promise<Timing> {
  let spent = await timer(1);
  if (spent > SLOW) return timingOf([spent]);
  // The first of short calls is many times slower than others.
  const usual = spent > WARM ? spent : await timer(1);
  const repeats = Math.min(MOST_REPEATS, Math.max(1, Math.round(SHORT / usual)));
  const times: number[] = [];
  do {
    const time = await timer(repeats);
    times.push(time);
    spent += time * repeats;
  } while (times.length < ROUNDS && spent < BUDGET);
  return timingOf(times);
}

export function timedSync({ sync }: Call): Promise<Timing> {
  return timed((repeats) => {
    const begin = performance.now();
    for (let i = 0; i < repeats; i++) sync();
    return (performance.now() - begin) / repeats;
  });
}

export function timedAsync(call: Call): Promise<Timing> {
  return timed(async (repeats) => {
    const begin = performance.now();
    for (let i = 0; i < repeats; i++) await call.async();
    return (performance.now() - begin) / repeats;
  });
}
