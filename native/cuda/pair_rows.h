// Rows of u with the same rows of one or two v, in double, as kernels see them: read, and written as gradients. Scaled rows are
// stored before they are subtracted: where u = v all differences must be exactly 0, which u·a − v·b contracted to one fused
// operation is not.
#pragma once

#include "native/core/pair_kernel.h"
#include "native/cuda/pair_points.h"
#include "native/cuda/reduce.h"
#include "native/cuda/row_norm.h"

namespace dpo::cuda {

/// Rows of every operand where they are stored.
template <class S>
struct StoredRows {
  S *u, *v, *second_v;
  __host__ __device__ S* of(std::int64_t operand) const { return operand == 0 ? u : operand == 1 ? v : second_v; }
  StoredRows from(std::int64_t element) const { return {u + element, v + element, second_v ? second_v + element : nullptr}; }
};

/// A block for each row of an operand. NaN and infinite elements, and a zero row to be normalised, make the row NaN.
template <class S>
__global__ void load_rows(StoredRows<const S> from, PairRows to) {
  const std::int64_t row = blockIdx.x, operand = blockIdx.y, number = to.row(operand, row);
  const S* stored = from.of(operand) + row * to.depth;
  double* seen = to.seen + number * to.depth;
  const Magnitude magnitude = magnitude_of_row(stored, to.depth);
  const double scale = to.normalized ? inverse_norm_of_row(stored, to.depth, magnitude) : 1;
  for_each_of_row(stored, to.depth, [=](std::int64_t i, double x) { seen[i] = x * scale; });
  if (threadIdx.x != 0) return;
  to.scales[number] = scale;
  to.squares[number] = to.normalized ? 1 : magnitude.squares;
}

/// The gradient in an element of a row as kernels see it.
class RowGradient {
 public:
  __device__ RowGradient(const PairRows& rows, const PairPoints& points, const PairGradients& grads, std::int64_t operand,
                         std::int64_t row)
      : rows_(rows), points_(points), grads_(grads), operand_(operand), row_(row) {}

  __device__ double operator()(std::int64_t i) const {
    double sum = 0;
    if (operand_ == 0) {
      for (std::int64_t side = 0; side < rows_.sides; ++side) {
        const std::int64_t pair = rows_.pair(side, row_);
        const double x = seen(0, i), y = seen(1 + side, i);
        const Products inner = grads_.products[pair];
        sum += in_difference(pair, i, x, y) + (inner.uv * y + 2 * inner.uu * x);
      }
    } else {
      const std::int64_t pair = rows_.pair(operand_ - 1, row_);
      const double x = seen(0, i), y = seen(operand_, i);
      const Products inner = grads_.products[pair];
      sum = (inner.uv * x + 2 * inner.vv * y) - in_difference(pair, i, x, y);
    }
    const std::int64_t number = rows_.row(operand_, row_);
    if (grads_.rows) sum += grads_.rows[number * rows_.depth + i];
    if (grads_.rows && !rows_.normalized) sum += grads_.along[number] * seen(operand_, i);
    return sum;
  }

  __device__ double seen(std::int64_t operand, std::int64_t i) const {
    return rows_.seen[rows_.row(operand, row_) * rows_.depth + i];
  }

 private:
  __device__ double in_difference(std::int64_t pair, std::int64_t i, double x, double y) const {
    const double difference = x - y;
    double sum = 2 * grads_.distances[pair] * difference;
    if (grads_.differences) sum += grads_.differences[pair * rows_.depth + i];
    if (const double of_absolute = grads_.absolutes[pair]; of_absolute != 0)
      sum += of_absolute * static_cast<double>((difference > 0) - (difference < 0));
    for (std::int32_t m = 0; grads_.any_diagonal && m < points_.count; ++m) {
      if (points_.members[m].map != KernelMap::diagonal) continue;
      const double a = points_.members[m].matrix[i];
      sum += 2 * grads_.seen[m * rows_.pairs() + pair] * (a * difference) * a;
    }
    return sum;
  }

  const PairRows& rows_;
  const PairPoints& points_;
  const PairGradients& grads_;
  std::int64_t operand_, row_;
};

/// A block for each row of an operand. Of normalised rows only the part across the row counts.
template <class S>
__global__ void write_row_gradients(PairRows rows, PairPoints points, PairGradients grads, StoredRows<S> to) {
  const std::int64_t row = blockIdx.x, operand = blockIdx.y;
  const RowGradient gradient(rows, points, grads, operand, row);
  double along = 0, scale = 1;
  if (rows.normalized) {
    Sum sum;
    for (std::int64_t i = threadIdx.x; i < rows.depth; i += blockDim.x) sum.value += gradient(i) * gradient.seen(operand, i);
    along = merge_block_for_all(sum).value;
    scale = rows.scales[rows.row(operand, row)];
  }
  S* stored = to.of(operand) + row * rows.depth;
  write_words(stored, rows.depth, [&](std::int64_t i) {
    return to_storage<S>(static_cast<compute_t<S>>((gradient(i) - along * gradient.seen(operand, i)) * scale));
  });
}

}  // namespace dpo::cuda
