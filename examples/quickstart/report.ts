import { mkdir, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import Table from "cli-table3";
import { drawCharts } from "./charts.js";
import { type Figures, figures, type Run, remarks } from "./figures.js";

const STYLE = `
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 1120px; margin: 2rem auto; padding: 0 1rem; color: #1d2530; background: #fff; }
  h1 { font-size: 1.6rem; } figcaption { font-weight: 600; } figure { margin: 0; }
  .scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
  th, td { padding: .35rem .9rem; border-bottom: 1px solid #d9dee5; text-align: right; white-space: pre; }
  th:first-child, td:first-child { text-align: left; }
  .charts { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); margin: 2rem 0; }
  svg { width: 100%; height: auto; }
`;

function escapeHtml(text: string): string {
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replace(/[&<>"]/g, (character) => entities[character] ?? character);
}

function row(tag: "td" | "th", cells: readonly string[]): string {
  return `<tr>${cells.map((cell) => `<${tag}>${escapeHtml(cell)}</${tag}>`).join("")}</tr>`;
}

function htmlTable({ head, rows }: Figures): string {
  return `<table><thead>${row("th", head)}</thead><tbody>${rows.map((cells) => row("td", cells)).join("\n")}</tbody></table>`;
}

/** One page with nothing to load: style and drawings are inside. */
export function toHtml(run: Run): string {
  const charts = drawCharts(run.arms).map(({ title, svg }) => `<figure><figcaption>${escapeHtml(title)}</figcaption>${svg}</figure>`);
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>dpo-kernels quickstart</title>
<style>${STYLE}</style>
<h1>DPO, plain and with additions, on ${escapeHtml(basename(run.options.data))}</h1>
<div class="scroll">${htmlTable(figures(run))}</div>
<div class="charts">${charts.join("\n")}</div>
<ul>${remarks(run)
    .map((remark) => `<li>${escapeHtml(remark)}</li>`)
    .join("\n")}</ul>
</html>
`;
}

function toJson(run: Run): string {
  const options = { ...run.options, data: basename(run.options.data), out: undefined };
  return `${JSON.stringify({ ...run, options, problems: Object.fromEntries(run.problems) }, null, 2)}\n`;
}

/** Writes report.html and results.json; returns where they are. */
export async function writeReports(run: Run): Promise<string[]> {
  const { out } = run.options;
  await mkdir(out, { recursive: true });
  const files = [
    { path: join(out, "report.html"), text: toHtml(run) },
    { path: join(out, "results.json"), text: toJson(run) },
  ];
  await Promise.all(files.map(({ path, text }) => writeFile(path, text)));
  return files.map(({ path }) => path);
}

/** The table and the remarks, for the terminal. */
export function print(run: Run, written: readonly string[]): void {
  const { head, rows } = figures(run);
  const table = new Table({
    head: [...head],
    colAligns: head.map((_, index) => (index === 0 ? "left" : "right")),
    style: { head: [], border: [] },
    chars: { mid: "", "left-mid": "", "mid-mid": "", "right-mid": "" },
  });
  table.push(...rows.map((cells) => [...cells]));
  const notes = remarks(run).map((remark) => `- ${remark}`);
  process.stdout.write(`${[table.toString(), ...notes, `Written: ${written.join(", ")}`].join("\n")}\n`);
}
