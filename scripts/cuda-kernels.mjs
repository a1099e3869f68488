// Writes bench/cuda-kernels.md: registers, shared memory, spills and theoretical occupancy of every kernel of native/cuda on every architecture, as nvcc reports them.
//   node scripts/cuda-kernels.mjs
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failure, root, say, script, which } from "./lib/process.mjs";

/** Threads that a multiprocessor holds, by architecture (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"). */
const RESIDENT_THREADS = { 75: 1024, 80: 2048, 86: 1536, 89: 1536, 90: 2048, 100: 2048, 120: 1536 };
const REGISTERS = 65_536;
const RESIDENT_BLOCKS = { 75: 16, 80: 32, 86: 16, 89: 24, 90: 32, 100: 32, 120: 24 };
/** The largest block that native/cuda launches. */
const THREADS = 256;
const INCLUDES = [".", "native/cuda", "build/cuda-headers"];

/** Warps are given registers in units of 256. */
function occupancy(registers, architecture) {
  const warps = THREADS / 32;
  const ofRegisters = Math.floor(REGISTERS / (Math.ceil((registers * 32) / 256) * 256 * warps));
  const blocks = Math.min(ofRegisters, Math.floor(RESIDENT_THREADS[architecture] / THREADS), RESIDENT_BLOCKS[architecture]);
  return (blocks * THREADS) / RESIDENT_THREADS[architecture];
}

/** What the assembler says of the kernels of one file. */
function report(nvcc, source, folder) {
  const architectures = Object.keys(RESIDENT_THREADS).flatMap((sm) => ["-gencode", `arch=compute_${sm},code=sm_${sm}`]);
  const flags = [
    "-std=c++20",
    "-O3",
    "--expt-relaxed-constexpr",
    ...INCLUDES.map((path) => `-I${path}`),
    '-DDPO_CUDA_NAME="cuda"',
    '-DDPO_CUDA_VARIANT=""',
  ];
  const { status, stderr, stdout } = spawnSync(nvcc, [...flags, ...architectures, "-Xptxas", "-v", "-c", source, "-o", join(folder, "kernels.o")], {
    cwd: root,
    encoding: "utf8",
  });
  if (status !== 0) throw new Failure(`nvcc ${source}: ${stderr}`);
  return `${stdout}${stderr}`;
}

/** Kernels of a report, with what is said of each. */
function kernelsOf(text) {
  const kernels = [];
  let kernel;
  for (const line of text.split("\n")) {
    const entry = /Compiling entry function '(\w+)' for 'sm_(\d+)'/.exec(line);
    if (entry) {
      kernel = { symbol: entry[1], architecture: Number(entry[2]) };
      kernels.push(kernel);
    }
    const frame = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    if (frame && kernel) Object.assign(kernel, { local: Number(frame[1]), spills: Number(frame[2]) + Number(frame[3]) });
    const used = /Used (\d+) registers(?:.*?(\d+) bytes smem)?/.exec(line);
    if (used && kernel) Object.assign(kernel, { registers: Number(used[1]), shared: Number(used[2] ?? 0) });
  }
  return kernels;
}

/** "sum_parts<float, LogitMap<float, false>>" of a symbol. */
function namesOf(symbols) {
  const { stdout } = spawnSync("c++filt", { input: symbols.join("\n"), encoding: "utf8" });
  return stdout
    .trim()
    .split("\n")
    .map((name) =>
      name
        .replace(/^void /, "")
        .replace(/\(anonymous namespace\)::|dpo::cuda::|dpo::math::/g, "")
        .replace(/\((?!bool\)).*$/s, "")
        .replace(/\(bool\)/g, ""),
    );
}

await script("cuda-kernels", () => {
  const nvcc = which("nvcc");
  if (!nvcc) throw new Failure("nvcc is not here");
  const folder = mkdtempSync(join(tmpdir(), "dpo-cuda-kernels-"));
  const sources = readdirSync(join(root, "native/cuda"))
    .filter((name) => name.endsWith(".cu"))
    .map((name) => `native/cuda/${name}`);
  const kernels = sources.flatMap((source) => {
    say(`cuda-kernels: ${source}`);
    return kernelsOf(report(nvcc, source, folder));
  });
  rmSync(folder, { recursive: true });
  const symbols = [...new Set(kernels.map(({ symbol }) => symbol))];
  const names = namesOf(symbols);
  const architectures = Object.keys(RESIDENT_THREADS).map(Number);
  const rows = symbols.map((symbol, at) => {
    const cells = architectures.map((sm) => {
      const kernel = kernels.find((other) => other.symbol === symbol && other.architecture === sm);
      return kernel
        ? `${kernel.registers}, ${Math.round(100 * occupancy(kernel.registers, sm))} %${kernel.spills || kernel.local ? `, ${kernel.spills} B spilled, ${kernel.local} B local` : ""}`
        : "";
    });
    return `| \`${names[at]}\` | ${cells.join(" | ")} |`;
  });
  const worst = kernels.reduce((most, { spills, local }) => Math.max(most, spills + local), 0);
  const text = `# Kernels of the CUDA backend

Registers a thread, and the share of a multiprocessor's threads that blocks of ${THREADS} can fill (registers and threads; shared memory is a few hundred bytes a block), by
architecture. Spilled registers and local memory: ${worst === 0 ? "none anywhere" : "where a cell says so"}. Written by \`node scripts/cuda-kernels.mjs\`.

| kernel | ${architectures.map((sm) => `sm_${sm}`).join(" | ")} |
|---|${architectures.map(() => "---").join("|")}|
${rows.sort().join("\n")}
`;
  writeFileSync(join(root, "bench/cuda-kernels.md"), text);
  say(`cuda-kernels: ${symbols.length} kernels on ${architectures.length} architectures in bench/cuda-kernels.md`);
});
