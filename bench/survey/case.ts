/** What the survey times: every operation on every shape, as data that a process of its own can find again by name. */

import type { Placement } from "../inputs.js";
import type { Shape } from "../shapes.js";

/** Of the main arguments. */
export type Storage = "f32" | "bf16";

/** The two faces of the same work. */
export interface Call {
  sync(): unknown;
  async(): Promise<unknown>;
}

export type Placed = Placement["placed"];

export interface SurveyCase {
  /** Exported operations that it calls, without "Sync". */
  calls: readonly string[];
  what: string;
  /** What the list of shapes calls it. */
  shapeName: string;
  shape: string;
  dtype: Storage;
  /** The operations of a backend without which it cannot run, by the names in `backends()`. */
  needs: readonly string[];
  /** Makes the inputs and the memory for the results. */
  prepare(placed: Placed): Call;
}

/** One thing that is done with every shape of a list. */
export interface Work<S> {
  calls: readonly string[];
  what: string;
  /** Default: as the calls. */
  needs?: readonly string[];
  prepare(shape: S, dtype: Storage, placed: Placed): Call;
}

/** Which shapes of a list are taken. */
export type Select = <S extends Shape>(shapes: readonly S[]) => readonly S[];

export const BOTH_STORAGES: readonly Storage[] = ["f32", "bf16"];
/** Of operations that take no 16-bit numbers. */
export const F32_ONLY: readonly Storage[] = ["f32"];

/** Of work that takes minutes on the largest head in both. */
export const affordable = ({ name }: Shape): readonly Storage[] => (name === "LLM" ? F32_ONLY : BOTH_STORAGES);

interface Over<S> {
  shapes: readonly S[];
  dtypes: readonly Storage[] | ((shape: S) => readonly Storage[]);
  label(shape: S): string;
}

export function casesOf<S extends Shape>({ shapes, dtypes, label }: Over<S>, works: readonly Work<S>[]): SurveyCase[] {
  return shapes.flatMap((shape) =>
    (typeof dtypes === "function" ? dtypes(shape) : dtypes).flatMap((dtype) =>
      works.map(({ calls, what, needs = calls, prepare }) => ({
        calls,
        what,
        shapeName: shape.name,
        shape: label(shape),
        dtype,
        needs,
        prepare: (placed) => prepare(shape, dtype, placed),
      })),
    ),
  );
}

export const operationOf = ({ calls }: Pick<SurveyCase, "calls">): string => calls.join(" + ");

export function nameOf(one: SurveyCase): string {
  return `${operationOf(one)}, ${one.what}, ${one.shape} ${one.dtype}`;
}

/** An operation with its arguments. */
export function call<Args, Options>(
  faces: { sync: (args: Args, options: Options) => unknown; async: (args: Args, options: Options) => Promise<unknown> },
  args: Args,
  options: Options,
): Call {
  return { sync: () => faces.sync(args, options), async: () => faces.async(args, options) };
}

/** One call after the other; what the first leaves in its results the second may read. */
export function inTurn(first: Call, second: Call): Call {
  return {
    sync: () => {
      first.sync();
      second.sync();
    },
    async: async () => {
      await first.async();
      await second.async();
    },
  };
}
