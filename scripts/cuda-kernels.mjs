// Writes bench/cuda-kernels.md: what the operations of the CUDA backend move between memory and cache, counted on the host, against the least possible; and
// registers, shared memory, local memory, occupancy and 16-byte accesses of every kernel, read from the objects that the build has made.
//   node scripts/cuda-kernels.mjs [--objects FOLDER] [--shape ROWS,COLUMNS]
//     --objects  where the objects of native/cuda are (default: build/native/cuda)
//     --shape    of the logits for which traffic is counted (default: 512,32000, which takes some minutes and is kept until a kernel changes)
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { PARALLEL } from "./lib/cmake.mjs";
import { imagesOf, kernelsOf } from "./lib/fat-binary.mjs";
import { Failure, output, root, run, say, script } from "./lib/process.mjs";
import { wideAccesses } from "./lib/ptx.mjs";

/** What a multiprocessor holds, by architecture (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"). */
const MULTIPROCESSORS = {
  75: { threads: 1024, blocks: 16, shared: 64 },
  80: { threads: 2048, blocks: 32, shared: 164 },
  86: { threads: 1536, blocks: 16, shared: 100 },
  89: { threads: 1536, blocks: 24, shared: 100 },
  90: { threads: 2048, blocks: 32, shared: 228 },
  100: { threads: 2048, blocks: 32, shared: 228 },
  120: { threads: 1536, blocks: 24, shared: 100 },
};
const ARCHITECTURES = Object.keys(MULTIPROCESSORS).map(Number);
const REGISTERS = 65_536;
/** Of a kernel that no counted operation launches. */
const THREADS = 256;
/** Bytes a second that H100 SXM5 really moves. */
const BANDWIDTH = 3.0e12;

/** The share of a multiprocessor's threads that blocks can fill. Warps are given registers in units of 256; the system takes 1 KiB of shared memory a block. */
function occupancy(architecture, { registers, threads, shared }) {
  const holds = MULTIPROCESSORS[architecture];
  const registersOfBlock = Math.ceil((registers * 32) / 256) * 256 * (threads / 32);
  const ofShared = Math.floor((holds.shared * 1024) / (shared + (architecture >= 80 ? 1024 : 0) || 1));
  const blocks = Math.min(Math.floor(REGISTERS / registersOfBlock), Math.floor(holds.threads / threads), holds.blocks, ofShared);
  return (blocks * threads) / holds.threads;
}

/** "sum_parts<float, LogitMap<float, false>>" of a symbol or of what it stands for. */
function readable(name) {
  return name
    .replace(/^void /, "")
    .replace(/\(anonymous namespace\)::|dpo::cuda::|dpo::math::/g, "")
    .replace(/\((?!bool\)).*$/s, "")
    .replace(/\(bool\)/g, "")
    .replace(/ >/g, ">");
}

function namesOf(symbols) {
  const names = output("c++filt", [], symbols.join("\n"))?.trim().split("\n").map(readable);
  if (!names) throw new Failure("c++filt is not here");
  return new Map(symbols.map((symbol, at) => [symbol, names[at]]));
}

/** All kernels by name: their registers, local and shared bytes by architecture, and their 16-byte accesses. */
function kernelsIn(folder) {
  const sources = readdirSync(join(root, "native/cuda")).filter((name) => name.endsWith(".cu"));
  const found = sources.flatMap((source) => {
    const file = join(folder, source.replace(/\.cu$/, ".o"));
    if (!existsSync(file)) {
      say(`cuda-kernels: without ${source}: there is no ${file}; npm run build makes it where nvcc is`);
      return [];
    }
    return imagesOf(readFileSync(file)).flatMap(({ kind, architecture, bytes }) =>
      kind === "elf"
        ? kernelsOf(bytes(), architecture).map((kernel) => ({ ...kernel, architecture }))
        : [...wideAccesses(bytes().toString("latin1"))].map(([symbol, wide]) => ({ symbol, wide })),
    );
  });
  const names = namesOf([...new Set(found.map(({ symbol }) => symbol))]);
  const kernels = new Map();
  for (const { symbol, wide, architecture, ...of } of found) {
    const name = names.get(symbol);
    const kernel = kernels.get(name) ?? kernels.set(name, { name, on: new Map() }).get(name);
    if (wide) kernel.wide = wide;
    else kernel.on.set(architecture, of);
  }
  return kernels;
}

/** Builds the counting program, runs it unless that was done, and returns what it says, kernels by their names. */
function countTraffic(shape) {
  const folder = join(root, "build/bench");
  const program = join(folder, "bench/native/dpo_cuda_traffic");
  run("cmake", ["-S", root, "-B", folder, "-DDPO_BENCH=ON", "-DCMAKE_BUILD_TYPE=Release", "--log-level=WARNING"]);
  run("cmake", ["--build", folder, "--target", "dpo_cuda_traffic", ...PARALLEL]);
  const hash = createHash("sha256").update(readFileSync(program)).digest("hex").slice(0, 16);
  const kept = join(folder, `cuda-traffic-${hash}-${shape.join("-")}.json`);
  if (!existsSync(kept)) {
    say(`cuda-kernels: counting for ${shape.join(" rows of ")} logits`);
    writeFileSync(kept, execFileSync(program, shape, { encoding: "utf8", maxBuffer: 2 ** 26, stdio: ["ignore", "pipe", "inherit"] }));
  }
  const traffic = JSON.parse(readFileSync(kept, "utf8"));
  const names = new Map((output("nm", ["-C", program]) ?? "").split("\n").map((line) => [Number.parseInt(line, 16), readable(line.slice(19))]));
  for (const launch of traffic.cases.flatMap(({ launches }) => launches)) launch.kernel = names.get(Number(launch.kernel)) ?? "a fill";
  return traffic;
}

