import type { Ceilings } from "./ceilings.js";
import type { HeadShape, Placement } from "./inputs.js";
import type { InProcess } from "./peers/in-process.js";
import type { PyTorch } from "./peers/pytorch.js";
import type { Row } from "./report.js";
import type { Sizes } from "./sizes.js";

/** What every bench is given. */
export interface Context {
  sizes: Sizes;
  /** That of the head. */
  shape: HeadShape;
  rounds: number;
  /** Through which all inputs and results go. */
  placed: Placement["placed"];
  /** Undefined on a device. */
  ceilings: Ceilings | undefined;
  pytorch: PyTorch | undefined;
  /** Undefined on a device, where it would be another machine's time. */
  inProcess: InProcess | undefined;
}

export interface Bench {
  /** The operations of a backend without which it cannot run, by the names in `backends()`. */
  needs: readonly string[];
  run(context: Context): Promise<Row[]>;
}
