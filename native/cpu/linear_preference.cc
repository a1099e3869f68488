#include "native/core/linear_preference.h"

#include <numeric>
#include <vector>

#include "native/cpu/linear_head.h"
#include "native/cpu/linear_softmax.h"
#include "native/cpu/operation.h"
#include "native/cpu/operations.h"
#include "native/cpu/preference_batch.h"
#include "native/cpu/row_values.h"
#include "native/cpu/sequences.h"

namespace dpo::cpu {
namespace {

/// Consecutive pairs whose logits are held at once, as their rows.
struct PairGroup {
  std::int64_t first_pair, last_pair;  // last excluded
  std::span<const std::int64_t> rows;
};

/// Cuts the pairs into groups of at most `capacity` counted rows; false when a single pair has more.
class PairGroups {
 public:
  explicit PairGroups(const Sequences& sequences) : sequences_(sequences) {}

  std::int64_t rows_of(std::int64_t pair) const {
    return sequences_.token_count(pair) + sequences_.token_count(pair + sequences_.pairs());
  }

  std::int64_t largest_pair() const {
    std::int64_t largest = 0;
    for (std::int64_t pair = 0; pair < sequences_.pairs(); ++pair) largest = std::max(largest, rows_of(pair));
    return largest;
  }

  /// The group that begins at `pair`; its rows are written to `rows`.
  PairGroup from(std::int64_t pair, std::int64_t capacity, const std::int32_t* targets, std::int64_t* rows) const {
    PairGroup group{pair, pair, {}};
    std::size_t count = 0;
    while (group.last_pair < sequences_.pairs() && static_cast<std::int64_t>(count) + rows_of(group.last_pair) <= capacity) {
      for (const std::int64_t sequence : {group.last_pair, group.last_pair + sequences_.pairs()}) {
        for (std::int64_t row = sequences_.begin(sequence); row < sequences_.end(sequence); ++row) {
          if (targets[row] != DPO_IGNORED_TARGET) rows[count++] = row;
        }
      }
      ++group.last_pair;
    }
    group.rows = {rows, count};
    return group;
  }

 private:
  const Sequences& sequences_;
};

template <class S>
class LinearPreference {
 public:
  using T = compute_t<S>;

  LinearPreference(dpo_job* job, const dpo_linear_preference_args& args)
      : job_(job),
        args_(args),
        targets_(data<std::int32_t>(args.targets)),
        sequences_(args.targets, args.offsets, args.sequence_options),
        groups_(sequences_),
        block_(job, args.head),
        batch_(args.preference, mean_chosen_tokens()) {}

  dpo_status run() {
    if (const dpo_status status = check_head_contents(job_, args_.head); status != DPO_OK) return status;
    if (const dpo_status status = reserve(); status != DPO_OK) return status;
    if (const dpo_status status = host->begin_writes(job_); status != DPO_OK) return status;
    clear_ignored_rows(args_.targets, args_.grads.hidden);
    if (capacity_ == 0) clear_gradients(args_.grads);
    write_token_counts();
    Update update = Update::overwrite;
    for (std::int64_t pair = 0; pair < sequences_.pairs();) {
      const PairGroup group = groups_.from(pair, capacity_, targets_, rows_);
      if (const dpo_status status = process(group, update); status != DPO_OK) return status;
      if (!group.rows.empty()) update = Update::accumulate;
      pair = group.last_pair;
    }
    for (std::int64_t row = 0; row < args_.targets.shape[0]; ++row) set(args_.mean_logit, row, values_.mean_logit[row]);
    batch_.write_metrics(args_.preference.options.bco_count);
    return DPO_OK;
  }

 private:
  double mean_chosen_tokens() const {
    std::int64_t tokens = 0;
    for (std::int64_t pair = 0; pair < sequences_.pairs(); ++pair) tokens += sequences_.token_count(pair);
    return static_cast<double>(tokens) / static_cast<double>(sequences_.pairs());
  }

  std::int64_t bytes_of(std::int64_t rows) const {
    return HeadBlock<S>::gradient_bytes(rows, block_.depth()) + SoftmaxParts<T>::bytes(rows, block_.vocabulary_blocks()) +
           rows * block_.vocabulary() * static_cast<std::int64_t>(sizeof(T));
  }

