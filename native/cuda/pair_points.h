// Pairs of rows: what the formulas of all kernels see of them, ln K, and the way back to what they see.
#pragma once

#include <cstdint>
#include <vector>

#include "native/cuda/carver.h"
#include "native/cuda/kernel_members.h"
#include "native/cuda/kernel_points.h"
#include "native/cuda/scalars.h"

namespace dpo::cuda {

/// Rows in double, as kernels see them. Operand 0 is u, 1 + side are the v.
struct PairRows {
  std::int64_t rows, depth, sides;
  bool normalized;
  double* seen;              // [operands, rows, depth]
  double *scales, *squares;  // [operands, rows]: what rows were multiplied by, and their squared lengths since

  __host__ __device__ std::int64_t operands() const { return 1 + sides; }
  __host__ __device__ std::int64_t pairs() const { return sides * rows; }
  __host__ __device__ std::int64_t pair(std::int64_t side, std::int64_t r) const { return side * rows + r; }
  __host__ __device__ std::int64_t row(std::int64_t operand, std::int64_t r) const { return operand * rows + r; }
};

struct PairPoints {
  std::int32_t count;
  bool is_mixture;
  const KernelMember* members;  // on the device
  double* differences;          // [pairs, depth] u − v, where a kernel maps them
  Products* seen;               // [members, pairs]
  LogKernelPoint* points;       // [members, pairs]
  double* log_scales;           // [members, operands, rows] of features of landmarks, where a kernel has any
  double* log_k;                // [pairs]
  double* responsibilities;     // [members, pairs]

  static PairPoints carve(Carver& from, const KernelMembers& members, const PairRows& rows);
};

/// Sums over all pairs that the rows of `terms` [rows, pairs] go to, by their places in the sums of a call.
struct ParameterTerms {
  double* terms;
  const std::int64_t* places;  // [rows]
  const std::int64_t* firsts;  // [members]: the first row of the kernel's parameters; before all, row m is of its ln w
  std::int64_t rows;
};

struct PairGradients {
  double* seen;                   // [members, pairs]: in what the formula sees, or its `uv`
  double *distances, *absolutes;  // [pairs]: in ‖u − v‖² and ‖u − v‖₁
  Products* products;             // [pairs]: in the inner products
  bool any_diagonal;              // of `seen` some are of differences weighted by a diagonal
  double* differences;            // [pairs, depth]: in u − v, where a kernel maps them
  double* rows;                   // [operands, rows, depth]: in rows, where a kernel has landmarks
  double* along;                  // [operands, rows]: the rest of it, along the row
  ParameterTerms terms;

  static PairGradients carve(Carver& from, const KernelMembers& members, const PairRows& rows, const ParameterTerms& terms);
};

/// The first row of terms of the kernel's parameters.
std::int64_t first_term(const KernelMembers& members, std::int32_t m);
/// Places of the terms; the terms themselves are to be carved.
ParameterTerms parameter_terms(Call& call, const KernelMembers& members);

/// What the formulas see of the rows themselves, and their differences.
void measure_pairs(Call& call, const PairRows& rows, const PairPoints& points);
/// ln K and the responsibilities, from what the formulas see.
void evaluate_pairs(Call& call, const PairRows& rows, const PairPoints& points);
/// From the gradient in ln K, upstream [sides, all rows] from the row `first` on, to everything but `differences`, `rows` and
/// `along`.
void pull_back_pairs(Call& call, const PairRows& rows, const PairPoints& points, const Scalars& upstream, std::int64_t all_rows,
                     std::int64_t first, const PairGradients& grads);
/// sums += the terms, over the pairs in a fixed order.
void add_parameter_terms(Call& call, std::int64_t pairs, const ParameterTerms& terms, double* sums);
/// factor [depth] += the gradient in a diagonal [depth]; `grads` [pairs] are those in the weighted squared distances.
void add_diagonal_gradient(Call& call, const PairRows& rows, const double* diagonal, const double* grads, double* factor);

}  // namespace dpo::cuda
