import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import type { Results, Row } from "../bench/report.js";
import { newestOfCpu, withFigures } from "../scripts/lib/figures.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = `${root}/bench/results`;
const saved = readdirSync(folder)
  .filter((name) => name.endsWith(".json"))
  .sort()
  .map((name) => JSON.parse(readFileSync(`${folder}/${name}`, "utf8")) as Results);
const newest = newestOfCpu(saved);
const MARKED = "before <!-- bench:table --> old <!-- /bench --> after <!-- bench:memory-of-heads -->1<!-- /bench -->.";

describe("figures of README", () => {
  it("are those of the newest saved results", () => {
    const readme = readFileSync(`${root}/README.md`, "utf8");
    expect(withFigures(readme, newest)).toBe(readme);
  });

  it("replace what stands between markers, and nothing else", () => {
    const page = withFigures(MARKED, newest);
    expect(page).toMatch(
      /^before <!-- bench:table -->\n\n\| \| ms \|.*\|\n\n<!-- \/bench --> after <!-- bench:memory-of-heads -->\d+ MiB<!-- \/bench -->\.$/s,
    );
    expect(withFigures(page, newest)).toBe(page);
  });

  it("name each peer", () => {
    const time = (median: number) => ({ median, q20: median, q80: median });
    const peers = { "PyTorch eager (holds all logits)": time(217.3), "plain TypeScript": time(1234), "TensorFlow.js wasm": time(8.84) };
    const rows = newest.rows.map((row): Row => (row.what.includes("two samples") ? { ...row, peers } : row));
    expect(withFigures(MARKED, { ...newest, rows })).toContain("| 217 ms; plain loop 1,230 ms; TensorFlow.js 8.8 ms, holding all logits |");
  });

  it("are refused where a marker is unknown or has no end, or the results lack a row", () => {
    expect(() => withFigures("<!-- bench:speed -->1<!-- /bench -->", newest)).toThrow("no figure is called speed: there are table, ");
    expect(() => withFigures("<!-- bench:table -->1", newest)).toThrow("1 figures begin with <!-- bench:NAME -->, 0 of them end");
    expect(() => withFigures(MARKED, { ...newest, rows: [] })).toThrow('no row "tokenLogProbs: [512, 32000] f32, value + pull-back"');
  });

  it("come from the CPU backend and a whole run, the latest date first", () => {
    const [partial, a, b, c] = [
      { ...newest, date: "2026-12-01", rows: newest.rows.filter(({ operation }) => operation !== "pairKernel") },
      { ...newest, date: "2026-12-01", machine: { backend: "cuda" } },
      { ...newest, date: "2026-11-30" },
      { ...newest, date: "2026-01-01" },
    ];
    expect(newestOfCpu([partial, a, b, c])).toBe(b);
    expect(() => newestOfCpu([a])).toThrow("no results of the CPU backend");
  });
});
