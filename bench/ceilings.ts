import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { HeadShape } from "./inputs.js";

/** What the machine can do with nothing around it; milliseconds. See bench/native/ceilings.cc. */
export interface Ceilings {
  threads: number;
  /** One read and one write of rows × vocabulary floats, through the caches. */
  copyMs: number;
  /** The same around the caches. */
  streamedCopyMs: number;
  logitsProductMs: number;
  hiddenProductMs: number;
  weightProductMs: number;
}

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = fileURLToPath(new URL("../build/bench", import.meta.url));

export function buildCeilings(): void {
  execFileSync("cmake", ["-S", root, "-B", folder, "-DDPO_BENCH=ON", "-DCMAKE_BUILD_TYPE=Release"], { stdio: ["ignore", "ignore", "inherit"] });
  execFileSync("cmake", ["--build", folder, "--target", "dpo_ceilings"], { stdio: ["ignore", "ignore", "inherit"] });
}

export function measureCeilings({ rows, depth, vocabulary }: HeadShape, threads: number): Ceilings {
  const args = [rows, depth, vocabulary, threads].map(String);
  return JSON.parse(execFileSync(`${folder}/bench/native/dpo_ceilings`, args, { encoding: "utf8" })) as Ceilings;
}
