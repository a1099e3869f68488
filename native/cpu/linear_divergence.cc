#include "native/core/linear_divergence.h"

#include "native/cpu/divergence_call.h"
#include "native/cpu/linear_head.h"
#include "native/cpu/operations.h"
#include "native/cpu/row_chunks.h"

namespace dpo::cpu {
namespace {

constexpr std::int64_t kMostRows = 1024;

/// Both models' logits of a block of rows at a time, which their divergence turns into its gradient where they are.
template <class S>
class LinearDivergence {
 public:
  using T = compute_t<S>;

  LinearDivergence(dpo_job* job, const dpo_linear_divergence_args& args)
      : job_(job),
        args_(args),
        upstreams_(args),
        policy_(job, args.policy),
        reference_(job, args.reference),
        vocabulary_(policy_.vocabulary()),
        stride_(blocks_of(vocabulary_, lanes<T>) * lanes<T>),
        row_(make_divergence_row<T>(args.divergence, args.options, vocabulary_, {}, {})),
        scratch_(job, row_->scratch_size()) {}

  dpo_status run() {
    double policy_bound = 0, reference_bound = 0;
    if (const dpo_status status = check_head_contents(job_, args_.policy, "policy.", &policy_bound); status != DPO_OK)
      return status;
    if (const dpo_status status = check_head_contents(job_, args_.reference, "reference.", &reference_bound); status != DPO_OK)
      return status;
    if (const dpo_status status = reserve(); status != DPO_OK) return status;
    if (!upstreams_.wants_gradient()) return values();
    // Results that the caller supplied are not touched by a call that fails. Logits this small cannot make it fail.
    const bool safe = 2 * (policy_bound + reference_bound) / args_.options.temperature <= row_->safe_range();
    if (!safe && !host->discards_results(job_)) {
      if (const dpo_status status = for_each_block([&](Rows rows) { return set_values(rows); }); status != DPO_OK) return status;
    }
    return values_and_gradient();
  }

 private:
  using Rows = std::span<const std::int64_t>;

  dpo_status reserve() {
    rows_ = rows_except(job_, args_.policy.hidden.shape[0], [&](std::int64_t row) { return upstreams_.ignored(row); });
    if (!outcomes_.allocate(job_, args_.policy.hidden.shape[0])) return out_of_memory(job_);
    const auto count = static_cast<std::int64_t>(rows_.size());
    if (count == 0) return DPO_OK;
    const bool gradient = upstreams_.wants_gradient();
    capacity_ = rows_at_once(count, gradient);
    policy_logits_ = allocate<T>(job_, capacity_ * stride_);
    reference_logits_ = allocate<T>(job_, capacity_ * stride_);
    const bool allocated = (gradient ? policy_.allocate_gradients(capacity_) : policy_.allocate_values(capacity_)) &&
                           reference_.allocate_values(capacity_) && policy_logits_ && reference_logits_;
    return allocated ? DPO_OK : out_of_memory(job_);
  }

  /// As many rows as fit into the memory limit, at least one, and as many in each block.
  std::int64_t rows_at_once(std::int64_t count, bool gradient) const {
    const auto bytes = [&](std::int64_t rows) {
      const std::int64_t of_policy =
          gradient ? HeadBlock<S>::gradient_bytes(rows, policy_.depth()) : HeadBlock<S>::value_bytes(rows, policy_.depth());
      return of_policy + HeadBlock<S>::value_bytes(rows, reference_.depth()) +
             2 * rows * stride_ * static_cast<std::int64_t>(sizeof(T));
    };
    std::int64_t most = std::min(count, kMostRows);
    while (most > 1 && bytes(most) > args_.memory_limit) --most;
    return blocks_of(count, blocks_of(count, most));
  }

  dpo_status values() {
    if (const dpo_status status = for_each_block([&](Rows rows) { return set_values(rows); }); status != DPO_OK) return status;
    if (const dpo_status status = host->begin_writes(job_); status != DPO_OK) return status;
    outcomes_.write(args_.values);
    return DPO_OK;
  }

  dpo_status values_and_gradient() {
    if (const dpo_status status = host->begin_writes(job_); status != DPO_OK) return status;
    if (rows_.empty()) clear_gradients(args_.grads);
    clear_ignored_rows(args_.targets, args_.grads.hidden);
    Update update = Update::overwrite;
    const dpo_status status = for_each_block([&](Rows rows) {
      const dpo_status added = add_gradient(rows, update);
      update = Update::accumulate;
      return added;
    });
    if (status == DPO_OK) outcomes_.write(args_.values);
    return status;
  }

