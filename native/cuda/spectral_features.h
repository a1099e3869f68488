// The spectral kernel's features of rows, φ(u) = projection·base(u, landmarks), and their pull-back. Base values are scaled by
// their largest in the row, e^log_scale, so that they do not all underflow far from every landmark: φ(u) is e^log_scale times the
// features here.
#pragma once

#include <cstdint>

#include "native/cuda/kernel_members.h"

namespace dpo::cuda {

/// Rows in double, as kernels see them, with their squared lengths.
struct SeenRows {
  const double* rows;  // [count, depth]
  const double* squares;
  std::int64_t count, depth;
};

/// What rows need, and between the pull-back and the values that came before it.
struct SpectralMemory {
  double* base;          // [rows, M] base values over the row's largest
  double* slopes;        // [rows, M] of ln base in the squared distance or the inner product
  double* self_slopes;   // [rows, M] of ln base in ‖u‖², where it depends on it
  double* features;      // [rows, rank]
  double* log_scales;    // [rows]
  double* grads;         // [rows, rank] in the features
  double* coefficients;  // [rows, M] in the inner products with landmarks
  double* along;         // [rows] in the row itself

  static SpectralMemory allocate(Call& call, std::int64_t rows, std::int64_t landmarks, std::int64_t rank);
};

void spectral_features(Call& call, const KernelMember& member, const SeenRows& of, const SpectralMemory& memory);

/// row_grads [count, depth] += the gradient in the rows, from memory.grads. Where rows are normalised, that along the row itself,
/// which goes nowhere, is left out.
void spectral_pull_back(Call& call, const KernelMember& member, const SeenRows& of, bool normalized, const SpectralMemory& memory,
                        double* row_grads);

}  // namespace dpo::cuda
