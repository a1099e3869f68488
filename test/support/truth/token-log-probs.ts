/**
 * Reference for token_log_probs: log p(target) of rows of logits, p = softmax of z.
 * z = softcap·tanh(logit/softcap)/temperature. A row whose target is ignored gives 0 everywhere.
 */

import { remembered } from "../remember.js";
import { at, dot, IGNORED_TARGET, logSumExp, type Numbers, requireLength, row } from "./numbers.js";

export interface LogitOptions {
  readonly temperature?: number | undefined;
  readonly softcap?: number | undefined;
}

export interface TokenLogProbsInputs extends LogitOptions {
  /** [N, V]; N is the number of targets. */
  readonly logits: Numbers;
  readonly targets: Numbers;
}

export interface TokenLogProbs {
  readonly logProbs: Float64Array;
  /** Of z, that is after softcap and temperature. */
  readonly logSumExp: Float64Array;
  readonly entropy: Float64Array;
}

export interface TokenLogProbsVjp {
  readonly logits: Float64Array;
  /** Σ|terms| of each gradient, for the bound of SPEC 9. */
  readonly termSums: { readonly logits: Float64Array };
}

export const tokenLogProbs = remembered(tokenLogProbsOf);

function tokenLogProbsOf({ logits, targets, ...options }: TokenLogProbsInputs): TokenLogProbs {
  const rows = targets.length;
  const width = widthOf(logits, rows);
  const result = {
    logProbs: new Float64Array(rows),
    logSumExp: new Float64Array(rows),
    entropy: new Float64Array(rows),
  };
  for (let n = 0; n < rows; n++) {
    const target = at(targets, n);
    if (target === IGNORED_TARGET) continue;
    const z = row(logits, n, width).map((logit) => transformed(logit, options));
    const total = logSumExp(z);
    const logP = relativeToTotal(z);
    result.logSumExp[n] = total;
    result.logProbs[n] = at(logP, target);
    result.entropy[n] = -logP.reduce((expected, lp) => expected + (lp === -Infinity ? 0 : Math.exp(lp) * lp), 0);
  }
  return result;
}

export interface TokenLogProbsVjpInputs extends TokenLogProbsInputs {
  /** [N] */
  readonly upstream: Numbers;
  /** [N, V] Σ|terms| of each logit, where the logits were themselves computed. */
  readonly logitTerms?: Numbers | undefined;
}

/** The gradient of Σ upstream·logProbs. */
export const tokenLogProbsVjp = remembered(tokenLogProbsVjpOf);

function tokenLogProbsVjpOf({ logits, targets, upstream, logitTerms, ...options }: TokenLogProbsVjpInputs): TokenLogProbsVjp {
  const rows = targets.length;
  const width = widthOf(logits, rows);
  requireLength(upstream, rows, "upstream");
  const gradient = new Float64Array(rows * width);
  const terms = new Float64Array(rows * width);
  for (let n = 0; n < rows; n++) {
    const target = at(targets, n);
    if (target === IGNORED_TARGET) continue;
    const g = at(upstream, n);
    const raw = row(logits, n, width);
    const z = raw.map((logit) => transformed(logit, options));
    const logP = relativeToTotal(z);
    const p = logP.map(Math.exp);
    // p = exp(z − L) is as uncertain as its exponent: log p itself is rounded, and so is a z that was computed.
    const exponentTerms = z.map((zj, j) => {
      if (at(p, j) === 0) return 0;
      const ofLogit = logitTerms === undefined ? 0 : at(logitTerms, n * width + j) / (options.temperature ?? 1);
      return Math.abs(at(logP, j)) + (options.softcap === undefined ? 0 : Math.abs(zj)) + ofLogit;
    });
    const ofTotal = dot(p, exponentTerms);
    for (let j = 0; j < width; j++) {
      const hit = j === target ? 1 : 0;
      const { slope, slopeTerms } = transformSlope(at(raw, j), options);
      const pTerms = at(p, j) * (1 + at(exponentTerms, j) + ofTotal);
      gradient[n * width + j] = g * (hit - at(p, j)) * slope;
      terms[n * width + j] = Math.abs(g) * (hit + pTerms) * slopeTerms;
    }
  }
  return { logits: gradient, termSums: { logits: terms } };
}

function widthOf(logits: Numbers, rows: number): number {
  if (rows === 0) return 0;
  const width = logits.length / rows;
  if (!Number.isInteger(width)) throw new RangeError(`${logits.length} logits do not divide into ${rows} rows`);
  return width;
}

function transformed(logit: number, { softcap, temperature = 1 }: LogitOptions): number {
  return (softcap === undefined ? logit : softcap * Math.tanh(logit / softcap)) / temperature;
}

/** dz/dlogit = (1 − tanh²)/temperature. */
function transformSlope(logit: number, { softcap, temperature = 1 }: LogitOptions): { slope: number; slopeTerms: number } {
  if (softcap === undefined) return { slope: 1 / temperature, slopeTerms: 1 / temperature };
  const squared = Math.tanh(logit / softcap) ** 2;
  return { slope: 1 / Math.cosh(logit / softcap) ** 2 / temperature, slopeTerms: (1 + squared) / temperature };
}

/** z − logsumexp z, the largest taken off first so that a large shift of z costs no digits. */
function relativeToTotal(z: Float64Array): Float64Array {
  const largest = z.reduce((most, value) => Math.max(most, value), -Infinity);
  const centred = z.map((value) => value - largest);
  const total = logSumExp(centred);
  return centred.map((value) => value - total);
}
