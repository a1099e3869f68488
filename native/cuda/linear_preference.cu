#include "native/core/linear_preference.h"

#include "native/cuda/linear_softmax.h"
#include "native/cuda/operations.h"
#include "native/cuda/preference_batch.h"
#include "native/cuda/sequences.h"

namespace dpo::cuda {
namespace {

template <class T>
__global__ void narrow(const double* from, std::int64_t count, T* to) {
  for_each_index(count, [=](std::int64_t i) { to[i] = static_cast<T>(from[i]); });
}

/// Consecutive pairs whose logits are held at once, as their counted rows.
struct PairGroup {
  PairRange range;
  std::vector<std::int64_t> rows;
};

/// Where the counted rows of every pair are; on the host.
class PairRows {
 public:
  PairRows(const dpo_tensor& targets, const dpo_tensor& offsets)
      : targets_(static_cast<const std::int32_t*>(targets.data)),
        offsets_(static_cast<const std::int32_t*>(offsets.data)),
        pairs_((offsets.shape[0] - 1) / 2) {
    for (std::int64_t pair = 0; pair < pairs_; ++pair) {
      std::vector<std::int64_t> rows;
      append(pair, rows);
      counts_.push_back(static_cast<std::int64_t>(rows.size()));
    }
  }

  std::int64_t pairs() const { return pairs_; }
  std::int64_t largest_pair() const { return *std::max_element(counts_.begin(), counts_.end()); }

  /// As many rows as the first pairs have together, up to `most` of them, at least those of the largest pair.
  std::int64_t capacity(std::int64_t most) const {
    std::int64_t rows = 0;
    for (const std::int64_t count : counts_) {
      if (rows + count > most) break;
      rows += count;
    }
    return std::max(rows, largest_pair());
  }

  /// The group that begins at `pair`.
  PairGroup from(std::int64_t pair, std::int64_t capacity) const {
    PairGroup group{{pair, 0, pairs_}, {}};
    for (; pair < pairs_; ++pair, ++group.range.count) {
      if (static_cast<std::int64_t>(group.rows.size()) + counts_[static_cast<std::size_t>(pair)] > capacity) break;
      append(pair, group.rows);
    }
    return group;
  }

 private:
  void append(std::int64_t pair, std::vector<std::int64_t>& rows) const {
    for (const std::int64_t sequence : {pair, pair + pairs_}) {
      for (std::int64_t row = offsets_[sequence]; row < offsets_[sequence + 1]; ++row) {
        if (targets_[row] != DPO_IGNORED_TARGET) rows.push_back(row);
      }
    }
  }

  const std::int32_t *targets_, *offsets_;
  std::int64_t pairs_;
  std::vector<std::int64_t> counts_;
};

template <class S>
class LinearPreference {
 public:
  using T = compute_t<S>;

  LinearPreference(Call& call, const dpo_linear_preference_args& args)
      : call_(call),
        args_(args),
        rows_(args.targets, args.offsets),
        softmax_(call, args.head, args.targets, args.logit_options),
        policy_(call.output<T>(args.preference.policy)),
        sequences_(Sequences::of(call, args.targets, args.offsets, args.sequence_options,
                                 call.output<double>(args.preference.token_counts))),
        batch_{rows_.pairs(),
               {policy_, args.preference.policy.dtype},
               Scalars::of(call, args.preference.reference),
               Scalars::of(call, args.preference.log_kernel),
               {sequences_.token_counts, DPO_F64},
               Scalars::of(call, args.preference.pair_weights),
               args.preference.options,
               nullptr},
        parameters_(call, batch_),
        results_(PreferenceResults<T>::of(call, args.preference)),
        losses_(call.allocate<PairLoss<double>>(batch_.pairs)),
        sums_(call.allocate<math::PairSums>(batch_.pairs)),
        grads_(HeadGradients<S>::of(call, args.grads, rows_.largest_pair() > 0)) {}

  dpo_status run() {
    const std::int64_t row_bytes = softmax_.whole_row_bytes(), fixed_bytes = softmax_.head().fixed_bytes();
    const std::int64_t least = rows_.largest_pair() * row_bytes + fixed_bytes;
    if (least > args_.memory_limit)
      return call_.fail(DPO_ERR_MEMORY, "memoryLimit: the logits of the largest pair take %lld bytes",
                        static_cast<long long>(least));
    const std::int64_t capacity = rows_.capacity((args_.memory_limit - fixed_bytes) / row_bytes), all = args_.targets.shape[0];
    softmax_.allocate({capacity, vocabulary_blocks(softmax_.head().vocabulary()) * kVocabularyBlock}, true);
    upstream_ = call_.allocate<double>(all);
    values_ = {call_.allocate<double>(all), call_.allocate<double>(all), nullptr, call_.allocate<double>(all)};
    call_.launch(clear_rows<double>, grid_of(all), all, values_);
    parameters_.prepare(call_, batch_);
    bool first = true;
    for (std::int64_t pair = 0; pair < rows_.pairs();) {
      const PairGroup group = rows_.from(pair, capacity);
      process(group, first);
      first = first && group.rows.empty();
      pair += group.range.count;
    }
    call_.launch(narrow<T>, grid_of(all), values_.mean_logit, all, call_.output<T>(args_.mean_logit));
    write_metrics(call_, batch_, parameters_, sums_, results_.metrics);
    return call_.finish();
  }

 private:
  void process(const PairGroup& group, bool first) {
    const auto count = static_cast<std::int64_t>(group.rows.size());
    if (count > 0) {
      softmax_.load_rows(call_.upload(group.rows), count);
      softmax_.write_values(values_);
    }
    const Grid grid = grid_of(group.range.count);
    sum(call_, sequences_, group.range, values_.log_probs, policy_);
    call_.launch(take_losses, grid, batch_, group.range, losses_);
    call_.launch(record_pairs<T>, grid, batch_, group.range, losses_, results_, sums_);
    if (count == 0) return;
    pull_back(call_, sequences_, group.range, results_.grad_policy, upstream_);
    softmax_.pull_back({values_.log_sum_exp, DPO_F64}, {upstream_, DPO_F64}, first, grads_);
  }

  Call& call_;
  const dpo_linear_preference_args& args_;
  PairRows rows_;
  HeadSoftmax<S> softmax_;
  T* policy_;
  Sequences sequences_;
  PreferenceBatch batch_;
  PreferenceParameters parameters_;
  PreferenceResults<T> results_;
  PairLoss<double>* losses_;
  math::PairSums* sums_;
  HeadGradients<S> grads_;
  double* upstream_ = nullptr;
  TokenValues<double> values_{};
};

}  // namespace

dpo_status linear_preference(dpo_job* job, const dpo_linear_preference_args* args) {
  return dispatch_storage(args->head.hidden.dtype, [&]<class S>() {
    return run(job, [&](Call& call) { return LinearPreference<S>(call, *args).run(); });
  });
}

}  // namespace dpo::cuda