/** The launches of every kernel: its largest block, and the operation for which it moves the most bytes per element. */
function launchesOf({ cases }) {
  const kernels = new Map();
  for (const { operation, what, elements, launches } of cases) {
    for (const { kernel: name, threads, sharedBytes, read, written } of launches) {
      const most = kernels.get(name) ?? { threads: 0, shared: 0, bytes: -1 };
      const bytes = (read + written) / elements;
      const use = bytes > most.bytes ? { bytes, read: read / elements, written: written / elements, use: `${operation} ${what}` } : {};
      kernels.set(name, { ...most, threads: Math.max(most.threads, threads), shared: Math.max(most.shared, sharedBytes), ...use });
    }
  }
  return kernels;
}

const table = (head, rows) => [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
const bytes = (count) => (Math.round(count * 100) / 100).toString();

function trafficTable({ cases }) {
  const rows = cases.map(({ operation, what, dtype, elements, read, written, leastRead, leastWritten }) => {
    const [moved, least] = [read + written, leastRead + leastWritten];
    const perElement = (counted, atLeast) => `${bytes(counted / elements)} of ${bytes(atLeast / elements)}`;
    return [
      operation,
      what,
      dtype,
      perElement(read, leastRead),
      perElement(written, leastWritten),
      (moved / least).toFixed(3),
      (moved / 2 ** 20).toFixed(1),
      ((moved / BANDWIDTH) * 1e6).toFixed(1),
    ];
  });
  return table(["operation", "", "dtype", "B read per element", "B written", "× least", "MiB", "µs on H100"], rows);
}

function kernelTable(kernels, launches) {
  const rows = [...kernels.values()].map(({ name, on, wide }) => {
    const launch = launches.get(name);
    const { threads = THREADS, shared = 0 } = launch ?? {};
    const cells = ARCHITECTURES.map((architecture) => {
      const of = on.get(architecture);
      if (!of) return "not measured";
      const share = occupancy(architecture, { registers: of.registers, threads, shared: shared + of.shared });
      return `${of.registers}, ${Math.round(100 * share)} %${of.local ? `, ${of.local} B local` : ""}${of.shared ? `, ${of.shared} B static` : ""}`;
    });
    const moved = launch ? `${bytes(launch.read)} + ${bytes(launch.written)} (${launch.use})` : "";
    return [`\`${name}\``, launch ? threads : "", launch ? shared : "", wide ? `${wide.loads}, ${wide.stores}` : "not measured", ...cells, moved];
  });
  const head = ["kernel", "threads", "shared B", "v4", ...ARCHITECTURES.map((architecture) => `sm_${architecture}`), "B read + written"];
  return table(
    head,
    rows.sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

function page(kernels, traffic) {
  const local = [...kernels.values()].some(({ on }) => [...on.values()].some((of) => of.local > 0));
  return `# Kernels of the CUDA backend

Written by \`node scripts/cuda-kernels.mjs\`; nothing here has been measured on a device.

## Memory traffic

Between device memory and the second-level cache, counted while the unchanged kernels ran on the host, in sectors of ${traffic.sector} B, for ${traffic.rows} rows of
${traffic.columns} logits; against the least possible, which is every input read once and every result written once. A sector is counted when it is first touched, and again when
${traffic.cacheShare / 1e6} MB of other sectors have been fetched since by the blocks that are in work at a time (so much of H100's 50 MB is taken to hold what is used again; 132 processors, full of
threads): rows of more bytes than that share holds are counted in every pass. Results are counted when they are first written, memory that a call takes for itself too; uploads and downloads are not.
An element is a logit; of sequence_log_probs a token; of preference a pair. The last column is bytes / ${BANDWIDTH / 1e12} TB/s.

${trafficTable(traffic)}

## Registers and occupancy

Threads and dynamic shared memory as launched above (${THREADS} threads where no operation above launches the kernel); loads and stores of 16 bytes in PTX; by architecture
registers a thread and the share of a multiprocessor's threads that blocks can fill. Registers spilled and local memory: ${local ? "where a cell says so" : "none anywhere (either ends the build)"}. Static shared memory: none but where a cell says so. The last
column is the traffic of the kernel alone, per element, in the operation that moves most by it.

${kernelTable(kernels, launchesOf(traffic))}
`;
}

await script("cuda-kernels", () => {
  const { values } = parseArgs({
    options: { objects: { type: "string", default: join(root, "build/native/cuda") }, shape: { type: "string", default: "512,32000" } },
  });
  const kernels = kernelsIn(values.objects);
  const traffic = countTraffic(values.shape.split(","));
  writeFileSync(join(root, "bench/cuda-kernels.md"), page(kernels, traffic));
  say(`cuda-kernels: ${traffic.cases.length} operations and ${kernels.size} kernels in bench/cuda-kernels.md`);
});
