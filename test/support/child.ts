/** Runs a file of support/children, or the package's command, in a Node of its own: what is tested there may crash, or must be set before it starts. */

import { fork } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

export interface Child {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** What it passed to process.send. */
  readonly messages: readonly unknown[];
}

export interface ChildOptions {
  readonly args?: readonly string[];
  /** Added to this process's; undefined takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly flags?: readonly string[];
  readonly timeout?: number;
}

/** Children import the package by its name, as its users do: that is dist, which `npm run build` makes. */
const DIST = new URL("../../dist/index.js", import.meta.url);

export function runChild(file: string, options?: ChildOptions): Promise<Child> {
  return runFile(new URL(`children/${file}`, import.meta.url), options);
}

/** Runs the package's command. */
export function runCommand(args: readonly string[], options?: ChildOptions): Promise<Child> {
  return runFile(new URL("../../dist/cli/main.js", import.meta.url), { ...options, args });
}

function runFile(file: URL, { args = [], env = {}, flags = [], timeout = 45_000 }: ChildOptions = {}): Promise<Child> {
  if (!existsSync(DIST)) throw new Error("dist/index.js is missing: build the package first (npx tsc -p tsconfig.json)");
  const path = fileURLToPath(file);
  const { DPO_KERNELS_BACKEND: _, DPO_KERNELS_THREADS: __, NODE_OPTIONS: ___, ...inherited } = process.env;
  const given = Object.fromEntries(Object.entries({ ...inherited, ...env }).filter(([, value]) => value !== undefined));
  return new Promise((resolve, reject) => {
    const child = fork(path, args, { env: given, execArgv: [...flags], stdio: ["ignore", "pipe", "pipe", "ipc"], timeout });
    const [stdout, stderr, messages]: [string[], string[], unknown[]] = [[], [], []];
    child.stdout?.setEncoding("utf8").on("data", (text: string) => stdout.push(text));
    child.stderr?.setEncoding("utf8").on("data", (text: string) => stderr.push(text));
    child.on("message", (message) => messages.push(message));
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, stdout: stdout.join(""), stderr: stderr.join(""), messages }));
  });
}

/** The same, for a child that must end well: nothing on stdout, nothing on stderr, exit code 0. Gives what it sent. */
export async function resultOfChild<T>(file: string, options?: ChildOptions): Promise<T[]> {
  const { code, signal, stdout, stderr, messages } = await runChild(file, options);
  if (code !== 0 || stdout !== "" || stderr !== "") {
    throw new Error(`${file} ended with ${signal ?? code}\nstdout: ${stdout}\nstderr: ${stderr}`);
  }
  return messages as T[];
}
