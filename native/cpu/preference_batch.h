// The arrays of a preference call, pair by pair, and the metrics of the batch.
#pragma once

#include <cstdint>

#include "native/core/preference.h"
#include "native/cpu/operation.h"
#include "native/math/preference_batch.h"

namespace dpo::cpu {

using math::PairLoss;
using math::PairSide;
using math::PreferenceLoss;
using math::PreferenceParams;

class PreferenceBatch {
 public:
  PreferenceBatch(const dpo_preference_args& args, double mean_chosen_tokens);

  std::int64_t pairs() const { return pairs_; }
  PairSide<double> chosen(std::int64_t pair) const { return side(pair); }
  PairSide<double> rejected(std::int64_t pair) const { return side(pair + pairs_); }
  const PreferenceParams<double>& params() const { return params_; }
  PreferenceParams<double>& params() { return params_; }

  /// The losses of the mix that treat pairs one by one.
  PairLoss<double> mixed_loss(std::int64_t pair) const {
    return math::mixed_loss(args_.options, chosen(pair), rejected(pair), params_);
  }

  /// Writes rewards and adds up metrics for the pair.
  void record_rewards(std::int64_t pair);
  /// Writes loss and gradients of the pair, as parts of the batch mean.
  void record_loss(std::int64_t pair, const PairLoss<double>& loss);
  void write_metrics(double bco_count) const;

 private:
  PairSide<double> side(std::int64_t sequence) const;

  const dpo_preference_args& args_;
  std::int64_t pairs_;
  PreferenceParams<double> params_;
  math::PairSums sums_{};
};

}  // namespace dpo::cpu
