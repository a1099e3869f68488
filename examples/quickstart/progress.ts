import { Presets, SingleBar } from "cli-progress";

/** A bar with the time left, on a terminal; nothing elsewhere. */
export class Progress {
  readonly #bar: SingleBar | undefined;

  constructor(total: number, quiet: boolean) {
    if (quiet || process.stderr.isTTY !== true) return;
    const format = "{phase} |{bar}| {value}/{total}  loss {loss}  {eta_formatted} left";
    this.#bar = new SingleBar({ format, stream: process.stderr, linewrap: true, etaBuffer: 30 }, Presets.shades_classic);
    this.#bar.start(total, 0, { phase: "".padEnd(10), loss: "-" });
  }

  step(phase: string, loss: number): void {
    this.#bar?.increment(1, { phase: phase.padEnd(10), loss: loss.toFixed(3) });
  }

  stop(): void {
    this.#bar?.stop();
  }
}
