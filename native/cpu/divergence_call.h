// What divergence and linear_divergence share around the row functions: upstreams, values that are written at the end, errors.
#pragma once

#include <algorithm>

#include "native/cpu/divergence_row.h"
#include "native/cpu/operation.h"

namespace dpo::cpu {

/// Targets and upstreams of a call by row; any of them may be absent.
template <class Args>
class RowUpstreams {
 public:
  explicit RowUpstreams(const Args& args) : args_(args) {}

  bool ignored(std::int64_t row) const { return present(args_.targets) && target(row) == DPO_IGNORED_TARGET; }
  bool wants_gradient() const { return present(args_.upstream); }
  double upstream(std::int64_t row) const { return get(args_.upstream, row); }

  template <class S>
  RowGradient<S> gradient(std::int64_t row, S* to, bool streamed) const {
    const double of_target = present(args_.target_upstream) ? get(args_.target_upstream, row) : 0;
    return {to, upstream(row), of_target, of_target != 0 ? target(row) : 0, streamed};
  }

  /// Whether this ends the call: bad logits always, an infinite value where it would enter a gradient.
  bool fails(std::int64_t row, RowState state) const {
    if (state == RowState::infinite) return wants_gradient() && upstream(row) != 0;
    return state != RowState::finite;
  }

 private:
  std::int64_t target(std::int64_t row) const { return data<std::int32_t>(args_.targets)[row]; }

  const Args& args_;
};

/// Outcomes of all rows until the values are written. Chunks of rows may set theirs at once.
class RowOutcomes {
 public:
  bool allocate(dpo_job* job, std::int64_t rows) {
    rows_ = rows;
    outcomes_ = cpu::allocate<RowOutcome>(job, rows);
    if (outcomes_) std::fill_n(outcomes_, rows, RowOutcome{RowState::finite, 0});
    return outcomes_ != nullptr;
  }

  RowOutcome& operator[](std::int64_t row) { return outcomes_[row]; }

  /// The first row that ends the call, or −1.
  template <class Upstreams>
  std::int64_t first_failure(const Upstreams& upstreams) const {
    for (std::int64_t row = 0; row < rows_; ++row) {
      if (upstreams.fails(row, outcomes_[row].state)) return row;
    }
    return -1;
  }

  void write(const dpo_tensor& values) const {
    for (std::int64_t row = 0; row < rows_; ++row) set(values, row, outcomes_[row].value);
  }

 private:
  std::int64_t rows_ = 0;
  RowOutcome* outcomes_ = nullptr;
};

/// Ends the call because of a row whose logits are good.
inline dpo_status divergence_failure(dpo_job* job, std::int64_t row, RowState state) {
  if (state == RowState::out_of_memory) return out_of_memory(job);
  if (state == RowState::not_converged)
    return fail(job, DPO_ERR_RANGE, row,
                "wasserstein: row %lld did not reach the tolerance; raise maxIterations, epsilon or tolerance",
                static_cast<long long>(row));
  return fail(job, DPO_ERR_NONFINITE, row, "divergence: is infinite in row %lld, and so has no gradient there",
              static_cast<long long>(row));
}

}  // namespace dpo::cpu