  template <class Body>
  dpo_status for_each_block(const Body& body) {
    const auto capacity = static_cast<std::size_t>(capacity_);
    for (std::size_t begin = 0; begin < rows_.size(); begin += capacity) {
      const dpo_status status = body(rows_.subspan(begin, std::min(capacity, rows_.size() - begin)));
      if (status != DPO_OK) return status;
    }
    return DPO_OK;
  }

  dpo_status set_values(Rows rows) {
    if (const dpo_status status = policy_.load_rows(rows); status != DPO_OK) return status;
    if (const dpo_status status = make_logits(rows); status != DPO_OK) return status;
    return for_each_row([&](std::int64_t i, T* scratch) {
      const T* policy = policy_logits_ + i * stride_;
      const T* reference = reference_logits_ + i * stride_;
      const std::int64_t row = policy_.row(i);
      outcomes_[row] = row_->value(policy, reference, row, row_->sums(policy, reference, scratch), scratch);
    });
  }

  dpo_status add_gradient(Rows rows, Update update) {
    if (const dpo_status status = policy_.load_rows_for_gradients(rows); status != DPO_OK) return status;
    if (const dpo_status status = make_logits(rows); status != DPO_OK) return status;
    dpo_status status = for_each_row([&](std::int64_t i, T* scratch) {
      T* logits = policy_logits_ + i * stride_;
      const std::int64_t row = policy_.row(i);
      const RowGradient<T> gradient = upstreams_.gradient(row, logits, false);
      const T* reference = reference_logits_ + i * stride_;
      outcomes_[row] = row_->whole_gradient(logits, reference, row, gradient, scratch);
    });
    if (status != DPO_OK) return status;
    const auto already_made = [](Range, T*, T*) {};
    status = policy_.pull_back(Range{0, vocabulary_}, policy_logits_, stride_, args_.grads, update, already_made);
    if (status == DPO_OK) policy_.write_hidden_gradient(args_.grads.hidden);
    return status;
  }

  /// Logits of the rows that the policy's block holds.
  dpo_status make_logits(Rows rows) {
    if (const dpo_status status = reference_.load_rows(rows); status != DPO_OK) return status;
    const std::int64_t blocks = policy_.vocabulary_blocks();
    const dpo_status status = parallel_for(job_, 2 * blocks, [&](std::int64_t chunk) {
      HeadBlock<S>& head = chunk < blocks ? policy_ : reference_;
      T* logits = chunk < blocks ? policy_logits_ : reference_logits_;
      const Range columns = head.vocabulary_block(chunk % blocks);
      head.workspace().with_buffer([&](T* workspace) { head.logits(columns, logits + columns.begin, stride_, workspace); });
    });
    const bool exhausted = policy_.workspace().exhausted() || reference_.workspace().exhausted();
    return status == DPO_OK && exhausted ? out_of_memory(job_) : status;
  }

  /// Calls body(i, scratch) for the rows of the block. Fails because of the first row that does.
  template <class Body>
  dpo_status for_each_row(const Body& body) {
    const RowChunks chunks(policy_.size(), vocabulary_);
    const dpo_status status = parallel_for(job_, chunks.count(), [&](std::int64_t chunk) {
      scratch_.with_buffer([&](T* scratch) { chunks.for_each(chunk, [&](std::int64_t i) { body(i, scratch); }); });
    });
    if (status != DPO_OK) return status;
    if (scratch_.exhausted()) return out_of_memory(job_);
    const std::int64_t row = outcomes_.first_failure(upstreams_);
    return row < 0 ? DPO_OK : divergence_failure(job_, row, outcomes_[row].state);
  }

  dpo_job* job_;
  const dpo_linear_divergence_args& args_;
  RowUpstreams<dpo_linear_divergence_args> upstreams_;
  HeadBlock<S> policy_, reference_;
  std::int64_t vocabulary_, stride_;
  std::unique_ptr<DivergenceRow<T>> row_;
  Scratch<T> scratch_;
  RowOutcomes outcomes_;
  Rows rows_;
  std::int64_t capacity_ = 1;
  T* policy_logits_ = nullptr;
  T* reference_logits_ = nullptr;
};

}  // namespace

dpo_status linear_divergence(dpo_job* job, const dpo_linear_divergence_args* args) {
  return dispatch_storage(args->policy.hidden.dtype,
                          [&]<class S>() { return guarded(job, [&] { return LinearDivergence<S>(job, *args).run(); }); });
}

}  // namespace dpo::cpu
