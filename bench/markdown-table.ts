/** A column of a table. */
export interface Column<Line> {
  title: string;
  cell(line: Line): string;
  /** Left out where it says nothing. */
  optional?: boolean;
}

export function table<Line>(all: readonly Column<Line>[], lines: readonly Line[]): string[] {
  const columns = all.filter(({ cell, optional }) => !optional || lines.some((line) => cell(line) !== ""));
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [
    row(columns.map(({ title }) => title)),
    `|${"---|".repeat(columns.length)}`,
    ...lines.map((line) => row(columns.map(({ cell }) => cell(line)))),
  ];
}
