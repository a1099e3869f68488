// Whether the tarball of `npm pack` is what it should be, and works where there is neither a compiler nor a network.
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { root, run, say, which } from "./process.mjs";

const EXPECTED = JSON.parse(readFileSync(join(root, "scripts/package-contents.json"), "utf8"));
const bin = (path) => join(root, "node_modules", path);

/** The output of a command; throws with all of it when it fails. */
function outputOf(command, args, options = {}) {
  const { status, signal, stdout, stderr, error } = spawnSync(command, args, { cwd: root, encoding: "utf8", maxBuffer: 2 ** 28, ...options });
  if (status !== 0) throw new Error(`${basename(command)} ${args.join(" ")}: ${error?.message ?? signal ?? status}\n${stdout}\n${stderr}`);
  return stdout;
}

function pack(folder) {
  const [{ filename, files, size, unpackedSize }] = JSON.parse(outputOf("npm", ["pack", "--json", "--pack-destination", folder]));
  return { tarball: join(folder, filename), files, size, unpackedSize };
}

/** "prebuilds/linux-x64/dpo_cpu_v2.so" and the like; JavaScript and its types by their folders, for their list is that of lib. */
function nameOf(path) {
  return /^(dist|node_modules)\//.test(path) ? path.replace(/^(dist|node_modules\/[^/]+)\/.*$/, "$1/") : path;
}

function checkContents({ files, size, unpackedSize }) {
  const names = [...new Set(files.map(({ path }) => nameOf(path)))];
  const missing = EXPECTED.files.filter((name) => !names.includes(name));
  const known = [...EXPECTED.files, ...EXPECTED.optional];
  const unknown = names.filter((name) => !known.includes(name));
  if (missing.length + unknown.length > 0)
    throw new Error(`missing: ${missing.join(", ") || "nothing"}; not on the list: ${unknown.join(", ") || "nothing"}`);
  const sources = readdirSync(join(root, "lib"), { recursive: true }).filter((name) => name.endsWith(".ts"));
  const built = new Set(files.map(({ path }) => path));
  const unbuilt = sources.flatMap((name) => [".js", ".d.ts"].map((end) => `dist/${name.replace(/\.ts$/, end)}`)).filter((path) => !built.has(path));
  if (unbuilt.length > 0) throw new Error(`not in the tarball: ${unbuilt.join(", ")}`);
  const megabytes = (bytes) => (bytes / 2 ** 20).toFixed(1);
  say(`package: ${megabytes(size)} MiB packed, ${megabytes(unpackedSize)} MiB unpacked`);
  if (size > EXPECTED.mostMebibytes * 2 ** 20) throw new Error(`${megabytes(size)} MiB packed; at most ${EXPECTED.mostMebibytes} were expected`);
}

const inOrder = (a, b) => a.localeCompare(b, "en", { numeric: true });

/** The newest version of the C library that any binary asks for. */
function checkGlibc(installed) {
  const folder = join(installed, "prebuilds", `linux-${process.arch}`);
  const versions = readdirSync(folder).flatMap((name) => {
    const symbols = outputOf("objdump", ["-T", join(folder, name)]);
    if (/GLIBCXX_|CXXABI_/.test(symbols)) throw new Error(`${name} wants a C++ library`);
    return [...symbols.matchAll(/GLIBC_([\d.]+)/g)].map(([, version]) => version);
  });
  const newest = versions.sort(inOrder).at(-1);
  say(`package: glibc ${newest} or newer`);
  if (inOrder(newest, EXPECTED.glibc) > 0) throw new Error(`glibc ${newest} is needed; ${EXPECTED.glibc} was expected to be enough`);
}

async function checkManifest(tarball) {
  const { publint } = await import("publint");
  const { formatMessage } = await import("publint/utils");
  const bytes = readFileSync(tarball);
  const { messages, pkg } = await publint({ pack: { tarball: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) } });
  if (messages.length > 0) throw new Error(messages.map((message) => formatMessage(message, pkg)).join("\n"));
}

