import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { root, say, which } from "./process.mjs";

/** NVIDIA's wheels, of which only the headers are kept; the libraries themselves are opened at run time. */
const WHEELS = ["nvidia-cublas==13.1.1.3"];
const NEEDED = "cublas_v2.h";
const FOLDER = join(root, "build/cuda-headers");

const EXTRACT = `
import glob, os, sys, zipfile
for wheel in glob.glob(sys.argv[1] + "/*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if "/include/" in name and name.endswith((".h", ".hpp")):
                with open(os.path.join(sys.argv[2], os.path.basename(name)), "wb") as file:
                    file.write(archive.read(name))
`;

function toolkitHasHeaders(nvcc) {
  const homes = [process.env.CUDA_HOME, "/usr/local/cuda", join(dirname(nvcc), "..")].filter(Boolean);
  return homes.some((home) => existsSync(join(home, "include", NEEDED)) || existsSync(join(home, "targets/x86_64-linux/include", NEEDED)));
}

/** Where nvcc is there and its toolkit lacks the headers of cuBLAS: fetches them. Without them no CUDA backend is built, which is said, and all else is. */
export function ensureCudaHeaders() {
  const nvcc = which("nvcc");
  if (!nvcc || toolkitHasHeaders(nvcc) || existsSync(join(FOLDER, NEEDED))) return;
  const python = which("python3");
  const advice = `install cuBLAS's headers with the CUDA toolkit, or put ${NEEDED} and what it includes into build/cuda-headers`;
  if (!python) return say(`setup: no CUDA backend: ${NEEDED} is missing, and so is python3 to fetch it; ${advice}`);
  const downloads = mkdtempSync(join(tmpdir(), "dpo-cuda-headers-"));
  try {
    say(`setup: fetching ${WHEELS.join(", ")} for the headers`);
    execFileSync(python, ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", downloads, ...WHEELS], {
      stdio: ["ignore", "ignore", "pipe"],
      timeout: 600_000,
    });
    mkdirSync(FOLDER, { recursive: true });
    execFileSync(python, ["-c", EXTRACT, downloads, FOLDER]);
    if (!existsSync(join(FOLDER, NEEDED))) throw new Error(`${readdirSync(downloads)} has no ${NEEDED}`);
  } catch (error) {
    say(`setup: no CUDA backend: ${NEEDED} could not be fetched (${String(error.message).split("\n")[0]}); ${advice}`);
  } finally {
    rmSync(downloads, { recursive: true, force: true });
  }
}