  /// As many rows at once as the memory limit allows, at least those of the largest pair.
  dpo_status reserve() {
    capacity_ = groups_.largest_pair();
    if (bytes_of(capacity_) > args_.memory_limit) {
      return fail(job_, DPO_ERR_MEMORY, -1, "memoryLimit: the logits of the largest pair take %lld bytes",
                  static_cast<long long>(bytes_of(capacity_)));
    }
    std::int64_t wanted = 0;
    for (std::int64_t pair = 0; pair < sequences_.pairs(); ++pair) {
      if (bytes_of(wanted + groups_.rows_of(pair)) > args_.memory_limit) break;
      wanted += groups_.rows_of(pair);
    }
    capacity_ = std::max(capacity_, wanted);
    rows_ = allocate<std::int64_t>(job_, std::max<std::int64_t>(1, capacity_));
    upstream_ = allocate<double>(job_, args_.targets.shape[0]);
    if (!rows_ || !upstream_ || !values_.allocate(job_, args_.targets.shape[0])) return out_of_memory(job_);
    if (capacity_ == 0) return DPO_OK;
    logits_ = allocate<T>(job_, capacity_ * block_.vocabulary());
    const bool reserved =
        logits_ && block_.allocate_gradients(capacity_) && parts_.allocate(job_, capacity_, block_.vocabulary_blocks());
    return reserved ? DPO_OK : out_of_memory(job_);
  }

  void write_token_counts() {
    for (std::int64_t s = 0; s < sequences_.count(); ++s) {
      set(args_.preference.token_counts, s, static_cast<double>(sequences_.token_count(s)));
    }
  }

  dpo_status process(const PairGroup& group, Update update) {
    const std::int64_t stride = block_.vocabulary();
    if (!group.rows.empty()) {
      if (const dpo_status status = block_.load_rows_for_gradients(group.rows); status != DPO_OK) return status;
      if (const dpo_status status = compute_logits(stride); status != DPO_OK) return status;
    }
    for (std::int64_t pair = group.first_pair; pair < group.last_pair; ++pair) take_loss(pair);
    if (group.rows.empty()) return DPO_OK;
    const dpo_status status = pull_back(stride, update);
    block_.write_hidden_gradient(args_.grads.hidden);
    return status;
  }

  dpo_status compute_logits(std::int64_t stride) {
    const dpo_status status = with_logit_map<T>(args_.logit_options, [&](const auto& map) {
      return parallel_for(job_, block_.vocabulary_blocks(), [&](std::int64_t b) {
        block_.workspace().with_buffer([&](T* workspace) {
          const Range columns = block_.vocabulary_block(b);
          T* tile = logits_ + columns.begin;
          block_.logits(columns, tile, stride, workspace);
          parts_.template add_block<Detail::mean_logit>(b, columns, tile, stride, block_, targets_, map);
        });
      });
    });
    if (status != DPO_OK) return status;
    if (block_.workspace().exhausted()) return out_of_memory(job_);
    for (std::int64_t i = 0; i < block_.size(); ++i) {
      values_.set(block_.row(i), parts_.merged(i), parts_.target_logit(i), block_.vocabulary());
    }
    return DPO_OK;
  }

  /// From the rows' log-probabilities to the pair's loss, and from its gradient to the rows' upstream.
  void take_loss(std::int64_t pair) {
    for (const std::int64_t sequence : {pair, pair + sequences_.pairs()}) {
      double sum = 0;
      sequences_.for_each_token(sequence, [&](std::int64_t row, double weight) { sum += weight * values_.log_prob[row]; });
      set(args_.preference.policy, sequence, sum);
    }
    batch_.record_rewards(pair);
    batch_.record_loss(pair, batch_.mixed_loss(pair));
    for (const std::int64_t sequence : {pair, pair + sequences_.pairs()}) {
      const double grad = get(args_.preference.grad_policy, sequence);
      sequences_.for_each_token(sequence, [&](std::int64_t row, double weight) { upstream_[row] = weight * grad; });
    }
  }

  dpo_status pull_back(std::int64_t stride, Update update) {
    return with_logit_map<T>(args_.logit_options, [&](const auto& map) {
      return block_.pull_back(Range{0, stride}, logits_, stride, args_.grads, update, [&](Range part, T* tile, T*) {
        for (std::int64_t i = 0; i < block_.size(); ++i) {
          const std::int64_t row = block_.row(i);
          softmax_block_vjp(part, tile + i * stride, targets_[row], map, values_.log_sum_exp[row], upstream_[row]);
        }
      });
    });
  }

  dpo_job* job_;
  const dpo_linear_preference_args& args_;
  const std::int32_t* targets_;
  Sequences sequences_;
  PairGroups groups_;
  HeadBlock<S> block_;
  PreferenceBatch batch_;
  std::int64_t capacity_ = 0;
  std::int64_t* rows_ = nullptr;
  RowValues values_;
  double* upstream_ = nullptr;
  SoftmaxParts<T> parts_;
  T* logits_ = nullptr;
};

}  // namespace

dpo_status linear_preference(dpo_job* job, const dpo_linear_preference_args* args) {
  return dispatch_storage(args->head.hidden.dtype, [&]<class S>() { return LinearPreference<S>(job, *args).run(); });
}

}  // namespace dpo::cpu
