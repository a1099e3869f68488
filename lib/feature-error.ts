import { gramSteps } from "./gram.js";
import { float64Rows, spacedRows } from "./kernels/rows.js";
import { compound, type Steps } from "./native/operation.js";
import { matrixShape } from "./native/shared-arguments.js";
import type { NystromFeatures } from "./nystrom.js";
import type { RandomFeatures } from "./random-features.js";
import type { Tensor } from "./tensor.js";

export interface FeatureErrorArgs {
  features: NystromFeatures | RandomFeatures;
  /** [N, D] f32 f64 f16 bf16. */
  x: Tensor;
  /** At most so many evenly spaced rows are looked at. Default 512. */
  rows?: number;
}

/** How far φ(x)·φ(y) is from k(x, y) over pairs of a sample. */
export interface FeatureError {
  /** Root of the mean square over all pairs. */
  rms: number;
  /** Largest over all pairs. */
  max: number;
  /** Frobenius norm of the difference over that of the kernel's matrix. */
  relative: number;
  /** How many rows were looked at. */
  rows: number;
}

function* featureErrorSteps({ features, x, rows = 512 }: FeatureErrorArgs, _: { out?: never }): Steps<FeatureError> {
  const [count] = matrixShape("x", x);
  const sample = float64Rows("x", x, spacedRows(count, rows));
  const exact = yield* gramSteps({ x: sample, kernel: features.kernel, accuracy: "exact" }, {});
  const mapped = features.transformSync(sample);
  return compare(mapped.data as Float64Array, exact.data as Float64Array, sample.shape[0] ?? 0, features.width);
}

function compare(mapped: Float64Array, exact: Float64Array, rows: number, width: number): FeatureError {
  let [squares, max, norm] = [0, 0, 0];
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < rows; j++) {
      let inner = 0;
      for (let k = 0; k < width; k++) inner += (mapped[i * width + k] as number) * (mapped[j * width + k] as number);
      const value = exact[i * rows + j] as number;
      const error = Math.abs(inner - value);
      squares += error * error;
      norm += value * value;
      max = Math.max(max, error);
    }
  }
  return { rms: Math.sqrt(squares) / rows, max, relative: Math.sqrt(squares / norm), rows };
}

const both = compound(featureErrorSteps);
/** What a set of features loses against the kernel that it stands for, on a sample of rows. */
export const featureError = both.async;
/** featureError on this thread. */
export const featureErrorSync = both.sync;
