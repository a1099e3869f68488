import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { join } from "node:path";
import { root } from "./process.mjs";

/** Arguments of cmake --build and of ctest. */
export const PARALLEL = ["--parallel", String(availableParallelism())];

/** What a configured build folder depends on, besides the CMake files. The processor is one, for "best" asks it. */
export function settingsOf({ compiler, cmake, generator }) {
  return [root, `${compiler.path} (${compiler.version})`, `CMake ${cmake.version}`, generator, cpus()[0]?.model];
}

/** Calls `configure` unless that was done for this build folder with the same settings. It starts from nothing. */
export function configureOnce(folder, settings, configure) {
  const record = join(folder, "settings.txt");
  const wanted = `${settings.join("\n")}\n`;
  if (existsSync(record) && readFileSync(record, "utf8") === wanted && existsSync(join(folder, "CMakeCache.txt"))) return;
  // What CMake found before, and modules built for other settings, must not stay; object files may.
  for (const name of ["settings.txt", "CMakeCache.txt", "CMakeFiles", "Release"]) rmSync(join(folder, name), { recursive: true, force: true });
  configure();
  mkdirSync(folder, { recursive: true });
  writeFileSync(record, wanted);
}
