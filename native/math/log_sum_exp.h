// Online log-sum-exp: one pass, no overflow, parts can be merged in any order.
#pragma once

#include <cmath>
#include <limits>

#include "native/math/host_device.h"

namespace dpo::math {

/// ln Σ e^x of the values seen so far, held as max and sum = Σ e^(x − max). Of nothing, or of −inf only, it is −inf.
/// Milakov & Gimelshein (2018), "Online normalizer calculation for softmax", arXiv 1805.02867.
template <class T>
struct LogSumExp {
  T max = -std::numeric_limits<T>::infinity();
  T sum = 0;

  DPO_HD void add(T x) { merge({x, T(1)}); }

  DPO_HD_INLINE void merge(const LogSumExp& other) {
    // Equal maxima are told apart because inf − inf is NaN. A NaN input ends up in sum and stays there.
    const T scale = other.max == max ? T(1) : std::exp(-std::fabs(other.max - max));
    if (other.max > max) {
      sum = sum * scale + other.sum;
      max = other.max;
    } else {
      sum += other.sum * scale;
    }
  }

  DPO_HD T value() const { return max + std::log(sum); }
};

/// max z' of a row and ln Σ e^(z' − max): apart, since the sum of a large maximum and a small logarithm is neither.
struct Normalizer {
  double max, log_sum;

  DPO_HD explicit Normalizer(const LogSumExp<double>& sums) : max(sums.max), log_sum(std::log(sums.sum)) {}
  DPO_HD double log_sum_exp() const { return max + log_sum; }
  /// ln softmax(z')ᵢ.
  DPO_HD double log_prob(double mapped) const { return (mapped - max) - log_sum; }
};

}  // namespace dpo::math
