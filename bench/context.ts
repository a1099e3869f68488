import type { Ceilings } from "./ceilings.js";
import type { HeadShape } from "./inputs.js";
import type { PyTorch } from "./peers/pytorch.js";

/** What every bench is given. */
export interface Context {
  shape: HeadShape;
  rounds: number;
  ceilings: Ceilings;
  pytorch: PyTorch | undefined;
}
