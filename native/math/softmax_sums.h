// What one pass over a row of logits gathers for its softmax.
#pragma once

#include <cstdint>

#include "native/math/host_device.h"
#include "native/math/log_sum_exp.h"

namespace dpo::math {

/// Parts of rows; merge() puts them together. Sums are in double, so that a row of any length keeps the precision of its
/// elements.
struct SoftmaxSums {
  LogSumExp<double> exps;   // max z' and Σ e^(z' − max)
  double weighted_sum = 0;  // Σ e^(z' − max)·(z' − max)
  double logit_sum = 0;     // Σ z

  DPO_HD void merge(const SoftmaxSums& other) {
    const SoftmaxSums mine = *this;
    exps.merge(other.exps);
    weighted_sum = mine.weighted_below(exps.max) + other.weighted_below(exps.max);
    logit_sum += other.logit_sum;
  }

  DPO_HD double log_sum_exp() const { return exps.value(); }

  /// z' − L, without the rounding of L where max is the larger part of it.
  DPO_HD double log_prob(double target_logit) const { return (target_logit - exps.max) - std::log(exps.sum); }

  /// Of raw logits.
  DPO_HD double mean_logit(std::int64_t columns) const { return logit_sum / static_cast<double>(columns); }

  /// H = L − Σ p z', written so that a common shift of the logits cancels exactly.
  DPO_HD double entropy() const { return std::log(exps.sum) - weighted_sum / exps.sum; }

 private:
  /// weighted_sum when distances are taken from another maximum.
  DPO_HD double weighted_below(double max) const {
    if (weighted_sum == 0 && max == exps.max) return 0;
    const double shift = exps.max - max, scale = std::exp(shift);
    return scale > 0 ? scale * (weighted_sum + shift * exps.sum) : 0;
  }
};

}  // namespace dpo::math
