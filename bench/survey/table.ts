import { type Column, table } from "../markdown-table.js";
import type { Timing } from "../measure.js";
import type { Survey, SurveyLine } from "./run.js";

function ms(timing: Timing | undefined): string {
  return timing ? `${timing.median.toPrecision(3)}${timing.runs === 1 ? " ¹" : ""}` : "–";
}

function columnsFor(threads: number): Column<SurveyLine>[] {
  const many = threads === 1 ? "all threads" : `${threads} threads`;
  return [
    { title: "operation", cell: ({ operation }) => operation },
    { title: "what", cell: ({ what }) => what },
    { title: "shape", cell: ({ shape }) => shape },
    { title: "dtype", cell: ({ dtype }) => dtype },
    { title: "1 thread, Sync", cell: ({ one }) => (one ? ms(one.sync) : ""), optional: true },
    { title: "1 thread, async", cell: ({ one }) => (one ? ms(one.async) : ""), optional: true },
    { title: `${many}, Sync`, cell: ({ all }) => ms(all.sync) },
    { title: `${many}, async`, cell: ({ all }) => ms(all.async) },
  ];
}

export function surveySection({ lines, notRun }: Survey): string[] {
  const lacking = Object.entries(notRun).map(([operation, cases]) => `${operation} (${cases})`);
  return [
    "## Every operation",
    "",
    "Milliseconds, medians; results are written to memory that is used again. ¹: one run. –: a call takes seconds.",
    "",
    ...(lines.length > 0 ? table(columnsFor(lines[0]?.threads ?? 1), lines) : []),
    "",
    ...(lacking.length > 0 ? [`Not run, for want of operations in the backend: ${lacking.join(", ")}.`, ""] : []),
  ];
}
