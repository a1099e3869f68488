// The arrays of a preference call on the device, pair by pair, and the metrics of the batch.
#pragma once

#include "native/core/preference.h"
#include "native/cuda/grid.h"
#include "native/cuda/reduce.h"
#include "native/cuda/scalars.h"
#include "native/cuda/sequences.h"
#include "native/math/preference_batch.h"

namespace dpo::cuda {

using math::PairLoss;
using math::PairSide;
using math::PreferenceParams;

struct PreferenceBatch {
  std::int64_t pairs;
  Scalars policy, reference, log_kernel, token_counts, pair_weights;  // all but the first may be absent
  dpo_preference_options options;
  const PreferenceParams<double>* params;

  __device__ PairSide<double> side(std::int64_t sequence) const {
    const double log_prob = policy.at(sequence);
    // Without a reference the log-ratio, which only sft's reported reward then has, is 0.
    return {log_prob, reference.at_or(sequence, log_prob), log_kernel.at_or(sequence, 0), token_counts.at_or(sequence, 1)};
  }
  __device__ PairSide<double> chosen(std::int64_t pair) const { return side(pair); }
  __device__ PairSide<double> rejected(std::int64_t pair) const { return side(pair + pairs); }
};

/// Where the results of a call go.
template <class T>
struct PreferenceResults {
  T *losses, *rewards, *grad_policy, *grad_log_kernel;  // the last may be null
  double* metrics;

  static PreferenceResults of(Call& call, const dpo_preference_args& args) {
    return {call.output<T>(args.losses), call.output<T>(args.rewards), call.output<T>(args.grad_policy),
            call.output<T>(args.grad_log_kernel), call.output<double>(args.metrics)};
  }
};

/// Settings on the device, for they hold what the batch determines: its mean number of chosen tokens, and δ of bco_pair.
class PreferenceParameters {
 public:
  PreferenceParameters(Call& call, PreferenceBatch& batch);
  /// From the arrays of the batch; `policy` is of no concern unless δ is updated.
  void prepare(Call& call, const PreferenceBatch& batch);
  const double* bco_count() const { return bco_count_; }

 private:
  PreferenceParams<double>* params_;
  double* bco_count_;
};

/// losses[pair] of the mix, without the losses that sort.
__global__ void take_losses(PreferenceBatch batch, PairRange range, PairLoss<double>* losses);

/// Results of every pair as parts of the batch mean, and what it adds to the metrics.
template <class T>
__global__ void record_pairs(PreferenceBatch batch, PairRange range, const PairLoss<double>* losses, PreferenceResults<T> results,
                             math::PairSums* sums) {
  for_each_index(range.count, [&](std::int64_t i) {
    const std::int64_t pair = range.first + i, other = pair + batch.pairs;
    const auto kind = static_cast<math::PreferenceLoss>(batch.options.losses[0].kind);
    const PairSide<double> won = batch.chosen(pair), lost = batch.rejected(pair);
    const double won_reward = math::reward(kind, won, *batch.params), lost_reward = math::reward(kind, lost, *batch.params);
    const PairLoss<double> loss = losses[pair];
    const double share = batch.pair_weights.at_or(pair, 1) / static_cast<double>(batch.pairs);
    math::PairSums mine = math::pair_sums(won, lost, won_reward, lost_reward);
    mine.loss = share * loss.value;
    sums[pair] = mine;
    results.rewards[pair] = static_cast<T>(won_reward);
    results.rewards[other] = static_cast<T>(lost_reward);
    results.losses[pair] = static_cast<T>(loss.value);
    results.grad_policy[pair] = static_cast<T>(share * loss.chosen_policy);
    results.grad_policy[other] = static_cast<T>(share * loss.rejected_policy);
    if (!results.grad_log_kernel) return;
    results.grad_log_kernel[pair] = static_cast<T>(share * loss.chosen_log_kernel);
    results.grad_log_kernel[other] = static_cast<T>(share * loss.rejected_log_kernel);
  });
}

/// From what all pairs add.
void write_metrics(Call& call, const PreferenceBatch& batch, const PreferenceParameters& parameters, const math::PairSums* sums,
                   double* metrics);

}  // namespace dpo::cuda
