#include "native/core/divergence.h"

#include "native/cpu/divergence_call.h"
#include "native/cpu/nonfinite_logit.h"
#include "native/cpu/operations.h"
#include "native/cpu/row_chunks.h"
#include "native/cpu/scratch.h"

namespace dpo::cpu {
namespace {

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
    const dpo_status status = for_each_row([&](std::int64_t row, T* scratch) {
      if (!upstreams_.ignored(row)) set_value(row, look_at(row, scratch), scratch);
    });
    if (status != DPO_OK) return status;
    if (const dpo_status begun = host->begin_writes(job_); begun != DPO_OK) return begun;
    outcomes_.write(args_.values);
    return DPO_OK;
  }

  /// Where nobody sees the results of a call that fails, both passes over a row follow each other while it is in the cache.
  dpo_status values_and_gradient() {
    const bool looks_first = !host->discards_results(job_);
    RowSums* sums = looks_first ? allocate<RowSums>(job_, args_.policy.shape[0]) : nullptr;
    if (looks_first) {
      if (!sums) return out_of_memory(job_);
      const dpo_status status = for_each_row([&](std::int64_t row, T* scratch) {
        if (upstreams_.ignored(row)) return;
        sums[row] = look_at(row, scratch);
        if (!sums[row].sure) set_value(row, sums[row], scratch);
      });
      if (status != DPO_OK) return status;
    }
    if (const dpo_status status = host->begin_writes(job_); status != DPO_OK) return status;
    S* gradient = data<S>(args_.grad_policy);
    const bool streamed = args_.policy.shape[0] * columns_ * static_cast<std::int64_t>(sizeof(S)) > kStreamBytes;
    const dpo_status status = for_each_row([&](std::int64_t row, T* scratch) {
      S* to = gradient + row * columns_;
      if (upstreams_.ignored(row)) {
        std::fill_n(to, columns_, S{});
        return;
      }
      const RowGradient<S> wanted = upstreams_.gradient(row, to, streamed);
      outcomes_[row] = looks_first ? gradient_after(sums[row], row, wanted, scratch)
                                   : row_->whole_gradient(policy(row), reference(row), row, wanted, scratch);
      if (streamed) stream_fence();
    });
    if (status != DPO_OK) return status;
    outcomes_.write(args_.values);
    return DPO_OK;
  }

  RowSums look_at(std::int64_t row, T* scratch) const { return row_->sums(policy(row), reference(row), scratch); }

  void set_value(std::int64_t row, const RowSums& sums, T* scratch) {
    outcomes_[row] =
        sums.state == RowState::finite ? row_->value(policy(row), reference(row), row, sums, scratch) : RowOutcome{sums.state, 0};
  }

  RowOutcome gradient_after(const RowSums& sums, std::int64_t row, const RowGradient<S>& gradient, T* scratch) const {
    return sums.state == RowState::finite ? row_->gradient(policy(row), reference(row), row, sums, gradient, scratch)
                                          : RowOutcome{sums.state, 0};
  }

  /// Calls body(row, scratch) for every row. Fails because of the first row that does.
  template <class Body>
  dpo_status for_each_row(const Body& body) {
    const dpo_status status = parallel_for(job_, chunks_.count(), [&](std::int64_t chunk) {
      scratch_.with_buffer([&](T* scratch) { chunks_.for_each(chunk, [&](std::int64_t row) { body(row, scratch); }); });
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
  return dispatch_storage(args->policy.dtype,
                          [&]<class S>() { return guarded(job, [&] { return DivergenceCall<S>(job, *args).run(); }); });
}

}  // namespace dpo::cpu
