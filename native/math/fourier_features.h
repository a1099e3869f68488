// φ = [cos W·x, sin W·x]/√R of random frequencies, and its pull-back. Rahimi & Recht (2007).
#pragma once

#include "native/math/reproducible.h"

namespace dpo::math {

/// Of R frequencies.
struct FourierFeatures {
  double scale;  // 1/√R

  explicit FourierFeatures(double count) : scale(1 / std::sqrt(count)) {}

  /// Of one phase.
  DPO_HD SinCos at(double phase) const {
    const SinCos angle = sin_cos(phase);
    return {scale * angle.sin, scale * angle.cos};
  }
  /// The gradient in the phase.
  DPO_HD double slope(double phase, double of_cos, double of_sin) const {
    const SinCos angle = sin_cos(phase);
    return scale * (angle.cos * of_sin - angle.sin * of_cos);
  }
};

}  // namespace dpo::math
