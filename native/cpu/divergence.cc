#include "native/core/divergence.h"

#include <atomic>

#include "native/cpu/divergence_rows.h"
#include "native/cpu/nonfinite_logit.h"
#include "native/cpu/operations.h"
#include "native/cpu/row_chunks.h"
#include "native/cpu/scratch.h"

namespace dpo::cpu {
namespace {

/// max(x − y) − min(x − y) over a row: infinite or NaN when a logit of either is.
template <class S>
double difference_range(const S* x, const S* y, std::int64_t count) {
  using T = compute_t<S>;
  constexpr std::int64_t kStep = lanes<T>;
  const T infinity = std::numeric_limits<T>::infinity();
  Vec<T> highest = broadcast(-infinity), lowest = broadcast(infinity), poison = {};
  const auto add = [&](Vec<T> a, Vec<T> b) __attribute__((always_inline)) {
    const Vec<T> u = a - b;
    highest = max(u, highest);
    lowest = min(u, lowest);
    poison += u * T(0);
  };
  std::int64_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    __builtin_prefetch(x + i + kLookAhead / sizeof(S));
    __builtin_prefetch(y + i + kLookAhead / sizeof(S));
    add(load(x + i), load(y + i));
  }
  for (; i < count; ++i) add(broadcast(to_compute(x[i])), broadcast(to_compute(y[i])));
  return static_cast<double>(horizontal_max(highest)) + static_cast<double>(horizontal_max(-lowest)) +
         static_cast<double>(horizontal_sum(poison));
}

template <class S>
class DivergenceCall {
 public:
  using T = compute_t<S>;

  DivergenceCall(dpo_job* job, const dpo_divergence_args& args)
      : job_(job),
        args_(args),
        upstreams_(args),
        columns_(args.policy.shape[1]),
        chunks_(args.policy.shape[0], columns_),
        row_(make_divergence_row<S>(args.divergence, args.options, columns_, args.generator_values, args.generator_slopes)),
        scratch_(job, row_->scratch_size()) {}

  dpo_status run() {
    if (!outcomes_.allocate(job_, args_.policy.shape[0])) return out_of_memory(job_);
    return upstreams_.wants_gradient() ? values_and_gradient() : values();
  }

 private:
  const S* policy(std::int64_t row) const { return data<S>(args_.policy) + row * columns_; }
  const S* reference(std::int64_t row) const { return data<S>(args_.reference) + row * columns_; }

  dpo_status values() {
    if (const dpo_status status = for_each_row([&](std::int64_t row, T* scratch) { set_value(row, scratch); }); status != DPO_OK)
      return status;
    if (const dpo_status status = host->begin_writes(job_); status != DPO_OK) return status;
    outcomes_.write(args_.values);
    return DPO_OK;
  }

  dpo_status values_and_gradient() {
    // Results that the caller supplied are not touched by a call that fails, so those rows that may fail are tried first.
    if (!host->discards_results(job_)) {
      if (const dpo_status status = for_each_row([&](std::int64_t row, T* scratch) {
            if (!safe(row)) set_value(row, scratch);
          });
          status != DPO_OK)
        return status;
    }
    if (const dpo_status status = host->begin_writes(job_); status != DPO_OK) return status;
    S* gradient = data<S>(args_.grad_policy);
    const bool streamed = args_.policy.shape[0] * columns_ * static_cast<std::int64_t>(sizeof(S)) > kStreamBytes;
    const dpo_status status = for_each_row([&](std::int64_t row, T* scratch) {
      S* to = gradient + row * columns_;
      outcomes_[row] = row_->gradient(policy(row), reference(row), row, upstreams_.gradient(row, to, streamed), scratch);
      if (streamed) stream_fence();
    });
    if (status != DPO_OK) return status;
    clear_ignored_rows(gradient);
    outcomes_.write(args_.values);
    return DPO_OK;
  }

  bool safe(std::int64_t row) const {
    return difference_range(policy(row), reference(row), columns_) / args_.options.temperature <= row_->safe_range();
  }

  void set_value(std::int64_t row, T* scratch) { outcomes_[row] = row_->value(policy(row), reference(row), row, scratch); }

  void clear_ignored_rows(S* gradient) const {
    for (std::int64_t row = 0; row < args_.policy.shape[0]; ++row) {
      if (upstreams_.ignored(row)) std::fill_n(gradient + row * columns_, columns_, S{});
    }
  }

  /// Calls body(row, scratch) for the rows that are not ignored. Fails because of the first row that does.
  template <class Body>
  dpo_status for_each_row(const Body& body) {
    const dpo_status status = parallel_for(job_, chunks_.count(), [&](std::int64_t chunk) {
      scratch_.with_buffer([&](T* scratch) {
        chunks_.for_each(chunk, [&](std::int64_t row) {
          if (!upstreams_.ignored(row)) body(row, scratch);
        });
      });
    });
    if (status != DPO_OK) return status;
    if (scratch_.exhausted()) return out_of_memory(job_);
    const std::int64_t row = outcomes_.first_failure(upstreams_);
    if (row < 0) return DPO_OK;
    if (outcomes_[row].state == RowState::bad_policy) return nonfinite_logit<S>(job_, "policy", args_.policy, row);
    if (outcomes_[row].state == RowState::bad_reference) return nonfinite_logit<S>(job_, "reference", args_.reference, row);
    return divergence_failure(job_, row, outcomes_[row].state);
  }

  dpo_job* job_;
  const dpo_divergence_args& args_;
  RowUpstreams<dpo_divergence_args> upstreams_;
  std::int64_t columns_;
  RowChunks chunks_;
  std::unique_ptr<DivergenceRow<S>> row_;
  Scratch<T> scratch_;
  RowOutcomes outcomes_;
};

}  // namespace

dpo_status divergence(dpo_job* job, const dpo_divergence_args* args) {
  return dispatch_storage(args->policy.dtype, [&]<class S>() { return DivergenceCall<S>(job, *args).run(); });
}

}  // namespace dpo::cpu
