import { MemoryError } from "../errors.js";
import { Frame } from "../native/frame.js";
import type { Steps } from "../native/operation.js";
import {
  DEFAULT_MEMORY_LIMIT,
  type HeadGradients,
  headGradientResults,
  writeHead,
  writeLogitOptions,
  writeSequenceOptions,
} from "../native/shared-arguments.js";
import { lossesOf, type PreferenceLossName, type PreferenceOptions, writePreferenceResults } from "../preference.js";
import { resultDType, type VectorInput } from "../tensor.js";
import { type HiddenInput, type PolicyGradients, rowsOf } from "./inputs.js";
import type { KernelTerm, PolicyStep, PulledBack } from "./parts.js";
import { flatHeadOut, meanLogitsOf, type Sequences, type SourceOptions, shapedHeadGradients } from "./sequence-source.js";

/** Losses in which a pair's gradient depends on other pairs: couples_batch in native/math/preference_losses.h. */
const BATCH_COUPLED: readonly PreferenceLossName[] = ["aot", "aot_unpaired", "bco_pair"];

interface Others {
  reference: Sequences | undefined;
  kernel: KernelTerm | undefined;
  weights: VectorInput | undefined;
}

/**
 * Loss and gradient from hidden × head, pair by pair, each gradient taken while the pair's logits are at hand: three matrix products where values and
 * pull-back apart need four. Undefined when the loss couples pairs or a pair's logits do not fit the memory limit.
 */
export function* fusedStep(
  policy: HiddenInput,
  { reference, kernel, weights }: Others,
  preference: PreferenceOptions,
  options: SourceOptions,
  out: Partial<HeadGradients>,
): Steps<PolicyStep | undefined> {
  if (lossesOf(preference).names.some((name) => BATCH_COUPLED.includes(name))) return undefined;
  const rows = rowsOf("hidden", policy.hidden, policy);
  const head = { ...policy, hidden: rows.matrix };
  const dtype = resultDType(policy.hidden.dtype);
  const sequences = Math.max(1, rows.offsets.size - 1);

  const frame = new Frame("linearPreference");
  writeHead(frame, head);
  frame.input("targets", rows.targets).input("offsets", rows.offsets);
  writeLogitOptions(frame, options);
  writeSequenceOptions(frame, options.ldAlpha === undefined ? {} : { ldAlpha: options.ldAlpha });
  frame.integer("memoryLimit", options.memoryLimit ?? DEFAULT_MEMORY_LIMIT);
  const meanLogit = frame.result("meanLogit", dtype, [rows.targets.size]);
  const logProbs = frame.result("logProbs", dtype, [sequences]);
  frame.optionalInput("reference", reference?.logProbs).optionalInput("logKernel", kernel?.logKernel);
  frame.result("tokenCounts", "f64", [sequences]); // token counts
  frame.optionalInput("weights", weights);
  const read = writePreferenceResults(frame, { ...preference, ...(kernel && { logKernel: kernel.logKernel }) }, logProbs);
  const grads = headGradientResults(frame, head, flatHeadOut(out, policy, rows.matrix.shape));
  try {
    yield frame;
  } catch (error) {
    if (error instanceof MemoryError && error.message.startsWith("memoryLimit")) return undefined;
    throw error;
  }
  return { result: read(), meanLogits: meanLogitsOf(meanLogit, rows), pullBack: already(shapedHeadGradients(grads, policy, out)) };
}

/** Steps of a gradient that has been computed. */
// biome-ignore lint/correctness/useYield: nothing is left to do
function* already(grads: PolicyGradients): Steps<PulledBack> {
  return { grads };
}
