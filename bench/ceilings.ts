import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { HeadShape } from "./inputs.js";

/** What the machine can do with nothing around it; milliseconds. See bench/native/ceilings.cc. */
export interface Ceilings {
  threads: number;
  /** One read and one write of rows × vocabulary floats, through the caches. */
  copyMs: number;
  /** The same around the caches. */
  streamedCopyMs: number;
  /** e^x of rows × vocabulary floats in the nearest cache. */
  expMs: number;
  logitsProductMs: number;
  hiddenProductMs: number;
  weightProductMs: number;
}

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = fileURLToPath(new URL("../build/bench", import.meta.url));

export function buildCeilings(): void {
  execFileSync("cmake", ["-S", root, "-B", folder, "-DDPO_BENCH=ON", "-DCMAKE_BUILD_TYPE=Release"], { stdio: ["ignore", "ignore", "inherit"] });
  execFileSync("cmake", ["--build", folder, "--target", "dpo_ceilings"], { stdio: ["ignore", "ignore", "inherit"] });
}

export function measureCeilings({ rows, depth, vocabulary }: HeadShape, threads: number): Ceilings {
  const args = [rows, depth, vocabulary, threads].map(String);
  return JSON.parse(execFileSync(`${folder}/bench/native/dpo_ceilings`, args, { encoding: "utf8" })) as Ceilings;
}

/** The same as rates. */
export interface MachineRates {
  threads: number;
  /** 10⁹ bytes read and written a second. */
  copy: number;
  streamedCopy: number;
  /** 10⁹ operations a second in a matrix product. */
  product: number;
  /** 10⁹ values of e^x a second. */
  exp: number;
}

const BYTES_COPIED = 8;

function ratesOf(shape: HeadShape, threads: number): MachineRates {
  const { copyMs, streamedCopyMs, expMs, logitsProductMs } = measureCeilings(shape, threads);
  const elements = shape.rows * shape.vocabulary;
  // 10⁶ a millisecond are 10⁹ a second.
  const rate = (count: number, ms: number): number => count / ms / 1e6;
  return {
    threads,
    copy: rate(BYTES_COPIED * elements, copyMs),
    streamedCopy: rate(BYTES_COPIED * elements, streamedCopyMs),
    product: rate(2 * elements * shape.depth, logitsProductMs),
    exp: rate(elements, expMs),
  };
}

/** With one thread, and with all. */
export function measureMachine(shape: HeadShape, threads: number): MachineRates[] {
  return [...new Set([1, threads])].map((count) => ratesOf(shape, count));
}
