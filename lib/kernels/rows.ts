import { DTypeError, NonFiniteError, OutOfRangeError, ShapeError } from "../errors.js";
import { matrixShape } from "../native/shared-arguments.js";
import { checkUsable, float64Values, Tensor } from "../tensor.js";

/** Rows of a matrix of any floating-point dtype, in f64. */
export function float64Rows(name: string, matrix: Tensor, rows: ArrayLike<number>): Tensor<"f64"> {
  const [, width] = matrixShape(name, matrix);
  checkUsable(name, matrix);
  if (matrix.dtype === "i32") throw new DTypeError(`${name}: expected a floating-point tensor, got i32`);
  const values = new Float64Array(rows.length * width);
  Array.from(rows).forEach((row, at) => {
    values.set(float64Values(matrix.dtype, matrix.rows(row, row + 1).readSync()), at * width);
  });
  const index = values.findIndex((value) => !Number.isFinite(value));
  if (index >= 0) {
    const element = (rows[Math.floor(index / width)] ?? 0) * width + (index % width);
    throw new NonFiniteError(`${name}: element ${element} is not finite`, { index: element });
  }
  return new Tensor(values, [rows.length, width], "f64");
}

/** 0, 1, …, or `most` of them evenly spaced. */
export function spacedRows(count: number, most: number): Int32Array {
  const taken = Math.min(count, most);
  return Int32Array.from({ length: taken }, (_, i) => Math.floor((i * count) / taken));
}

/** The rows divided by their lengths. `places`: where they stand in the argument that messages name. */
export function unitRows(name: string, rows: Tensor<"f64">, places?: ArrayLike<number>): Tensor<"f64"> {
  const [count = 0, width = 0] = rows.shape;
  const values = Float64Array.from(rows.data);
  for (let i = 0; i < count; i++) {
    const row = values.subarray(i * width, (i + 1) * width);
    const norm = Math.hypot(...row);
    if (norm === 0) {
      const place = places?.[i] ?? i;
      throw new OutOfRangeError(`${name}: row ${place}${places ? "" : " of those looked at"} is zero and cannot be normalised`, {
        index: place * width,
      });
    }
    row.forEach((value, j) => {
      row[j] = value / norm;
    });
  }
  return new Tensor(values, rows.shape, "f64");
}

/** Rows of matrices of one width below each other. */
export function stacked(parts: readonly Tensor<"f64">[]): Tensor<"f64"> {
  const [first] = parts;
  if (first === undefined) throw new ShapeError("expected at least one matrix");
  const values = new Float64Array(parts.reduce((sum, { size }) => sum + size, 0));
  let begin = 0;
  for (const { data, size } of parts) {
    values.set(data, begin);
    begin += size;
  }
  return new Tensor(values, [values.length / (first.shape[1] ?? 1), first.shape[1] ?? 1], "f64");
}
