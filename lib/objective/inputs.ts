import { DTypeError, ShapeError } from "../errors.js";
import type { HeadGradients, LinearHead } from "../native/shared-arguments.js";
import { asTensor, checkOut, checkShape, checkUsable, type Tensor, type VectorInput } from "../tensor.js";

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
  const targets = onHost("targets", givenTargets);
  checkUsable(name, values);
  if (shape.length === 3) return paddedRows(values, targets, layout);
  if (shape.length !== 2) throw new ShapeError(`${name}: expected shape [N, width], or [2B, T, width], got [${shape.join(", ")}]`);
  checkShape("targets", targets, shape.slice(0, 1));
  const givenOffsets = layout.offsets ?? other.offsets;
  if (givenOffsets === undefined) throw new ShapeError("offsets: is missing; a packed batch [N, width] needs it");
  return { matrix: values, targets, offsets: onHost("offsets", givenOffsets) };
}

/** A small array that is looked into here. */
function onHost(name: string, value: VectorInput): Tensor {
  const given = asTensor(name, value);
  checkUsable(name, given);
  return given.toSync("cpu");
}

function paddedRows(values: Tensor, targets: Tensor, { offsets }: Partial<TokenLayout>): Rows {
  const [sequences = 0, length = 0, width = 0] = values.shape;
  if (offsets !== undefined) throw new ShapeError("offsets: a padded batch [2B, T, width] has none");
  const rows = sequences * length;
  if (targets.shape.length > 1) checkShape("targets", targets, [sequences, length]);
  else checkShape("targets", targets, [rows]);
  const starts = Int32Array.from({ length: sequences + 1 }, (_, s) => s * length);
  return { matrix: values.reshape([rows, width]), targets: targets.reshape([rows]), offsets: asTensor("offsets", starts) };
}

/** Throws unless these are embeddings of one shape and dtype. */
export function checkEmbeddings(embeddings: Embeddings | undefined): asserts embeddings is Embeddings {
  if (typeof embeddings !== "object" || embeddings === null) throw new ShapeError("embeddings: are missing, and the objective has a kernel");
  const { prompt } = embeddings;
  for (const side of ["prompt", "chosen", "rejected"] as const) {
    const name = `embeddings.${side}`;
    const tensor = asTensor(name, embeddings[side]);
    if (tensor.shape.length !== 2) throw new ShapeError(`${name}: expected a matrix, got shape [${tensor.shape.join(", ")}]`);
    if (tensor.dtype === "i32") throw new DTypeError(`${name}: expected a floating-point tensor, got i32`);
    checkOut(name, tensor, prompt.dtype, prompt.shape);
  }
}
