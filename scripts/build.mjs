// Builds the addon and the backends (build/Release; that for CUDA where nvcc is found) and the TypeScript face (dist), each only when its sources changed.
//   node scripts/build.mjs [--levels best|all|LIST] [--tests]
//     --levels  instruction sets of the CPU backend: the best of this machine, all, or a list such as
//               x86-64-v2,x86-64-v3. The environment variable DPO_CPU_LEVELS says the same. Default: best.
//     --tests   also the CUDA backend on the host, which only tests use
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { configureOnce, PARALLEL, settingsOf } from "./lib/cmake.mjs";
import { Failure, root, run, say, script, seconds, which } from "./lib/process.mjs";
import { findTools, missingTools } from "./lib/tools.mjs";

const LEVELS = ["x86-64-v2", "x86-64-v3", "x86-64-v4"];
const inRoot = (path) => join(root, path);

function filesOf(path) {
  if (!statSync(path).isDirectory()) return [path];
  const entries = readdirSync(path, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return entries.map((entry) => join(entry.parentPath, entry.name)).sort();
}

/** A hash of the names and contents of files and folders. */
function fingerprint(paths) {
  const hash = createHash("sha256");
  for (const file of paths.map(inRoot).flatMap(filesOf)) hash.update(`${file}\n`).update(readFileSync(file));
  return hash.digest("hex");
}

/** Calls `build` unless it was done in this state and left `isThere`. A build that fails is done again next time. */
function buildOnce(name, state, isThere, build) {
  const stamp = inRoot(`build/${name}.stamp`);
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === state && isThere()) return;
  const began = performance.now();
  rmSync(stamp, { force: true });
  build();
  mkdirSync(inRoot("build"), { recursive: true });
  writeFileSync(stamp, state);
  say(`build: ${name} done (${seconds(began)})`);
}

function configure({ compiler, generator }, { levels, tests }) {
  const cmakeJs = inRoot("node_modules/cmake-js/bin/cmake-js");
  // Without --cc cmake-js looks for a compiler by itself, under fewer names; there is no C here to compile.
  const tools = ["--generator", generator, "--cxx", compiler.path, "--cc", compiler.path];
  run(process.execPath, [
    cmakeJs,
    "configure",
    "--log-level",
    "warn",
    ...tools,
    `--CDDPO_CPU_LEVELS=${levels}`,
    `--CDDPO_SIMT=${tests ? "ON" : "OFF"}`,
  ]);
}

function nativeIsThere({ tests }) {
  const folder = inRoot("build/Release");
  if (!existsSync(join(folder, "dpo_kernels.node"))) return false;
  const has = (prefix) => readdirSync(folder).some((name) => name.startsWith(prefix));
  return has("dpo_cpu_") && (!tests || process.arch !== "x64" || has("dpo_cuda_sim_"));
}

function buildNative({ levels, tests }) {
  const tools = findTools();
  const missing = missingTools(tools, { tests: false });
  if (missing.length > 0) throw new Failure(`missing: ${missing.map((need) => need.what).join(", ")}; npm run setup says more`);
  const settings = [
    ...settingsOf(tools),
    levels,
    ...(tests ? ["tests"] : []),
    which("nvcc") ?? "no nvcc",
    existsSync(inRoot("build/cuda-headers")) ? "headers" : "",
  ];
  const state = [...settings, fingerprint(["native", "CMakeLists.txt"])].join("\n");
  buildOnce(
    "native",
    state,
    () => nativeIsThere({ tests }),
    () => {
      const { compiler, cmake, generator } = tools;
      say(`build: addon and backends (${levels}) with ${compiler.version}, CMake ${cmake.version}, ${generator}`);
      configureOnce(inRoot("build"), settings, () => configure(tools, { levels, tests }));
      run(cmake.path, ["--build", inRoot("build"), "--config", "Release", ...PARALLEL]);
    },
  );
}

function buildTypeScript() {
  const state = fingerprint(["lib", "tsconfig.json", "node_modules/typescript/package.json"]);
  const isThere = () => existsSync(inRoot("dist/index.js"));
  buildOnce("TypeScript", state, isThere, () => {
    rmSync(inRoot("dist"), { recursive: true, force: true });
    run(process.execPath, [inRoot("node_modules/typescript/bin/tsc"), "-p", "tsconfig.json"]);
  });
}

/** A build for tests serves everything else too: to build without them would take away what they need, and start from nothing. */
function wasBuiltForTests() {
  const settings = inRoot("build/settings.txt");
  return existsSync(settings) && readFileSync(settings, "utf8").split("\n").includes("tests");
}

/** A CMake list of levels, or the word for several. */
function parseLevels(text) {
  const levels = text.split(/[,;]/);
  const known = text === "best" || text === "all" || levels.every((level) => LEVELS.includes(level));
  if (!known) throw new Failure(`levels: expected best, all, or some of ${LEVELS.join(",")}; got ${text}`);
  return levels.join(";");
}

await script("build", () => {
  const { values } = parseArgs({
    options: { levels: { type: "string", default: process.env.DPO_CPU_LEVELS || "best" }, tests: { type: "boolean", default: false } },
  });
  buildNative({ levels: parseLevels(values.levels), tests: values.tests || wasBuiltForTests() });
  buildTypeScript();
});
