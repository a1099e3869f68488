// Linear maps of rows of double: x ↦ x·A and its pull-back.
#pragma once

#include <cstdint>

#include "native/cpu/operation.h"

namespace dpo::cpu {

/// A matrix of double: element (i, j) is data[i * row_stride + j * col_stride].
struct Matrix {
  const double* data;
  std::int64_t row_stride, col_stride;
};

/// Memory that is fetched while there is arithmetic to do, since it is wanted soon after.
struct ReadAhead {
  const char* from;
  std::int64_t bytes;
};

/// x [depth] ↦ x·A [width]. Rows of x are `stride` apart, as kernel_rows.h lays them out.
class LinearMap {
 public:
  /// Takes A [depth, width]; false when memory ran out.
  bool prepare(dpo_job* job, Matrix a, std::int64_t depth, std::int64_t width);

  std::int64_t width() const { return width_; }
  /// Working memory, in doubles, of products with this map, and of the gradient of any matrix.
  std::int64_t workspace() const;
  static std::int64_t matrix_workspace();

  /// to [rows, width] = x·A.
  void apply(const double* x, std::int64_t rows, double* to, double* workspace, ReadAhead next = {}) const;

  /// Gradient of x = or += grads [rows, width]·Aᵀ.
  void pull_back(const double* grads, std::int64_t rows, bool overwrite, double* x_grads, double* workspace) const;

  /// Gradient of A [depth, width] += xᵀ·grads.
  void pull_back_matrix(const double* x, const double* grads, std::int64_t rows, double* a_grad, double* workspace) const;

 private:
  // A map to few numbers needs each of its columns a few times only: nothing is gained from packing.
  static constexpr std::int64_t kNarrow = 64;
  bool narrow() const { return width_ <= kNarrow; }

  std::int64_t depth_ = 0, width_ = 0, stride_ = 0;
  const double* columns_ = nullptr;  // narrow: Aᵀ [width, stride]
  double* packed_ = nullptr;
  double* packed_transpose_ = nullptr;
};

}  // namespace dpo::cpu
