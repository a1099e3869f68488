import type { Kernel } from "../kernels/kernel.js";
import { treeOf } from "../kernels/write-kernel.js";

const FEWEST_MEMBERS = 1.1;
const PATIENCE = 10;

/** Notices groups of a mixture whose effective number of members e^H stays under 1.1, for 10 steps in a row. */
export class CollapseWatch {
  /** Steps in a row, by the group's path. */
  readonly #low: Record<string, number>;

  constructor(low: Readonly<Record<string, number>> = {}) {
    this.#low = { ...low };
  }

  /** Takes note of one step. Groups of one member have nothing to lose. */
  observe(kernel: Kernel, effectiveNumbers: Readonly<Record<string, number>>): void {
    for (const { path, kernel: group } of treeOf(kernel).groups) {
      const isLow = group.logits.size > 1 && (effectiveNumbers[path] ?? 0) < FEWEST_MEMBERS;
      this.#low[path] = isLow ? (this.#low[path] ?? 0) + 1 : 0;
    }
  }

  /** How many groups have collapsed. */
  get collapsed(): number {
    return Object.values(this.#low).filter((steps) => steps >= PATIENCE).length;
  }

  state(): Record<string, number> {
    return { ...this.#low };
  }
}
