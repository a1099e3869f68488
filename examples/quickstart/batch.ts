import { IGNORED_TARGET } from "dpo-kernels";
import type { TextPair } from "./data.js";
import { END, PADDING, type Tokenizer } from "./tokenizer.js";

/** Longest prompt and longest answer, in tokens: a prompt keeps its last ones, an answer its first. */
export const PROMPT_LENGTH = 64;
export const ANSWER_LENGTH = 64;
/** Rows are padded to a multiple of this. */
const STEP = 8;

export interface Sequence {
  readonly ids: readonly number[];
  readonly promptLength: number;
  readonly truncated: boolean;
}

export interface TokenPair {
  readonly chosen: Sequence;
  readonly rejected: Sequence;
}

/** Sequences as one padded block, with a target per position. */
export interface Batch {
  readonly rows: number;
  readonly length: number;
  readonly ids: Int32Array;
  readonly targets: Int32Array;
  readonly offsets: Int32Array;
}

/** The prompt, the answer, and (unless it was cut short) its end. */
function sequence(prompt: readonly number[], answer: readonly number[]): Sequence {
  const truncated = answer.length > ANSWER_LENGTH;
  const ids = [...prompt, ...answer.slice(0, ANSWER_LENGTH), ...(truncated ? [] : [END])];
  return { ids, promptLength: prompt.length, truncated };
}

export function truncatedAnswers({ chosen, rejected }: TokenPair): number {
  return Number(chosen.truncated) + Number(rejected.truncated);
}

export function tokenize(pairs: readonly TextPair[], tokenizer: Tokenizer): TokenPair[] {
  return pairs.map((pair) => {
    const prompt = tokenizer.encode(pair.prompt).slice(-PROMPT_LENGTH);
    const answer = (text: string) => sequence(prompt, tokenizer.encode(` ${text}`));
    return { chosen: answer(pair.chosen), rejected: answer(pair.rejected) };
  });
}

/** Pads to the longest. Position t predicts token t + 1; only tokens of the answer (and its end) count. */
export function pad(sequences: readonly Sequence[]): Batch {
  const longest = Math.max(...sequences.map((one) => one.ids.length));
  const length = Math.ceil(longest / STEP) * STEP;
  const rows = sequences.length;
  const ids = new Int32Array(rows * length).fill(PADDING);
  const targets = new Int32Array(rows * length).fill(IGNORED_TARGET);
  for (const [row, one] of sequences.entries()) {
    ids.set(one.ids, row * length);
    targets.set(one.ids.slice(one.promptLength), row * length + one.promptLength - 1);
  }
  return { rows, length, ids, targets, offsets: Int32Array.from({ length: rows + 1 }, (_, row) => row * length) };
}

/** Chosen sequences first, then rejected, as dpo-kernels wants them. */
export function padPairs(pairs: readonly TokenPair[]): Batch {
  return pad([...pairs.map((pair) => pair.chosen), ...pairs.map((pair) => pair.rejected)]);
}

/**
 * A matrix that averages hidden states: its product with [rows * length, width] gives the mean over each prompt,
 * then over each chosen answer, then over each rejected answer.
 */
export function poolingMatrix(pairs: readonly TokenPair[], length: number): Float32Array {
  const count = pairs.length;
  const columns = 2 * count * length;
  const matrix = new Float32Array(3 * count * columns);
  const average = (row: number, sequenceAt: number, from: number, to: number) => {
    const start = row * columns + sequenceAt * length;
    matrix.fill(1 / (to - from), start + from, start + to);
  };
  for (const [index, { chosen, rejected }] of pairs.entries()) {
    average(index, index, 0, chosen.promptLength);
    average(count + index, index, chosen.promptLength, chosen.ids.length);
    average(2 * count + index, count + index, rejected.promptLength, rejected.ids.length);
  }
  return matrix;
}
