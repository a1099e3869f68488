// Checks that cuBLAS and cuSOLVER export every function that native/cuda looks for when it runs, which no build tells: fetches NVIDIA's wheels and reads their symbols.
// Does nothing where the tools or the wheels cannot be had.
//   node scripts/check-cuda-symbols.mjs [FOLDER]
//     FOLDER  holds the wheels already
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { downloadWheels, functionsOf, LIBRARIES } from "./lib/cuda-libraries.mjs";
import { Failure, output, say, script, which } from "./lib/process.mjs";

const EXTRACT = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    name = next(name for name in archive.namelist() if name.endswith("/" + sys.argv[2]))
    with archive.open(name) as library, open(sys.argv[3], "wb") as file:
        while part := library.read(1 << 24):
            file.write(part)
`;

/** The wheel file of a library in a folder: "nvidia-cublas==13.1.1.3" is nvidia_cublas-13.1.1.3-….whl. */
function wheelIn(folder, { wheel }) {
  const start = wheel.replaceAll("-", "_").replace("==", "-");
  const found = readdirSync(folder).find((name) => name.startsWith(`${start}-`));
  if (!found) throw new Failure(`${folder} has no wheel of ${wheel}`);
  return join(folder, found);
}

/** What a library exports, without the versions of its symbols. */
function exportsOf(file) {
  const symbols = output("nm", ["-D", "--defined-only", file]);
  if (!symbols) throw new Failure(`nm cannot read ${file}`);
  return new Set(symbols.split("\n").map((line) => line.split(" ").at(-1)?.split("@")[0]));
}

/** Says how many functions of a library are there; those that are not. */
function missingFunctions(library, wheels, python, work) {
  const file = join(work, library.file);
  execFileSync(python, ["-c", EXTRACT, wheelIn(wheels, library), library.file, file]);
  const exported = exportsOf(file);
  const needed = functionsOf(library);
  const missing = needed.filter((name) => !exported.has(name));
  say(`${library.file} of ${library.wheel}: ${needed.length - missing.length} of ${needed.length} functions`);
  return missing;
}

await script("check-cuda-symbols", () => {
  const python = which("python3");
  if (!python || !which("nm")) return say("check-cuda-symbols: skipped: python3 and nm are needed");
  const work = mkdtempSync(join(tmpdir(), "dpo-cuda-symbols-"));
  try {
    const wheels = process.argv[2] ? resolve(process.argv[2]) : work;
    try {
      if (wheels === work) downloadWheels(python, LIBRARIES, work);
    } catch (error) {
      return say(`check-cuda-symbols: skipped: the wheels cannot be fetched: ${String(error.message).split("\n")[0]}`);
    }
    const missing = LIBRARIES.flatMap((library) => missingFunctions(library, wheels, python, work));
    if (missing.length > 0) throw new Failure(`not exported: ${missing.join(", ")}`);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
});
