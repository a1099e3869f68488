// What a private covariance does to rows and to sums of their squares, the same on every backend.
#pragma once

#include "native/core/covariance.h"
#include "native/core/philox.h"

namespace dpo {

/// What a row is multiplied by where that is below 1, so that it is no longer than `clip`. Squares of huge or tiny elements leave
/// the range of double, but not `shares` = Σ (x/largest)².
DPO_HD inline double clipping_factor(double clip, double largest, double shares) {
  return largest == 0 ? 1 : clip / largest / std::sqrt(shares);
}

/// Noise that is the same in every direction of the space of symmetric matrices with the Frobenius norm: variance σ² on the
/// diagonal, σ²/2 beside it, where each element counts twice.
struct SymmetricNoise {
  Philox random;
  double scale;

  static SymmetricNoise of(const dpo_covariance_args& args) {
    return {{static_cast<std::uint64_t>(args.seed), static_cast<std::uint64_t>(args.stream)}, args.noise_scale};
  }
  /// j ≤ i.
  DPO_HD double at(std::int64_t i, std::int64_t j) const {
    const double noise = scale * random.normal(static_cast<std::uint64_t>(i * (i + 1) / 2 + j));
    return i == j ? noise : noise * 0.70710678118654752440;
  }
};

}  // namespace dpo
