// Matrices of double precision on Eigen, row-major as tensors are.
#pragma once

#define EIGEN_MPL2_ONLY
#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>

#include "native/cpu/operation.h"

namespace dpo::cpu {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXd;

/// An f32 or f64 tensor [rows, columns], or [rows], in double precision.
inline Matrix matrix_of(const dpo_tensor& tensor) {
  Matrix matrix(tensor.shape[0], tensor.rank == 1 ? 1 : tensor.shape[1]);
  for (Eigen::Index i = 0; i < matrix.size(); ++i) matrix.data()[i] = get(tensor, i);
  return matrix;
}

inline void write(const dpo_tensor& tensor, const Matrix& matrix) {
  for (Eigen::Index i = 0; i < matrix.size(); ++i) set(tensor, i, matrix.data()[i]);
}

}  // namespace dpo::cpu
