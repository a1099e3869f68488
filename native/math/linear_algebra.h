// Formulas of Cholesky factors and eigendecompositions that are of single elements.
#pragma once

#include <cmath>
#include <cstdint>

#include "native/math/host_device.h"

namespace dpo::math {

/// Attempts to factorize after the one that adds nothing to the diagonal.
inline constexpr int kJitterAttempts = 3;

/// Attempts in all.
inline int jitter_attempts(double jitter) { return 1 + (jitter > 0 ? kJitterAttempts : 0); }

/// What attempts 1, 2, … add, as a share of the diagonal's mean.
inline double jitter_share(double jitter, int attempt) {
  constexpr double kGrowth = 10;
  return jitter * std::pow(kGrowth, attempt - 1);
}

/// What attempts 0, 1, … add.
inline double added_jitter(double jitter, int attempt, double mean) {
  return attempt == 0 ? 0 : jitter_share(jitter, attempt) * mean;
}

/// When eigenvalues are equal to rounding, and when an upstream does not see their vectors turn.
struct TurnBounds {
  double closest, negligible;

  /// relative: the rounding of the n vectors' numbers.
  DPO_HD static TurnBounds of(double relative, std::int64_t n, double largest_value, double upstream_norm) {
    const double errors = relative * static_cast<double>(n);
    return {errors * largest_value, errors * upstream_norm};
  }
};

struct TurnTerm {
  double value;
  /// The upstream sees a turn of vectors that are free to turn: it has no gradient.
  bool undefined;
};

/// (VᵀV̄ − V̄ᵀV)_ij / (2(λ_j − λ_i)), by elements of VᵀV̄ and eigenvalues. 0 between eigenvalues that are equal to rounding.
DPO_HD inline TurnTerm turn_term(double turned_ij, double turned_ji, double value_i, double value_j, const TurnBounds& bounds) {
  const double turn = (turned_ij - turned_ji) / 2, gap = value_j - value_i;
  if (std::fabs(gap) > bounds.closest) return {turn / gap, false};
  return {0, std::fabs(turn) > bounds.negligible};
}

}  // namespace dpo::math
