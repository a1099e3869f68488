// φ = [cos W·x, sin W·x]/√R of random frequencies, and its pull-back. Rahimi & Recht (2007).
#pragma once

#include "native/math/reproducible.h"

namespace dpo::math {

/// Of R frequencies.
struct FourierFeatures {
  double scale;  // 1/√R

  explicit FourierFeatures(double count) : scale(1 / std::sqrt(count)) {}

  /// Of a phase with this sine and cosine.
  DPO_HD SinCos at(const SinCos& angle) const { return {scale * angle.sin, scale * angle.cos}; }
  /// The gradient in the phase.
  DPO_HD double slope(const SinCos& angle, double of_cos, double of_sin) const {
    return scale * (angle.cos * of_sin - angle.sin * of_cos);
  }
};

}  // namespace dpo::math
