// The arrays of a preference call, pair by pair, and the metrics of the batch. Arithmetic is in double: the arrays are small.
#pragma once

#include <cstdint>

#include "native/core/preference.h"
#include "native/cpu/operation.h"
#include "native/math/preference_losses.h"

namespace dpo::cpu {

using math::PairLoss;
using math::PairSide;
using math::PreferenceLoss;
using math::PreferenceParams;

class PreferenceBatch {
 public:
  /// `mean_chosen_tokens`: counted tokens of the chosen answers / pairs.
  PreferenceBatch(const dpo_preference_args& args, double mean_chosen_tokens);

  std::int64_t pairs() const { return pairs_; }
  PairSide<double> chosen(std::int64_t pair) const { return side(pair); }
  PairSide<double> rejected(std::int64_t pair) const { return side(pair + pairs_); }
  const PreferenceParams<double>& params() const { return params_; }
  PreferenceParams<double>& params() { return params_; }

  /// Writes rewards and adds up metrics for the pair.
  void record_rewards(std::int64_t pair);
  /// Weighted by the loss's weight in the mix, into the pair's loss and gradients.
  static void accumulate(PairLoss<double>& total, const PairLoss<double>& loss, double weight);
  /// Writes loss and gradients of the pair, as parts of the batch mean.
  void record_loss(std::int64_t pair, const PairLoss<double>& loss);
  void write_metrics(double bco_count) const;

 private:
  PairSide<double> side(std::int64_t sequence) const;

  const dpo_preference_args& args_;
  std::int64_t pairs_;
  PreferenceParams<double> params_;
  struct Sums {
    double loss, chosen_reward, rejected_reward, accurate, chosen_log_prob, rejected_log_prob, log_ratio, kernel_accurate;
  } sums_{};
};

/// Adds one loss of the mix, of those that treat pairs one by one, for one pair.
void add_pair_loss(PairLoss<double>& total, const dpo_weighted_loss& loss, const PreferenceBatch& batch, std::int64_t pair);

}  // namespace dpo::cpu
