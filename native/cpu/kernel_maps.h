// Linear maps of rows of double: x ↦ x·A and its pull-back. The matrix is packed once per call.
#pragma once

#include <cstdint>

#include "native/cpu/operation.h"

namespace dpo::cpu {

/// A matrix of double: element (i, j) is data[i * row_stride + j * col_stride].
struct Matrix {
  const double* data;
  std::int64_t row_stride, col_stride;
};

class LinearMap {
 public:
  /// Working memory, in doubles, that every product needs.
  static std::int64_t workspace();

  /// Takes A [depth, width]; false when memory ran out.
  bool pack(dpo_job* job, Matrix a, std::int64_t depth, std::int64_t width);

  std::int64_t depth() const { return depth_; }
  std::int64_t width() const { return width_; }

  /// to [rows, width] = x·A, rows of x `stride` apart.
  void apply(const double* x, std::int64_t stride, std::int64_t rows, double* to, double* workspace) const;

  /// Gradient of x, `stride` apart, = or += grads [rows, width]·Aᵀ. Overwritten rows get
  /// zeros between depth and stride.
  void pull_back(const double* grads, std::int64_t rows, bool overwrite, double* x_grads, std::int64_t stride,
                 double* workspace) const;

  /// Gradient of A [depth, width] += xᵀ·grads.
  void pull_back_matrix(const double* x, std::int64_t stride, const double* grads, std::int64_t rows, double* a_grad,
                        double* workspace) const;

 private:
  std::int64_t depth_ = 0, width_ = 0;
  double* packed_ = nullptr;
  double* packed_transpose_ = nullptr;
};

}  // namespace dpo::cpu
