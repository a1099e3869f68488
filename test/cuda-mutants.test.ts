/** That the host execution of the CUDA backend notices mistakes: each of these, put into a copy of it, must make its tests fail. */

import { execFile, execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createRandom } from "./support/random.js";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const COMPILER = process.env.CXX ?? "c++";
const SEED = 7;

interface Mistake {
  readonly what: string;
  readonly from: RegExp;
  readonly to: string;
}

/** Kinds of mistakes; one place of each is chosen by the seed. */
const MISTAKES: readonly Mistake[] = [
  { what: "a removed barrier", from: /__syncthreads\(\);/g, to: "" },
  { what: "a loop one too long", from: /i < (?=packs_end_|end_)/g, to: "i <= " },
  { what: "an index one too high", from: /(?<=\* kPack|packs_end_ \+ thread)(?=;)/g, to: " + 1" },
  { what: "a row that is missed", from: /row >= rows\.count/g, to: "row + 1 >= rows.count" },
  { what: "a swapped leading dimension", from: /row \* rows\.parts\.parts|index \* parts\.columns|row \* rows\.parts\.columns/g, to: "row * 1" },
  {
    what: "a swapped leading dimension of a product",
    from: /(?<=\{gathered_, |\{weight_ \+ begin \* depth_, )depth_|(?<=\{logits_ \+ j, )columns/g,
    to: "count_",
  },
  { what: "an operand that is not transposed", from: /(?<=\{weight_ \+ begin \* depth_, depth_, |\{logits_ \+ j, columns, )true/g, to: "false" },
  { what: "a product that forgets what was there", from: /Accumulate::yes(?= : | \?|\);|,)/g, to: "Accumulate::no" },
  { what: "a block of words that is left out", from: /begin \+= blocks_\.columns/g, to: "begin += 2 * blocks_.columns" },
  { what: "half of a warp left out", from: /kWarpSize \/ 2; lanes > 0/g, to: "kWarpSize / 4; lanes > 0" },
  { what: "a warp left out", from: /warp = 1; warp </g, to: "warp = 2; warp <" },
  { what: "a part left out", from: /part = 1; part </g, to: "part = 2; part <" },
  { what: "a matrix's other triangle", from: /fill_mode\((?:true|a\.lower)\)/g, to: "fill_mode(false)" },
];

interface Mutant {
  readonly title: string;
  readonly file: string;
  readonly text: string;
}

function sourcesOf(folder: string, ending: string): string[] {
  return readdirSync(join(ROOT, folder))
    .filter((name) => name.endsWith(ending))
    .map((name) => `${folder}/${name}`);
}

function mutantOf({ what, from, to }: Mistake, choose: (count: number) => number): Mutant {
  const files = [...sourcesOf("native/cuda", ".cu"), ...sourcesOf("native/cuda", ".h")];
  const places = files.flatMap((file) => {
    const text = readFileSync(join(ROOT, file), "utf8");
    return [...text.matchAll(from)].map(({ index, 0: found }) => ({ file, text, index, found }));
  });
  const place = places[choose(places.length)];
  if (place === undefined) throw new Error(`no place for ${what}`);
  const { file, text, index, found } = place;
  const line = text.slice(0, index).split("\n").length;
  // The variable's name differs from place to place.
  const replacement = to === "row * 1" ? `${found.split(" ")[0]} * 1` : to;
  return { title: `${what}: ${file}:${line}`, file, text: text.slice(0, index) + replacement + text.slice(index + found.length) };
}

/** The sources that a file is part of. */
function sourcesWith(file: string, sources: readonly string[]): string[] {
  const included = (from: string): string[] =>
    [...readFileSync(join(ROOT, from), "utf8").matchAll(/^#include "(native\/cuda\/[^"]+)"/gm)].flatMap(([, name]) => (name ? [name] : []));
  const reaches = (from: string): boolean => from === file || included(from).some(reaches);
  return sources.filter(reaches);
}

/** Calls work(item) for all items, as many at a time as there are processors. */
async function forEachAtOnce<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const queue = items.values();
  const worker = async (): Promise<void> => {
    for (const item of queue) await work(item);
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
}

const random = createRandom(SEED);
const MUTANTS = MISTAKES.map((mistake) => mutantOf(mistake, (count) => random.integer(0, count)));

describe.runIf(process.arch === "x64")("tests of the CUDA backend on the host", () => {
  const folder = mkdtempSync(join(tmpdir(), "dpo-mutants-"));
  const flags = [
    "-std=gnu++20",
    `-I${folder}`,
    "-Inative/simt/include",
    "-Inative/simt",
    '-DDPO_CUDA_NAME="cuda-sim"',
    '-DDPO_CUDA_VARIANT=""',
    "-DDPO_SIMT_ORDER=forward",
  ];
  const compile = (source: string, object: string, optimization = "-O0") =>
    promisify(execFile)(COMPILER, [...flags, optimization, "-Wno-unknown-pragmas", "-xc++", "-c", source, "-o", object], { cwd: folder });
  const objectOf = (source: string): string => join(folder, `${source.replaceAll("/", "_")}.o`);
  const constant = [
    ...sourcesOf("native/simt", ".cc"),
    ...sourcesOf("native/core", ".cc"),
    // That of traffic needs sources compiled in another way.
    ...sourcesOf("test/native", "_test.cc").filter((name) => name.includes("/cuda_") && !name.includes("traffic")),
  ];
  const cuda = sourcesOf("native/cuda", ".cu");

  const mutantObjectOf = (source: string): string => `${objectOf(source)}.mutant.o`;

  /** Whether the tests pass with these sources' mutants. They come first, since of a function in several objects the linker takes the first. */
  const passes = (mutants: readonly string[] = []): boolean => {
    const program = join(folder, "tests");
    const others = [...constant, ...cuda].filter((source) => !mutants.includes(source));
    const objects = [...mutants.map(mutantObjectOf), ...others.map(objectOf)];
    execFileSync(COMPILER, [...objects, "-lgtest", "-lgtest_main", "-lpthread", "-ldl", "-o", program], { cwd: folder, stdio: "pipe" });
    const env = { ...process.env, GTEST_FAIL_FAST: "1" };
    return spawnSync(program, { stdio: "ignore", timeout: 60_000, env }).status === 0;
  };

  /** Whether the tests fail with the mutants of these sources, compiled a few at a time for as long as they pass. */
  const notice = async (sources: readonly string[]): Promise<boolean> => {
    const batch = 2 * availableParallelism();
    for (let end = batch; end - batch < sources.length; end += batch) {
      await forEachAtOnce(sources.slice(end - batch, end), (source) => compile(source, mutantObjectOf(source)));
      if (!passes(sources.slice(0, end))) return true;
    }
    return false;
  };

  beforeAll(async () => {
    for (const part of ["native", "test/native"]) cpSync(join(ROOT, part), join(folder, part), { recursive: true });
    await forEachAtOnce(constant, (source) => compile(source, objectOf(source), "-O1"));
    await forEachAtOnce(cuda, (source) => compile(source, objectOf(source)));
  }, 300_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("pass without a mistake", () => {
    expect(passes()).toBe(true);
  }, 120_000);

  it.each(MUTANTS)(
    "notice $title",
    async ({ file, text }) => {
      const path = join(folder, file);
      const before = readFileSync(path);
      writeFileSync(path, text);
      try {
        expect(await notice(sourcesWith(file, cuda))).toBe(true);
      } finally {
        writeFileSync(path, before);
      }
    },
    180_000,
  );
});
