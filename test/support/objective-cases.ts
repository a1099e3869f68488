/** What the objective's tests share: a batch in every form that it takes, steps against the reference, and the native calls that they make. */

import {
  type Embeddings,
  type Evaluation,
  type HiddenInput,
  IGNORED_TARGET,
  type LogitsInput,
  type ObjectiveInputs,
  type Step,
  type Tensor,
  tensor,
} from "dpo-kernels";
import { expect, vi } from "vitest";
import { addon } from "../../lib/native/addon.js";
import { expectGradient, expectValue } from "./bounds.js";
import { expectGradientOf, expectValuesOf, tensorOf } from "./cases.js";
import { createRandom, type Random } from "./random.js";
import type { Storage } from "./storage.js";
import { floats, integers } from "./tensors.js";
import type { Gradient, ObjectiveTruth } from "./truth/objective.js";

/** Less than any pair's logits take, so that hidden states go in passes and not pair by pair. */
export const IN_PASSES = 64;

export interface BatchShape {
  readonly storage?: Storage;
  /** Tokens of each sequence, chosen first. */
  readonly lengths?: readonly number[];
  readonly words?: number;
  readonly width?: number;
  readonly seed?: number;
  /** Of how many tokens one is ignored; 0: none. */
  readonly ignoreEvery?: number;
}

const LENGTHS = [3, 5, 2, 4, 1, 4];

/** A batch in every form that the objective takes. */
export interface Batch {
  readonly logProbs: { logProbs: Tensor; tokenCounts: Tensor };
  readonly logits: LogitsInput;
  readonly padded: LogitsInput;
  readonly hidden: HiddenInput;
  readonly paddedHidden: HiddenInput;
  readonly reference: { logProbs: Tensor };
  readonly embeddings: Embeddings;
  readonly weights: Tensor;
  readonly random: Random;
}

export function batchOf({ storage = "f32", lengths = LENGTHS, words = 13, width = 7, seed = 1, ignoreEvery = 4 }: BatchShape = {}): Batch {
  const random = createRandom(seed);
  const sequences = lengths.length;
  const rows = lengths.reduce((sum, length) => sum + length, 0);
  const longest = Math.max(...lengths);
  const target = (i: number) => (ignoreEvery > 0 && i % ignoreEvery === 1 ? IGNORED_TARGET : random.integer(0, words));
  const targets = Array.from({ length: rows }, (_, i) => target(i));
  const offsets = [0, ...lengths.map((_, s) => lengths.slice(0, s + 1).reduce((sum, length) => sum + length, 0))];
  const paddedTargets = lengths.flatMap((length) =>
    Array.from({ length: longest }, (_, t) => (t < length ? random.integer(0, words) : IGNORED_TARGET)),
  );
  const wide = storage === "f64" ? "f64" : "f32";
  const head = { weight: floats(random, [words, width], storage, -1, 1), bias: floats(random, [words], storage, -1, 1) };
  const layout = { targets: integers(targets), offsets: integers(offsets) };
  const paddedLayout = { targets: integers(paddedTargets, [sequences, longest]) };
  const normals = (...shape: number[]) => tensorOf(random.normals(shape.reduce((a, b) => a * b)), shape, storage);
  return {
    logProbs: {
      logProbs: floats(random, [sequences], wide, -12, -2),
      tokenCounts: tensor(Float64Array.from(lengths), [sequences]),
    },
    logits: { logits: normals(rows, words), ...layout },
    padded: { logits: normals(sequences, longest, words), ...paddedLayout },
    hidden: { hidden: normals(rows, width), ...head, ...layout },
    paddedHidden: { hidden: normals(sequences, longest, width), ...head, ...paddedLayout },
    reference: { logProbs: floats(random, [sequences], wide, -12, -2) },
    embeddings: { prompt: normals(sequences / 2, width), chosen: normals(sequences / 2, width), rejected: normals(sequences / 2, width) },
    weights: floats(random, [sequences / 2], "f64", 0.25, 2),
    random,
  };
}

export const FORMS = ["logProbs", "logits", "padded", "hidden", "paddedHidden"] as const;
export type Form = (typeof FORMS)[number];

/** All that a step can be given, with the policy in one form. */
export function inputsOf(batch: Batch, form: Form): ObjectiveInputs & { embeddings: Embeddings } {
  const { reference, embeddings, weights } = batch;
  return { policy: batch[form], reference, embeddings, weights };
}

export function expectGradients(actual: Readonly<Record<string, Tensor>>, truth: Readonly<Record<string, Gradient>>, label: string): void {
  expect(Object.keys(actual).sort()).toEqual(Object.keys(truth).sort());
  for (const [name, { values, termSums }] of Object.entries(truth)) {
    const gradient = actual[name] as Tensor;
    // SPEC 9 says nothing of f64. Whole gradients have most of its digits; single elements also carry what the rewards' sums cancel.
    if (gradient.dtype === "f64") expectGradient(gradient.data, values, { termSums, nmse: 1e-24, label: `${label}${name}` });
    else expectGradientOf(gradient, values, termSums, `${label}${name}`);
  }
}

export function expectEvaluation(actual: Evaluation, truth: ObjectiveTruth, storage: Storage, label: string): void {
  expectValue(actual.loss, truth.loss, { label: `${label}loss` });
  expectValuesOf(actual.losses, truth.losses, storage, `${label}losses`);
  expectValuesOf(actual.rewards, truth.rewards, storage, `${label}rewards`);
  expect(Object.keys(actual.metrics).sort()).toEqual(Object.keys(truth.metrics).sort());
  for (const [name, value] of Object.entries(truth.metrics)) expectValue(actual.metrics[name] ?? Number.NaN, value, { label: `${label}${name}` });
}

export function expectStep(actual: Step, truth: ObjectiveTruth, storage: Storage, label = ""): void {
  expectEvaluation(actual, truth, storage, label);
  expectGradients(policyGradients(actual), truth.policy, label);
  expectGradients({ ...actual.grads.embeddings }, truth.embeddings, label);
  // Kept in f64, but with what the embeddings' and the rewards' types leave.
  const { sigma } = truth.kernel;
  if (sigma !== undefined) expectGradient(actual.grads.kernel?.sigma?.data ?? [], sigma.values, { termSums: sigma.termSums, label: `${label}sigma` });
}

/** The policy's gradients, whichever they are. */
export function policyGradients(step: Step): Record<string, Tensor> {
  return { ...step.grads.policy };
}

/** The names of the native operations that a call runs. */
export function operationsOf(call: () => unknown): string[] {
  const run = vi.spyOn(addon, "run");
  try {
    call();
    return run.mock.calls.map(([operation]) => addon.operations[operation] ?? "");
  } finally {
    run.mockRestore();
  }
}
