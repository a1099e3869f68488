// The values of token_log_probs of one row, from what was summed over it.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "native/math/softmax_sums.h"

namespace dpo::cuda {

template <class R>
struct TokenValues {
  R* log_probs;
  double* log_sum_exp;
  R *entropy, *mean_logit;  // or null

  /// `target_logit` is the target's z'. False when the row's logits are not all below infinity.
  __device__ bool write(std::int64_t row, const math::SoftmaxSums& sum, double target_logit, std::int64_t columns) const {
    const double total = sum.log_sum_exp();
    log_probs[row] = static_cast<R>(sum.log_prob(target_logit));
    log_sum_exp[row] = total;
    if (entropy) entropy[row] = static_cast<R>(sum.entropy());
    if (mean_logit) mean_logit[row] = static_cast<R>(sum.mean_logit(columns));
    return std::fabs(total) < std::numeric_limits<double>::infinity();
  }

  /// Of an ignored row.
  __device__ void clear(std::int64_t row) const {
    log_probs[row] = 0;
    log_sum_exp[row] = 0;
    if (entropy) entropy[row] = 0;
    if (mean_logit) mean_logit[row] = 0;
  }
};

}  // namespace dpo::cuda
