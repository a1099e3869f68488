import { spawnSync } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The package's folder. */
export const root = fileURLToPath(new URL("../..", import.meta.url));

/** Ends a script with this sentence instead of a stack. */
export class Failure extends Error {}

export function say(line) {
  process.stderr.write(`${line}\n`);
}

/** The file that a command's name stands for, or undefined. */
export function which(name) {
  for (const folder of name.includes("/") ? [""] : (process.env.PATH ?? "").split(delimiter)) {
    const file = join(folder, name);
    try {
      accessSync(file, constants.X_OK);
      if (statSync(file).isFile()) return file;
    } catch {
      // Not there.
    }
  }
  return undefined;
}

/** Runs a command in the package's folder; all that it prints goes to stderr. */
export function run(command, args, env = {}) {
  const ended = spawnSync(command, args, { cwd: root, env: { ...process.env, ...env }, stdio: ["ignore", 2, 2] });
  if (ended.error) throw new Failure(`cannot run ${command}: ${ended.error.message}`);
  if (ended.status !== 0) throw new Failure(`failed (${ended.signal ?? `exit status ${ended.status}`}): ${[command, ...args].join(" ")}`);
}

/** What a command prints on stdout, or undefined when it fails. */
export function output(command, args, input = "") {
  const ended = spawnSync(command, args, { cwd: root, input, encoding: "utf8", stdio: ["pipe", "pipe", "ignore"] });
  return ended.status === 0 ? ended.stdout : undefined;
}

/** The body of a script: a Failure is told as "name: message" and ends the process with status 1. */
export async function script(name, body) {
  try {
    await body();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    say(`${name}: ${error.message}`);
    process.exitCode = 1;
  }
}

/** "3.4 s" since a moment of performance.now(). */
export function seconds(since) {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`;
}
