// Formulas of the logits z' = softcap·tanh(z/softcap)/temperature that a softmax is of, for numbers and vectors of them alike.
#pragma once

#include <cmath>

#include "native/math/host_device.h"

namespace dpo::math {

/// dz'/dz from capped = softcap·tanh(z/softcap), with scale = 1/temperature.
template <class V, class T>
DPO_HD_INLINE V capped_slope(V capped, T cap, T scale) {
  const V t = capped / cap;
  return (T(1) - t * t) * scale;
}

/// capped(x) − capped(y) without the rounding of either: tanh a − tanh b = tanh(a − b)·(1 − tanh a·tanh b).
template <class V, class T, class Tanh>
DPO_HD_INLINE V capped_difference(V x, V y, V capped_x, V capped_y, T cap, const Tanh& tanh) {
  const V apart = x == y ? V{} : x - y;
  return cap * tanh(apart / cap) * (T(1) - (capped_x / cap) * (capped_y / cap));
}

/// L·temperature in two parts, because T cannot hold it to the precision that e^(z' − L) needs; L is in double.
template <class T>
struct SplitLogSumExp {
  T high, low;

  DPO_HD SplitLogSumExp(double log_sum_exp, double factor)
      : high(static_cast<T>(log_sum_exp / factor)), low(static_cast<T>(log_sum_exp / factor - static_cast<double>(high))) {}

  /// (z' − L)·temperature.
  template <class V>
  DPO_HD_INLINE V below(V capped) const {
    return (capped - high) - low;
  }
};

/// d ln softmax(z')ᵢ/dz'ᵢ = 1 − e^(z'ᵢ − L), by expm1, since the probability may be next to 1.
DPO_HD inline double own_log_prob_slope(double mapped, double log_sum_exp) { return -std::expm1(mapped - log_sum_exp); }

}  // namespace dpo::math
