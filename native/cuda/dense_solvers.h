// Factors, eigenvectors, orthonormal rows and triangular systems of matrices in rows, in double precision, by cuSOLVER and
// cuBLAS.
#pragma once

#include <cstdint>

#include "native/cuda/call.h"

namespace dpo::cuda {

/// a [n, n], of which the lower triangle is read, becomes L there, a = L·Lᵀ. False when it meets a pivot that is not positive,
/// and when the call has failed.
bool factorize(Call& call, std::int64_t n, double* a);

/// a [n, n], of which the lower triangle is read, = V·diag(values)·Vᵀ: values [n] ascending; a becomes Vᵀ, a vector a row, of
/// either sign. False when it does not converge, and when the call has failed.
bool decompose(Call& call, std::int64_t n, double* a, double* values);

/// a [n, n] = L·Q with a positive diagonal of the triangle L becomes Q, of orthonormal rows.
void make_rows_orthonormal(Call& call, std::int64_t n, double* a);

/// A triangle of a matrix [n, n]; `transposed` as it enters a system.
struct Triangle {
  const double* data;
  std::int64_t n;
  bool lower;
  bool transposed;
};

/// b [n, columns] becomes a⁻¹·b.
void solve_left(Call& call, const Triangle& a, double* b, std::int64_t columns);
/// b [rows, n] becomes b·a⁻¹.
void solve_right(Call& call, const Triangle& a, double* b, std::int64_t rows);

}  // namespace dpo::cuda
