import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { downloadWheels, HEADERS, LIBRARIES } from "./cuda-libraries.mjs";
import { say, which } from "./process.mjs";

const EXTRACT = `
import glob, os, sys, zipfile
for wheel in glob.glob(sys.argv[1] + "/*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if "/include/" in name and name.endswith((".h", ".hpp")):
                with open(os.path.join(sys.argv[2], os.path.basename(name)), "wb") as file:
                    file.write(archive.read(name))
`;

/** Libraries whose headers are neither in the toolkit nor fetched yet. */
function librariesWithoutHeader(nvcc) {
  const homes = [process.env.CUDA_HOME, "/usr/local/cuda", join(dirname(nvcc), "..")].filter(Boolean);
  const folders = [HEADERS, ...homes.flatMap((home) => [join(home, "include"), join(home, "targets/x86_64-linux/include")])];
  return LIBRARIES.filter(({ header }) => !folders.some((folder) => existsSync(join(folder, header))));
}

/** Where nvcc is there and its toolkit lacks the headers of cuBLAS or cuSOLVER: fetches them. Without them no CUDA backend is built, which is said, and all else is. */
export function ensureCudaHeaders() {
  const nvcc = which("nvcc");
  const missing = nvcc ? librariesWithoutHeader(nvcc) : [];
  if (missing.length === 0) return;
  const python = which("python3");
  const names = missing.map(({ header }) => header).join(", ");
  const advice = `install the headers of cuBLAS and cuSOLVER with the CUDA toolkit, or put ${names} and what they include into build/cuda-headers`;
  if (!python) return say(`setup: no CUDA backend: missing ${names}, and python3 to fetch them; ${advice}`);
  const downloads = mkdtempSync(join(tmpdir(), "dpo-cuda-headers-"));
  try {
    say(`setup: fetching ${missing.map(({ wheel }) => wheel).join(", ")} for the headers`);
    downloadWheels(python, missing, downloads);
    mkdirSync(HEADERS, { recursive: true });
    // Only headers are kept; the libraries themselves are opened at run time.
    execFileSync(python, ["-c", EXTRACT, downloads, HEADERS]);
    const absent = missing.filter(({ header }) => !existsSync(join(HEADERS, header)));
    if (absent.length > 0) throw new Error(`${readdirSync(downloads)} lack ${absent.map(({ header }) => header).join(", ")}`);
  } catch (error) {
    say(`setup: no CUDA backend: ${names} could not be fetched (${String(error.message).split("\n")[0]}); ${advice}`);
  } finally {
    rmSync(downloads, { recursive: true, force: true });
  }
}
