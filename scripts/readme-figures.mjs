// Writes the figures of README.md, which stand between <!-- bench:NAME --> and <!-- /bench -->, from saved results of the benchmarks.
//   node scripts/readme-figures.mjs [--from FILE] [--check]
//     --from   the results (default: the newest whole run of the CPU backend in bench/results)
//     --check  write nothing; fail where README.md says something else
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { newestOfCpu, withFigures } from "./lib/figures.mjs";
import { Failure, root, say, script } from "./lib/process.mjs";

function readResults(file) {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw new Failure(`${file}: ${error.message}`);
  }
}

function newest() {
  const folder = join(root, "bench/results");
  const files = readdirSync(folder).filter((name) => name.endsWith(".json"));
  return newestOfCpu(files.sort().map((name) => readResults(join(folder, name))));
}

await script("readme-figures", () => {
  const { values } = parseArgs({ options: { from: { type: "string" }, check: { type: "boolean", default: false } } });
  const readme = join(root, "README.md");
  const page = readFileSync(readme, "utf8");
  const filled = withFigures(page, values.from ? readResults(values.from) : newest());
  if (filled === page) return say("readme-figures: README.md says what the results say");
  if (values.check) throw new Failure("README.md does not say what the results say; run: node scripts/readme-figures.mjs");
  writeFileSync(readme, filled);
  say("readme-figures: README.md written");
});
