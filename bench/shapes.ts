/**
 * The shapes that the tests check and the benchmarks time: one list per operation, so that what is timed is also checked. A benchmark's own
 * shape may be too large for a test on float64 arrays; a test's may be too small to time.
 */

export type Use = "test" | "bench" | "both";

export interface Shape {
  readonly name: string;
  readonly use: Use;
}

/** token_log_probs: logits [rows, vocabulary]. */
export interface LogitShape extends Shape {
  readonly rows: number;
  readonly vocabulary: number;
}

/** linear_token_log_probs: hidden [rows, depth], weight [vocabulary, depth]. */
export interface HeadShape extends Shape {
  readonly rows: number;
  readonly depth: number;
  readonly vocabulary: number;
}

/** pair_kernel: u and v [rows, depth]. */
export interface EmbeddingShape extends Shape {
  readonly rows: number;
  readonly depth: number;
}

/** preference: `pairs` pairs; sequence_log_probs: the same with about `tokens` tokens in each sequence. */
export interface PairShape extends Shape {
  readonly pairs: number;
  readonly tokens: number;
}

/** gram, mmd and features: samples [rows, depth]. */
export interface SampleShape extends Shape {
  readonly rows: number;
  readonly depth: number;
}

/** Linear algebra: matrices [size, size], right-hand sides [size, columns]. */
export interface MatrixShape extends Shape {
  readonly size: number;
  readonly columns: number;
}

/** Widths about those of vectors, of panels and of blocks, one less and one more. */
const WIDTHS = [1, 15, 16, 17, 31, 767, 768, 769, 1023, 1024, 1025] as const;

export const LOGIT_SHAPES: readonly LogitShape[] = [
  { name: "LLM-like", rows: 8, vocabulary: 32_000, use: "both" },
  { name: "large vocabulary", rows: 2048, vocabulary: 128_256, use: "bench" },
  { name: "GPT-2", rows: 2048, vocabulary: 50_257, use: "bench" },
  { name: "awkward", rows: 41, vocabulary: 401, use: "both" },
  { name: "one row", rows: 1, vocabulary: 10_007, use: "test" },
  { name: "one row of one", rows: 1, vocabulary: 1, use: "test" },
  ...WIDTHS.map((width): LogitShape => ({ name: "width", rows: 3, vocabulary: width, use: "test" })),
  ...[4095, 4096, 4097].map((width): LogitShape => ({ name: "block of a row", rows: 2, vocabulary: width, use: "test" })),
];

export const HEAD_SHAPES: readonly HeadShape[] = [
  { name: "LLM", rows: 256, depth: 4096, vocabulary: 128_256, use: "bench" },
  { name: "small LLM", rows: 512, depth: 1024, vocabulary: 32_000, use: "bench" },
  { name: "LLM-like", rows: 20, depth: 64, vocabulary: 3001, use: "both" },
  { name: "awkward", rows: 41, depth: 33, vocabulary: 401, use: "both" },
  { name: "one row", rows: 1, depth: 48, vocabulary: 1009, use: "test" },
  { name: "one word", rows: 5, depth: 7, vocabulary: 1, use: "test" },
  { name: "one of each", rows: 1, depth: 1, vocabulary: 1, use: "test" },
  ...WIDTHS.map((width): HeadShape => ({ name: "width", rows: 5, depth: width, vocabulary: 21, use: "test" })),
  ...WIDTHS.slice(1).map((width): HeadShape => ({ name: "vocabulary", rows: 9, depth: 6, vocabulary: width, use: "test" })),
  ...[511, 512, 513, 1025].map((rows): HeadShape => ({ name: "block of rows", rows, depth: 5, vocabulary: 19, use: "test" })),
];

export const EMBEDDING_SHAPES: readonly EmbeddingShape[] = [
  { name: "encoder", rows: 512, depth: 768, use: "bench" },
  { name: "LLM", rows: 512, depth: 4096, use: "bench" },
  { name: "LLM-like", rows: 8, depth: 4096, use: "both" },
  { name: "awkward", rows: 41, depth: 401, use: "both" },
  { name: "one row", rows: 1, depth: 384, use: "test" },
  { name: "one row of one", rows: 1, depth: 1, use: "test" },
  ...WIDTHS.map((width): EmbeddingShape => ({ name: "width", rows: 3, depth: width, use: "test" })),
];

export const PAIR_SHAPES: readonly PairShape[] = [
  { name: "large batch", pairs: 1024, tokens: 512, use: "bench" },
  { name: "batch", pairs: 64, tokens: 200, use: "both" },
  { name: "awkward", pairs: 41, tokens: 31, use: "test" },
  { name: "one pair", pairs: 1, tokens: 9, use: "test" },
  { name: "two pairs", pairs: 2, tokens: 1, use: "test" },
];

export const SAMPLE_SHAPES: readonly SampleShape[] = [
  { name: "encoder", rows: 2048, depth: 768, use: "bench" },
  { name: "small sample", rows: 256, depth: 64, use: "both" },
  { name: "awkward", rows: 41, depth: 33, use: "both" },
];

export const MATRIX_SHAPES: readonly MatrixShape[] = [
  { name: "embedding", size: 768, columns: 128, use: "bench" },
  { name: "landmarks", size: 128, columns: 16, use: "both" },
  { name: "awkward", size: 41, columns: 3, use: "both" },
];

/** The shapes of a list for one use. */
export function shapesFor<S extends Shape>(use: "test" | "bench", shapes: readonly S[]): S[] {
  return shapes.filter((shape) => shape.use === use || shape.use === "both");
}
