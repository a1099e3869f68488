import { type DivergenceOptions, divergenceSteps } from "../divergence.js";
import { checkDivergence, type Divergence } from "../divergences/index.js";
import { OutOfRangeError, ShapeError } from "../errors.js";
import { linearDivergenceSteps } from "../linear-divergence.js";
import { describe } from "../native/frame.js";
import type { Steps } from "../native/operation.js";
import type { LinearHead } from "../native/shared-arguments.js";
import { inShape, Tensor } from "../tensor.js";
import { IGNORED_TARGET } from "../token-log-probs.js";
import type { HiddenInput, LogitsInput, PolicyGradients, PolicyInput, Rows } from "./inputs.js";
import type { BatchDivergence, DivergenceTerm, PolicyOut, PulledBack } from "./parts.js";
import {
  flatHeadOut,
  flatLogitsOut,
  isHidden,
  logitOptions,
  memoryOptions,
  pullBackTokens,
  type Sequences,
  type SourceOptions,
  shapedHeadGradients,
  type TokenSource,
} from "./sequence-source.js";

const SIDES = ["chosen", "rejected"] as const;
const OVER = [...SIDES, "both"] as const;

/** The term α·D of an objective with a divergence. */
export interface DivergenceTermOptions {
  /** α. Default 0.05 with a divergence. */
  alpha?: number;
  /** Whose tokens D is the mean over. Default "both": over the tokens of all answers together. */
  over?: (typeof OVER)[number];
  /** α·(D⁺ − D⁻) instead, of the means over the chosen and over the rejected answers' tokens (DETONATE, arXiv 2506.14903). Default false. */
  contrast?: boolean;
}

/** @throws OutOfRangeError for options outside their range, or that do not go together. */
export function checkDivergenceTerm(divergence: Divergence | undefined, { alpha, over = "both", contrast = false }: DivergenceTermOptions): void {
  if (divergence === undefined) {
    if (alpha !== undefined && alpha !== 0) throw new OutOfRangeError("alpha: needs a divergence");
    if (over !== "both" || contrast) throw new OutOfRangeError("over, contrast: need a divergence");
    return;
  }
  checkDivergence(divergence);
  if (!Number.isFinite(alpha)) throw new OutOfRangeError(`alpha: expected a finite number, got ${describe(alpha)}`);
  if (!OVER.includes(over)) throw new OutOfRangeError(`over: unknown name ${describe(over)}; known are ${OVER.join(", ")}`);
  if (typeof contrast !== "boolean") throw new OutOfRangeError(`contrast: expected true or false, got ${describe(contrast)}`);
  if (contrast && over !== "both") throw new OutOfRangeError('contrast: compares both sides, and goes with over: "both" only');
}

/** The rows of the chosen or of the rejected answers, and how many of them count. */
interface Side {
  begin: number;
  end: number;
  count: number;
}

function sideOf({ targets }: Rows, begin: number, end: number): Side {
  let count = 0;
  for (let row = begin; row < end; row++) count += targets.data[row] === IGNORED_TARGET ? 0 : 1;
  return { begin, end, count };
}

/** The sides that D is over, and the weight of each counted token's value in D. */
class TokenWeights {
  readonly #rows: Rows;
  readonly #sides: { name: (typeof SIDES)[number]; side: Side; weight: number }[];