/** A folder with the package in it, installed with nothing on PATH but node. */
function installIn(folder, tarball) {
  const tools = join(folder, "bin");
  const project = join(folder, "project");
  cpSync(join(root, "test/package"), project, { recursive: true });
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "project", private: true, type: "module" }));
  cpSync(realpathSync(process.execPath), join(tools, "node"));
  symlinkSync(which("sh"), join(tools, "sh"));
  const env = { PATH: tools, HOME: folder, npm_config_registry: "http://127.0.0.1:9/", npm_config_cache: join(folder, "cache") };
  const npm = realpathSync(which("npm"));
  const cli = npm.endsWith(".js") ? npm : join(dirname(npm), "../lib/node_modules/npm/bin/npm-cli.js");
  const args = ["install", "--ignore-scripts", "--offline", "--no-audit", "--no-fund", tarball];
  outputOf(join(tools, "node"), [cli, ...args], { cwd: project, env });
  return {
    project,
    env,
    installed: join(project, "node_modules/dpo-kernels"),
    node: (...script) => outputOf(join(tools, "node"), script, { cwd: project, env }),
  };
}

function checkTypes({ project }, resolution) {
  const options = ["--strict", "--noEmit", "--target", "es2022", "--module", resolution === "bundler" ? "esnext" : resolution];
  // The types of Node itself are the project's to install.
  const types = ["--typeRoots", bin("@types"), "--types", "node"];
  outputOf(process.execPath, [bin("typescript/bin/tsc"), ...options, "--moduleResolution", resolution, ...types, "types.ts"], { cwd: project });
}

async function checkBundle({ project, node }) {
  const { build } = await import("esbuild");
  const outfile = join(project, "bundled.mjs");
  const options = { bundle: true, platform: "node", format: "esm", external: ["dpo-kernels"], logLevel: "silent" };
  await build({ ...options, absWorkingDir: project, entryPoints: ["esm.mjs"], outfile });
  node("bundled.mjs");
}

function checkDoctor({ node }) {
  const { ok, selfTests } = JSON.parse(node("node_modules/dpo-kernels/dist/cli/main.js", "doctor", "--json"));
  if (!ok || selfTests.length === 0) throw new Error("a self-test failed");
}

/** Makes the tarball and runs every check: how many passed and failed. */
export async function checkPackage() {
  const folder = mkdtempSync(join(tmpdir(), "dpo-kernels-package-"));
  const result = { passed: 0, failed: 0, skipped: 0 };
  const check = async (what, body) => {
    try {
      const value = await body();
      result.passed++;
      say(`package: ${what}: ok`);
      return value;
    } catch (error) {
      result.failed++;
      say(`package: ${what}: FAILED: ${error.message}`);
      return undefined;
    }
  };
  try {
    const packed = await check("packs", () => {
      run(process.execPath, ["scripts/prebuild.mjs"]);
      return pack(folder);
    });
    if (packed === undefined) return result;
    await check("contents and size", () => checkContents(packed));
    await check("publint", () => checkManifest(packed.tarball));
    await check("types resolve", () =>
      outputOf(process.execPath, [bin("@arethetypeswrong/cli/dist/index.js"), packed.tarball, "--profile", "esm-only", "--no-definitely-typed"]),
    );
    const place = await check("installs without scripts, compiler and network", () => installIn(folder, packed.tarball));
    if (place === undefined) return result;
    await check("glibc", () => checkGlibc(place.installed));
    for (const program of ["esm.mjs", "require.cjs", "workers.mjs"]) await check(program, () => place.node(program));
    await check("bundled by esbuild", () => checkBundle(place));
    for (const resolution of ["node16", "nodenext", "bundler"]) await check(`types, ${resolution}`, () => checkTypes(place, resolution));
    await check("doctor", () => checkDoctor(place));
    return result;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
