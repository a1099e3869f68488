import { ShapeError } from "../errors.js";
import type { HeadGradients, LinearHead } from "../native/shared-arguments.js";
import { asTensor, type Tensor, type VectorInput } from "../tensor.js";

/** Sequence log-probabilities that the trainer computed itself. */
export interface SequenceInput {
  /** [2B] f32 f64: chosen sequences, then rejected. */
  logProbs: VectorInput;
  /** [2B]: tokens of each sequence, for the losses that need them. */
  tokenCounts?: VectorInput;
}

/** Where the tokens of a batch stand. */
export interface TokenLayout {
  /** [N], or [2B, T] for padded batches: i32, −100 = not counted. */
  targets: VectorInput;
  /** [2B + 1] i32, for packed batches; padded ones need none. */
  offsets?: VectorInput;
}

/** Logits [N, V], or padded [2B, T, V]. */
export interface LogitsInput extends TokenLayout {
  logits: Tensor;
}

/** Hidden states [N, D], or padded [2B, T, D], and the head that makes logits of them: no logits are held beyond the memory limit. */
export interface HiddenInput extends TokenLayout, LinearHead {}

export type PolicyInput = SequenceInput | LogitsInput | HiddenInput;
/** As the policy; targets and offsets are the policy's where not given. */
export type ReferenceInput =
  | SequenceInput
  | (Omit<LogitsInput, "targets"> & Partial<TokenLayout>)
  | (Omit<HiddenInput, "targets"> & Partial<TokenLayout>);

/** [B, D] each, f32 f64 f16 bf16. */
export interface Embeddings {
  prompt: Tensor;
  chosen: Tensor;
  rejected: Tensor;
}

/** What one step sees. */
export interface ObjectiveInputs {
  policy: PolicyInput;
  /** Not needed by reference-free losses. */
  reference?: ReferenceInput;
  /** Needed when the objective has a kernel. */
  embeddings?: Embeddings;
  /** [B]: weight of each pair; the loss is Σ w·ℓ / B. */
  weights?: VectorInput;
}

/** The policy's gradients, under the names of the inputs that were given, in their shapes. */
export type PolicyGradients = { logProbs: Tensor } | { logits: Tensor } | HeadGradients;

/** Rows of a packed or padded batch as flat tensors. */
export interface Rows {
  /** [N, V] or [N, D]. */
  matrix: Tensor;
  targets: Tensor;
  offsets: Tensor;
}

/** Flattens [2B, T, width] to [2B·T, width] and works out the offsets of padded batches. */
export function rowsOf(name: string, values: Tensor, layout: Partial<TokenLayout>, other: Partial<TokenLayout> = {}): Rows {
  const { shape } = asTensor(name, values);
  const givenTargets = layout.targets ?? other.targets;
  if (givenTargets === undefined) throw new ShapeError("targets: is missing");
  const targets = asTensor("targets", givenTargets);
  const flat = targets.reshape([targets.size]);
  if (shape.length === 3) {
    const [sequences = 0, length = 0, width = 0] = shape;
    if (layout.offsets !== undefined) throw new ShapeError("offsets: a padded batch [2B, T, …] has none");
    return { matrix: values.reshape([sequences * length, width]), targets: flat, offsets: paddedOffsets(sequences, length) };
  }
  const givenOffsets = layout.offsets ?? other.offsets;
  if (givenOffsets === undefined) throw new ShapeError(`offsets: is missing; a packed batch [N, …] needs it`);
  return { matrix: values, targets: flat, offsets: asTensor("offsets", givenOffsets) };
}

function paddedOffsets(sequences: number, length: number): Tensor {
  return asTensor(
    "offsets",
    Int32Array.from({ length: sequences + 1 }, (_, s) => s * length),
  );
}