  constructor(rows: Rows, { over = "both", contrast = false }: DivergenceTermOptions) {
    const middle = rows.offsets.data[(rows.offsets.size - 1) / 2] ?? 0;
    const sides = { chosen: sideOf(rows, 0, middle), rejected: sideOf(rows, middle, rows.targets.size) };
    const names = SIDES.filter((name) => over === "both" || over === name);
    const together = names.reduce((sum, name) => sum + sides[name].count, 0);
    this.#rows = rows;
    this.#sides = names.map((name) => {
      const sign = contrast && name === "rejected" ? -1 : 1;
      return { name, side: sides[name], weight: sign / Math.max(1, contrast ? sides[name].count : together) };
    });
  }

  /** The gradient of α·D in the value of each row. */
  upstream(alpha: number): Tensor {
    const upstream = new Float64Array(this.#rows.targets.size);
    for (const { side, weight } of this.#sides) upstream.fill(alpha * weight, side.begin, side.end);
    return new Tensor(upstream, [upstream.length], "f64");
  }

  reduce(values: Tensor): BatchDivergence {
    let value = 0;
    const metrics: Record<string, number> = {};
    for (const { name, side, weight } of this.#sides) {
      let sum = 0;
      for (let row = side.begin; row < side.end; row++) sum += values.data[row] ?? 0;
      metrics[`divergence/${name}`] = sum / Math.max(1, side.count);
      value += weight * sum;
    }
    return { value, metrics: { divergence: value, ...metrics } };
  }
}

/** What a term is made of: both sides as they were read, and the objective's options. */
interface TermInputs {
  policy: PolicyInput;
  sequences: Sequences;
  reference: Sequences | undefined;
  divergence: Divergence;
  options: SourceOptions & DivergenceTermOptions;
}

/**
 * α·D of a batch. Its gradient comes with that of the preference loss from one reading of the logits.
 * @throws ShapeError unless policy and reference have token distributions, both from logits or both from heads, of as many tokens.
 */
export function divergenceTerm({ policy, sequences, reference, divergence, options }: TermInputs): DivergenceTerm {
  const pair = sourcesOf(sequences, reference);
  const { rows } = pair.policy;
  const weights = new TokenWeights(rows, options);
  const shared = { kind: divergence, targets: rows.targets, ...logitOptions(options) };
  const compute = (upstreams: Partial<Upstreams>, out: PolicyOut) =>
    isHidden(policy)
      ? ofHeads(policy, pair, { ...shared, ...memoryOptions(options), ...upstreams }, out)
      : ofLogits(policy as LogitsInput, pair, { ...shared, ...upstreams }, out);
  return {
    *evaluate() {
      const { values } = yield* compute({}, {});
      return weights.reduce(values);
    },
    *pullBack(upstream, out): Steps<PulledBack> {
      const targetUpstream = yield* pullBackTokens(upstream, rows, options);
      const { values, grads } = yield* compute({ upstream: weights.upstream(options.alpha ?? 0), targetUpstream }, out);
      return { grads: grads as PolicyGradients, divergence: weights.reduce(values) };
    },
  };
}

interface Upstreams {
  upstream: Tensor;
  targetUpstream: Tensor;
}

interface SourcePair {
  policy: TokenSource;
  reference: TokenSource;
}

/** The value of every row, and the policy's gradients when upstreams are given. */
interface RowDivergences {
  values: Tensor;
  grads?: PolicyGradients;
}

function* ofLogits(input: LogitsInput, pair: SourcePair, options: DivergenceOptions, out: PolicyOut): Steps<RowDivergences> {
  const { logits } = flatLogitsOut(out, input, pair.policy.rows);
  const args = { ...options, policy: pair.policy.rows.matrix, reference: pair.reference.rows.matrix };
  const { values, gradPolicy } = yield* divergenceSteps(args, { out: logits ? { gradPolicy: logits } : {} });
  return { values, ...(gradPolicy && { grads: { logits: out.logits ?? inShape(gradPolicy, input.logits.shape) } }) };
}

function* ofHeads(input: HiddenInput, pair: SourcePair, options: DivergenceOptions, out: PolicyOut): Steps<RowDivergences> {
  const args = { ...options, policy: pair.policy.head as LinearHead, reference: pair.reference.head as LinearHead };
  const { values, grads } = yield* linearDivergenceSteps(args, { out: flatHeadOut(out, input, pair.policy.rows.matrix.shape) });
  return { values, ...(grads && { grads: shapedHeadGradients(grads, input, out) }) };
}

function sourcesOf({ tokens: policy }: Sequences, sequences: Sequences | undefined): SourcePair {
  if (sequences === undefined) throw new ShapeError("reference: is missing, and the objective has a divergence");
  const reference = sequences.tokens;
  if (policy === undefined || reference === undefined || (policy.head === undefined) !== (reference.head === undefined)) {
    throw new ShapeError("policy, reference: a divergence needs { logits, targets } of both or { hidden, weight, targets } of both");
  }
  checkAlignment(policy.rows, reference.rows);
  return { policy, reference };
}

/** Row i of the reference must stand for the same token as row i of the policy. */
function checkAlignment(policy: Rows, reference: Rows): void {
  if (policy.targets.size !== reference.targets.size) {
    throw new ShapeError(`reference: expected ${policy.targets.size} tokens as the policy has, got ${reference.targets.size}`);
  }
  const expected = policy.targets.data;
  const index = reference.targets.data.findIndex((target: number, row: number) => target !== expected[row]);
  if (index >= 0) throw new OutOfRangeError(`reference.targets: element ${index} differs from the policy's`, { index });
}
