// The spectral kernel's features of rows, φ(u) = projection·base(u, landmarks), and their pull-back. Base values are scaled by
// their largest in the row, e^log_scale, so that they do not all underflow far from every landmark: φ(u) is e^log_scale times the
// features here.
#pragma once

#include <cstdint>

#include "native/cpu/kernel_members.h"

namespace dpo::cpu {

/// Rows in double, as kernels see them, with their squared lengths.
struct SeenRows {
  const double* rows;  // [count, stride]
  const double* squares;
  std::int64_t count, stride;
};

/// What a block of rows needs, [rows] each, and between the pull-back and the values that came before it.
struct SpectralScratch {
  double* base;          // [rows, M] base values over the row's largest
  double* slopes;        // [rows, M] of ln base in the squared distance or the inner product
  double* self_slopes;   // [rows, M] of ln base in ‖u‖², where it depends on it
  double* features;      // [rows, rank]
  double* log_scales;    // [rows]
  double* grads;         // [rows, rank] in the features
  double* coefficients;  // [rows, M] in the inner products with landmarks
};

void spectral_features(const KernelMember& member, const SeenRows& of, const SpectralScratch& scratch, double* workspace,
                       ReadAhead next = {});

/// row_grads [count, stride] = or += the gradient in the rows. Where rows are normalised, that along the row itself, which goes
/// nowhere, is left out.
void spectral_pull_back(const KernelMember& member, const SeenRows& of, bool normalized, const SpectralScratch& scratch,
                        bool overwrite, double* row_grads, double* workspace);

}  // namespace dpo::cpu
