#pragma once

#include <cmath>
#include <limits>

#include "native/math/host_device.h"

namespace dpo::math {

/// 1/‖x‖ from Σ x²; infinite for a zero row. Rows whose squares leave the range of double are scaled first: largest() is max |x|,
/// square_of(scale) Σ (scale·x)².
template <class Largest, class SquareOf>
DPO_HD double inverse_norm(double square, const Largest& largest, const SquareOf& square_of) {
  constexpr double kSmallestSafeSquare = 1e-280;  // below it squares lose digits
  constexpr double kLargest = std::numeric_limits<double>::max();
  if (square > kSmallestSafeSquare && square <= kLargest) return 1 / std::sqrt(square);
  const double scale = 1 / largest();
  if (!(scale <= kLargest)) return 1 / std::sqrt(square);
  return scale / std::sqrt(square_of(scale));
}

}  // namespace dpo::math
