// The spectral kernel's features of rows, φ(u) = projection·base(u, landmarks), and their pull-back. Base values are scaled by
// their largest in the row, e^log_scale, so that they do not all underflow far from every landmark: φ(u) is e^log_scale times the
// features here.
#pragma once

#include "native/cuda/carver.h"
#include "native/cuda/kernel_members.h"
#include "native/cuda/matrix_product.h"

namespace dpo::cuda {

/// Rows in double, as kernels see them, with their squared lengths.
struct SeenRows {
  const double* rows;  // [count, depth]
  const double* squares;
  std::int64_t count, depth;
};

/// What rows need between their values and the pull-back.
struct SpectralScratch {
  double* base;          // [rows, M] base values over the row's largest
  double* slopes;        // [rows, M] of ln base in the squared distance or the inner product
  double* self_slopes;   // [rows, M] of ln base in ‖u‖², where it depends on it
  double* features;      // [rows, rank]
  double* log_scales;    // [rows]
  double* grads;         // [rows, rank] in the features
  double* coefficients;  // [rows, M] in the inner products with landmarks

  static SpectralScratch carve(Carver& from, const KernelMember& member, std::int64_t rows, double* log_scales);
};

void spectral_features(Call& call, const KernelMember& member, const SeenRows& of, const SpectralScratch& scratch);

/// row_grads [count, depth] = or += the gradient in the rows but for what goes along the row itself, so many times it:
/// along [count] +=. Where rows are normalised that goes nowhere.
void spectral_pull_back(Call& call, const KernelMember& member, const SeenRows& of, const SpectralScratch& scratch,
                        Accumulate accumulate, double* row_grads, double* along);

}  // namespace dpo::cuda
