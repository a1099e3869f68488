import type { Ceilings } from "./ceilings.js";
import type { HeadShape } from "./inputs.js";
import type { Ceiling, Row } from "./report.js";

const BYTES = { f32: 4, bf16: 2 } as const;

/** Reads and writes of a matrix of logits. */
export interface Passes {
  name: string;
  passes: number;
  dtype?: keyof typeof BYTES;
}

/** How often logits = hidden × weightᵀ is multiplied, and the gradients of hidden and of weight. */
export interface Products {
  name: string;
  logits: number;
  hidden?: number;
  weight?: number;
}

/** What has to be done at the least. */
export type Work = Passes | Products;

/** The same as an amount, for a rate. */
export type Amount = { name: string; bytes: number } | { name: string; flops: number };

export function amountOf(work: Work, shape: HeadShape): Amount {
  if ("passes" in work) return { name: work.name, bytes: bytesOf(work, shape) };
  const { name, logits, hidden = 0, weight = 0 } = work;
  return { name, flops: (logits + hidden + weight) * 2 * shape.rows * shape.depth * shape.vocabulary };
}

function bytesOf({ passes, dtype = "f32" }: Omit<Passes, "name">, { rows, vocabulary }: HeadShape): number {
  return passes * rows * vocabulary * BYTES[dtype];
}

/** How long the machine takes for it with nothing around it. */
function millisecondsOf(work: Work, shape: HeadShape, ceilings: Ceilings): number {
  if ("passes" in work) return (bytesOf(work, shape) / bytesOf({ passes: 2 }, shape)) * ceilings.copyMs;
  const { logits, hidden = 0, weight = 0 } = work;
  return logits * ceilings.logitsProductMs + hidden * ceilings.hiddenProductMs + weight * ceilings.weightProductMs;
}

/**
 * What stands beside a time: on the CPU the time of `ceiling`, which was measured in the same run; on a device, whose ceilings nobody measures, the
 * amount of `work`, from which its rate follows.
 */
export function against(
  { shape, ceilings }: { shape: HeadShape; ceilings: Ceilings | undefined },
  work: Work | undefined,
  { bound, ...ceiling }: Work & { bound?: number },
): Pick<Row, "ceiling" | "work"> {
  if (ceilings) return { ceiling: bounded({ name: ceiling.name, ms: millisecondsOf(ceiling, shape, ceilings) }, bound) };
  return work ? { work: amountOf(work, shape) } : {};
}

function bounded(ceiling: Ceiling, bound: number | undefined): Ceiling {
  return bound === undefined ? ceiling : { ...ceiling, bound };
}
