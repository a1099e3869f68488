import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { createGunzip } from "node:zlib";
import { seeded, shuffled } from "./random.js";

/** One question with a preferred and a less preferred answer. */
export interface TextPair {
  readonly prompt: string;
  readonly chosen: string;
  readonly rejected: string;
  /** Pairs of one group stay on one side of the split. */
  readonly group: string;
}

/** Why lines were left out: how many, and the first few line numbers. */
export type Problems = Map<string, { count: number; lines: number[] }>;

export interface PairFile {
  readonly pairs: TextPair[];
  readonly problems: Problems;
}

const ANSWER = "\n\nAssistant:";
const LINES_SHOWN = 5;

type Outcome = { readonly pair: TextPair } | { readonly problem: string };

/** Prompt up to and including the last "Assistant:", and what follows it. */
function splitDialogue(dialogue: string): { prompt: string; answer: string } | undefined {
  const at = dialogue.lastIndexOf(ANSWER);
  if (at < 0) return undefined;
  const end = at + ANSWER.length;
  return { prompt: dialogue.slice(0, end), answer: dialogue.slice(end).trim() };
}

function parseJson(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

/** One line of an HH-RLHF file; a line that is of no use says why. */
export function parsePair(line: string): Outcome {
  const record = parseJson(line);
  if (record === undefined) return { problem: "not a JSON object" };
  const { chosen: chosenText, rejected: rejectedText, topic } = record;
  if (typeof chosenText !== "string" || typeof rejectedText !== "string") {
    return { problem: "chosen or rejected missing" };
  }
  const chosen = splitDialogue(chosenText);
  const rejected = splitDialogue(rejectedText);
  if (chosen === undefined || rejected === undefined) return { problem: "no assistant turn" };
  if (chosen.prompt !== rejected.prompt) return { problem: "prompts differ" };
  if (chosen.answer === "" || rejected.answer === "") return { problem: "empty answer" };
  if (chosen.answer === rejected.answer) return { problem: "answers identical" };
  const group = typeof topic === "string" ? topic : chosen.prompt;
  return { pair: { prompt: chosen.prompt.trim(), chosen: chosen.answer, rejected: rejected.answer, group } };
}

function note(problems: Problems, problem: string, line: number): void {
  const entry = problems.get(problem) ?? { count: 0, lines: [] };
  entry.count++;
  if (entry.lines.length < LINES_SHOWN) entry.lines.push(line);
  problems.set(problem, entry);
}

/** The lines of a file, unpacked where its name ends in .gz. */
async function* linesOf(file: string): AsyncGenerator<string> {
  const bytes = createReadStream(file);
  const input = file.endsWith(".gz") ? bytes.pipe(createGunzip()) : bytes;
  bytes.on("error", (error) => input.destroy(error));
  try {
    yield* createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
  } catch (error) {
    throw new Error(`cannot read ${file}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  } finally {
    bytes.destroy();
  }
}

/** Reads .jsonl or .jsonl.gz as a stream, up to `limit` usable pairs. */
export async function readPairs(file: string, limit: number): Promise<PairFile> {
  const pairs: TextPair[] = [];
  const problems: Problems = new Map();
  let number = 0;
  for await (const line of linesOf(file)) {
    number++;
    if (line.trim() === "") continue;
    const outcome = parsePair(line);
    if ("problem" in outcome) note(problems, outcome.problem, number);
    else pairs.push(outcome.pair);
    if (pairs.length >= limit) break;
  }
  return { pairs, problems };
}

/** Whole groups go to the held-out side until it has its share, so that no held-out question was trained on. */
export function split(pairs: readonly TextPair[], share: number, most: number, seed: number) {
  const groups = new Map<string, TextPair[]>();
  for (const pair of pairs) groups.set(pair.group, [...(groups.get(pair.group) ?? []), pair]);
  const wanted = Math.min(most, Math.round(pairs.length * share));
  const training: TextPair[] = [];
  const heldOut: TextPair[] = [];
  for (const name of shuffled([...groups.keys()], seeded(seed))) {
    const side = heldOut.length < wanted ? heldOut : training;
    side.push(...(groups.get(name) ?? []));
  }
  return { training, heldOut };
}
