import { OutOfRangeError, ShapeError } from "../errors.js";
import { asTensor, resultDType, type Tensor } from "../tensor.js";
import { describe, type Frame } from "./frame.js";

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
    hidden: frame.result("out.hidden", head.hidden.dtype, head.hidden.shape, out.hidden, head.hidden),
    weight: frame.result("out.weight", wide, head.weight.shape, out.weight, head.weight),
  };
  if (head.bias === undefined) frame.absent();
  else grads.bias = frame.result("out.bias", wide, head.bias.shape, out.bias, head.bias);
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

/** The value, if it is finite and greater than 0. */
export function checkPositive(name: string, value: number): number {
  if (Number.isFinite(value) && value > 0) return value;
  throw new OutOfRangeError(`${name}: expected a finite number greater than 0, got ${describe(value)}`);
}
