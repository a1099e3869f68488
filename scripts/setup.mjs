// Makes a checkout ready to use: the tools of the native build, the npm packages, and what has to be built.
// Does nothing, quickly, when all of it is there.
//   node scripts/setup.mjs [--tests] [--levels best|all|LIST]
//     --tests   also GoogleTest, for the C++ tests, and the CUDA backend on the host
//     --levels  as of scripts/build.mjs
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ensureCudaHeaders } from "./lib/cuda-headers.mjs";
import { Failure, root, run, say, script, seconds, which } from "./lib/process.mjs";
import { atLeast, findTools, missingTools } from "./lib/tools.mjs";

const INSTALL_WITH_APT = ["install", "-y", "-q", "--no-install-recommends"];

function readJson(path) {
  return JSON.parse(readFileSync(join(root, path), "utf8"));
}

function checkNode() {
  const wanted = readJson("package.json").engines.node.replace(">=", "");
  if (!atLeast(process.versions.node, wanted)) throw new Failure(`Node.js ${wanted} or newer is needed; this is ${process.versions.node}`);
}

function list(needs) {
  return needs.map((need) => need.what).join(", ");
}

/** What the user has to do about missing tools, in words and as a command where the package manager is known. */
function advice(needs) {
  const packages = (manager) => needs.flatMap((need) => need[manager]).join(" ");
  if (which("apt-get")) return `run:\n  sudo apt-get update && sudo apt-get install -y ${packages("apt")}`;
  if (which("dnf")) return `run:\n  sudo dnf install -y ${packages("dnf")}`;
  return "install what is missing and run this again";
}

function installTools(needs) {
  const aptAsRoot = which("apt-get") && process.getuid?.() === 0;
  if (!aptAsRoot) throw new Failure(`missing: ${list(needs)}; ${advice(needs)}`);
  const packages = needs.flatMap((need) => need.apt);
  say(`setup: installing ${packages.join(" ")} with apt-get`);
  const quiet = { DEBIAN_FRONTEND: "noninteractive" };
  try {
    run("apt-get", ["update", "-q"], quiet);
  } catch (error) {
    say(`setup: ${error.message}; trying with the package lists that are there`);
  }
  run("apt-get", [...INSTALL_WITH_APT, ...packages], quiet);
}

function ensureTools(options) {
  const missing = missingTools(findTools(), options);
  if (missing.length === 0) return;
  installTools(missing);
  const still = missingTools(findTools(), options);
  if (still.length > 0) throw new Failure(`still missing after installing: ${list(still)}; this system's packages are too old`);
}

/** Whether node_modules holds just what package-lock.json asks for, by npm's own record of what it installed. */
function packagesMatchLock() {
  if (!existsSync(join(root, "node_modules/.package-lock.json"))) return false;
  const wanted = readJson("package-lock.json").packages;
  const installed = readJson("node_modules/.package-lock.json").packages;
  const same = ([path, entry]) => entry.version === wanted[path]?.version && entry.integrity === wanted[path]?.integrity;
  return (
    Object.entries(installed).every((entry) => same(entry) && existsSync(join(root, entry[0], "package.json"))) &&
    Object.entries(wanted).every(([path, entry]) => path === "" || path in installed || entry.optional)
  );
}

function ensurePackages() {
  if (packagesMatchLock()) return;
  say("setup: npm ci");
  // No package needs its install script, and npm would not run it everywhere.
  run("npm", ["ci", "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=warn"]);
}

await script("setup", () => {
  const began = performance.now();
  const { values } = parseArgs({ options: { tests: { type: "boolean", default: false }, levels: { type: "string" } } });
  checkNode();
  ensureTools({ tests: values.tests });
  ensurePackages();
  ensureCudaHeaders();
  run(process.execPath, ["scripts/build.mjs", ...(values.levels ? ["--levels", values.levels] : []), ...(values.tests ? ["--tests"] : [])]);
  say(`setup: ready (${seconds(began)})`);
});
