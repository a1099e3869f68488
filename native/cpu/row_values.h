// Values of rows until all of them are known to be good: results are written only then.
#pragma once

#include <algorithm>
#include <cmath>

#include "native/cpu/operation.h"
#include "native/cpu/softmax_row.h"

namespace dpo::cpu {

class RowValues {
 public:
  /// All 0, which is what ignored rows keep.
  bool allocate(dpo_job* job, std::int64_t rows) {
    double* all = cpu::allocate<double>(job, 4 * rows);
    if (!all) return false;
    std::fill_n(all, 4 * rows, 0.0);
    rows_ = rows;
    log_prob = all;
    log_sum_exp = all + rows;
    entropy = all + 2 * rows;
    mean_logit = all + 3 * rows;
    return true;
  }

  /// `target_logit` is the target's z'.
  void set(std::int64_t row, const SoftmaxSums& sums, double target_logit, std::int64_t vocabulary) const {
    log_prob[row] = sums.log_prob(target_logit);
    log_sum_exp[row] = sums.log_sum_exp();
    entropy[row] = sums.entropy();
    mean_logit[row] = sums.mean_logit(vocabulary);
  }

  /// Into the results of a call that has some of these.
  template <class Args>
  void write(const Args& args) const {
    for (std::int64_t row = 0; row < rows_; ++row) {
      cpu::set(args.log_probs, row, log_prob[row]);
      cpu::set(args.log_sum_exp, row, log_sum_exp[row]);
      if (present(args.entropy)) cpu::set(args.entropy, row, entropy[row]);
      if (present(args.mean_logit)) cpu::set(args.mean_logit, row, mean_logit[row]);
    }
  }

  double* log_prob = nullptr;
  double* log_sum_exp = nullptr;
  double* entropy = nullptr;     // meaningful when the sums were taken with Detail::all
  double* mean_logit = nullptr;  // meaningful unless they were taken with Detail::none

 private:
  std::int64_t rows_ = 0;
};

}  // namespace dpo::cpu
