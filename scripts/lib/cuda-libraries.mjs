import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./process.mjs";

/** Libraries of CUDA that are opened at run time, by how the names of their functions begin; `header` is what is included of each, `wheel` is NVIDIA's package. */
export const LIBRARIES = [
  { prefix: "cublas", header: "cublas_v2.h", file: "libcublas.so.13", wheel: "nvidia-cublas==13.1.1.3" },
  { prefix: "cusolver", header: "cusolverDn.h", file: "libcusolver.so.12", wheel: "nvidia-cusolver==12.0.4.66" },
];

/** Where fetched headers lie. */
export const HEADERS = join(root, "build/cuda-headers");

/** Names of the functions that native/cuda looks for in a library. */
export function functionsOf({ prefix }) {
  const folder = join(root, "native/cuda");
  const text = readdirSync(folder).map((name) => (/\.(cu|h)$/.test(name) ? readFileSync(join(folder, name), "utf8") : ""));
  return [...text.join("").matchAll(/\bfind\("(\w+)"/g)].map(([, name]) => name).filter((name) => name.startsWith(prefix));
}

/** Puts the wheels of libraries into a folder; throws where they cannot be had. */
export function downloadWheels(python, libraries, folder) {
  const wheels = libraries.map(({ wheel }) => wheel);
  execFileSync(python, ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, ...wheels], {
    stdio: ["ignore", "ignore", "pipe"],
    timeout: 600_000,
  });
}
