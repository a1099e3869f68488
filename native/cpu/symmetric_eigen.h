// Eigendecompositions of symmetric matrices in double precision.
#pragma once

#include <cstdint>

namespace dpo::cpu {

/// a [n, n], of which the lower triangle is read, = V·diag(values)·Vᵀ: values [n] ascending, vectors [n, n] the columns of V, the
/// component of largest magnitude of each positive. False when it does not converge or memory runs out.
bool symmetric_eigen(std::int64_t n, const double* a, double* values, double* vectors);

}  // namespace dpo::cpu
