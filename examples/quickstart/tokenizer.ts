import { encode } from "gpt-tokenizer/encoding/r50k_base";

export const PADDING = 0;
export const UNKNOWN = 1;
/** Ends every answer. */
export const END = 2;
const FIRST_WORD = 3;

/** GPT-2's byte-pair tokens, renumbered so that only the most frequent of the training text remain. */
export class Tokenizer {
  readonly #ids: ReadonlyMap<number, number>;

  constructor(texts: Iterable<string>, most: number) {
    this.#ids = mostFrequent(texts, most - FIRST_WORD);
  }

  get size(): number {
    return this.#ids.size + FIRST_WORD;
  }

  encode(text: string): number[] {
    return encode(text).map((token) => this.#ids.get(token) ?? UNKNOWN);
  }

  /** Share of tokens of these texts that the vocabulary lacks. */
  unknownShare(texts: Iterable<string>): number {
    let all = 0;
    let unknown = 0;
    for (const text of texts) {
      for (const id of this.encode(text)) {
        all++;
        if (id === UNKNOWN) unknown++;
      }
    }
    return all === 0 ? 0 : unknown / all;
  }
}

function mostFrequent(texts: Iterable<string>, most: number): Map<number, number> {
  const counts = new Map<number, number>();
  for (const text of texts) {
    for (const token of encode(text)) counts.set(token, (counts.get(token) ?? 0) + 1);
  }
  const ranked = [...counts].sort(([a, times], [b, otherTimes]) => otherTimes - times || a - b);
  return new Map(ranked.slice(0, most).map(([token], rank) => [token, rank + FIRST_WORD]));
}
