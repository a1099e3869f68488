import { type Divergence, TRANSPORT_METHODS, TRANSPORT_METRICS } from "../divergences/index.js";
import { ShapeError } from "../errors.js";
import { asTensor, resultDType, type Tensor } from "../tensor.js";
import type { Frame } from "./frame.js";

// Groups of arguments that several operations share, in the order of native/addon/shared_arguments.h.

/** What turns raw logits z into the logits of the softmax: z' = softcap·tanh(z/softcap)/temperature. */
export interface LogitOptions {
  /** Default 1. */
  temperature?: number;
  /** Default: none. */
  softcap?: number;
}

export function writeLogitOptions(frame: Frame, { temperature = 1, softcap = 0 }: LogitOptions): void {
  frame.number("temperature", temperature).number("softcap", softcap);
}

/** [rows, columns] of a matrix argument. */
export function matrixShape(name: string, value: Tensor): [number, number] {
  const { shape } = asTensor(name, value);
  const [rows, columns] = shape;
  if (rows === undefined || columns === undefined || shape.length !== 2) {
    throw new ShapeError(`${name}: expected a matrix, got shape [${shape.join(", ")}]`);
  }
  return [rows, columns];
}

export interface TokenLogProbs {
  /** [N], f64 for f64 logits, else f32: z'_target − logsumexp(z'). */
  logProbs: Tensor;
  /** [N] f64: logsumexp(z'); 0 for ignored rows. */
  logSumExp: Tensor;
  /** [N], nats. */
  entropy?: Tensor;
  /** [N]. */
  meanLogit?: Tensor;
}

export interface TokenLogProbsOut {
  out?: { logProbs?: Tensor; logSumExp?: Tensor; entropy?: Tensor; meanLogit?: Tensor };
}

/** Declares the results of a forward pass over `rows` rows, in the order of native/core. */
export function rowResults(
  frame: Frame,
  rows: number,
  dtype: "f32" | "f64",
  wanted: { entropy?: boolean; meanLogit?: boolean },
  out: TokenLogProbsOut["out"] = {},
): TokenLogProbs {
  const result: TokenLogProbs = {
    logProbs: frame.result("out.logProbs", dtype, [rows], out.logProbs),
    logSumExp: frame.result("out.logSumExp", "f64", [rows], out.logSumExp),
  };
  if (wanted.entropy) result.entropy = frame.result("out.entropy", dtype, [rows], out.entropy);
  else frame.absent();
  if (wanted.meanLogit) result.meanLogit = frame.result("out.meanLogit", dtype, [rows], out.meanLogit);
  else frame.absent();
  return result;
}

/** The language-model head applied to hidden states: logits = hidden·weightᵀ + bias. */
export interface LinearHead {
  /** [N, D]. */
  hidden: Tensor;
  /** [V, D]. */
  weight: Tensor;
  /** [V]. */
  bias?: Tensor;
}

export interface HeadGradients {
  hidden: Tensor;
  weight: Tensor;
  bias?: Tensor;
}

/** Leaves room, below 64 MiB, for the buffers of a few threads. */
export const DEFAULT_MEMORY_LIMIT = 56 * 2 ** 20;

/** `owner`: whose head it is, where there are several, for messages. */
export function writeHead(frame: Frame, head: LinearHead, owner?: string): void {
  const name = (part: string) => (owner === undefined ? part : `${owner}.${part}`);
  frame.input(name("hidden"), head.hidden).input(name("weight"), head.weight).optionalInput(name("bias"), head.bias);
}

export function headGradientResults(frame: Frame, head: LinearHead, out: Partial<HeadGradients> = {}): HeadGradients {
  const wide = resultDType(head.hidden.dtype);
  const grads: HeadGradients = {
    hidden: frame.result("out.hidden", head.hidden.dtype, head.hidden.shape, out.hidden),
    weight: frame.result("out.weight", wide, head.weight.shape, out.weight),
  };
  if (head.bias === undefined) frame.absent();
  else grads.bias = frame.result("out.bias", wide, head.bias.shape, out.bias);
  return grads;
}

/** How token log-probabilities become those of sequences. */
export interface SequenceOptions {
  /** "sum" (default) or "mean" over the counted tokens. */
  reduction?: "sum" | "mean";
  /** LD-DPO (arXiv 2409.06411): weight of the tokens past the shorter answer's length; 1 (default) = plain. Goes with "sum". */
  ldAlpha?: number;
}

export function writeSequenceOptions(frame: Frame, { reduction = "sum", ldAlpha = 1 }: SequenceOptions): void {
  frame.code(reduction === "mean").number("ldAlpha", ldAlpha);
}

/** In the order of Divergence in native/math/divergences.h. */
const DIVERGENCE_KINDS = [
  "kl",
  "forward_kl",
  "jeffreys",
  "renyi",
  "bhattacharyya",
  "hellinger",
  "hellinger_root",
  "js",
  "tv",
  "chi2",
  "neyman_chi2",
  "alpha",
  "tsallis",
  "f",
  "wasserstein",
  "transport",
] as const;

function nativeKind(divergence: Divergence): (typeof DIVERGENCE_KINDS)[number] {
  switch (divergence.name) {
    case "f":
      return "generator" in divergence ? divergence.generator : "f";
    case "hellinger":
      return divergence.root ? "hellinger_root" : "hellinger";
    case "wasserstein":
      return "exponent" in divergence ? "wasserstein" : "transport";
    default:
      return divergence.name;
  }
}

function parameterOf(divergence: Divergence): number {
  if ("alpha" in divergence) return divergence.alpha ?? 0;
  if ("beta" in divergence) return divergence.beta ?? 0;
  return "exponent" in divergence ? divergence.exponent : 0;
}

/** A divergence that checkDivergence has let pass, for rows of `vocabulary` words. */
export function writeDivergence(frame: Frame, divergence: Divergence, vocabulary: number): void {
  frame.code(DIVERGENCE_KINDS.indexOf(nativeKind(divergence))).code(parameterOf(divergence));
  const cost = "cost" in divergence ? divergence.cost : undefined;
  const embedded = "embeddings" in divergence ? divergence : undefined;
  frame.optionalInput("cost", cost).optionalInput("embeddings", embedded?.embeddings);
  frame.code(Math.min(embedded?.topK ?? 0, vocabulary)).code(TRANSPORT_METRICS.indexOf(embedded?.metric ?? "euclidean"));
  const transport = "method" in divergence ? divergence : { method: "sinkhorn" as const, epsilon: 1, debias: false, maxIterations: 1, tolerance: 1 };
  frame.code(TRANSPORT_METHODS.indexOf(transport.method)).code(transport.epsilon).code(transport.debias);
  frame.code(transport.maxIterations).code(transport.tolerance);
}
