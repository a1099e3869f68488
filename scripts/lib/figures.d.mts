import type { Results } from "../../bench/report.js";

export function withFigures(page: string, results: Results): string;
export function newestOfCpu(all: readonly Results[]): Results;
