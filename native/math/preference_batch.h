// What a pair gives its batch: losses of a mix added up, and the sums that the metrics are means of. Arithmetic is in double: the
// arrays are small.
#pragma once

#include "native/core/preference.h"
#include "native/math/preference_losses.h"

namespace dpo::math {

/// `mean_chosen_tokens`: counted tokens of the chosen answers / pairs.
DPO_HD inline PreferenceParams<double> preference_params(const dpo_preference_options& options, double mean_chosen_tokens) {
  PreferenceParams<double> params;
  params.transform = static_cast<RewardTransform>(options.transform);
  params.transform_alpha = options.transform_alpha;
  params.beta = options.beta;
  params.gamma = options.gamma;
  params.label_smoothing = options.label_smoothing;
  params.discopop_tau = options.discopop_tau;
  params.simpo_gamma = options.simpo_gamma;
  params.cpo_alpha = options.cpo_alpha;
  params.bco_delta = options.bco_delta;
  params.kto_kl = options.kto_kl > 0 ? options.kto_kl : 0;
  params.kto_desirable_weight = options.kto_desirable_weight;
  params.kto_undesirable_weight = options.kto_undesirable_weight;
  params.mean_chosen_tokens = mean_chosen_tokens > 0 ? mean_chosen_tokens : 1;
  return params;
}

/// Adds a loss by its weight in the mix.
DPO_HD inline void accumulate(PairLoss<double>& total, const PairLoss<double>& loss, double weight) {
  total.value += weight * loss.value;
  total.chosen_policy += weight * loss.chosen_policy;
  total.rejected_policy += weight * loss.rejected_policy;
  total.chosen_log_kernel += weight * loss.chosen_log_kernel;
  total.rejected_log_kernel += weight * loss.rejected_log_kernel;
}

/// The losses of a mix that treat pairs one by one, of one pair. aot and aot_unpaired, which do not, are left out.
DPO_HD inline PairLoss<double> mixed_loss(const dpo_preference_options& options, const PairSide<double>& chosen,
                                          const PairSide<double>& rejected, const PreferenceParams<double>& params) {
  PairLoss<double> total{};
  for (std::int32_t i = 0; i < options.loss_count; ++i) {
    const auto kind = static_cast<PreferenceLoss>(options.losses[i].kind);
    if (kind == PreferenceLoss::aot || kind == PreferenceLoss::aot_unpaired) continue;
    accumulate(total, pair_loss(kind, chosen, rejected, params), options.losses[i].weight);
  }
  return total;
}

/// aot: the pair's loss when its policy margin goes with this reference margin.
DPO_HD inline PairLoss<double> aot_loss(const PairSide<double>& chosen, const PairSide<double>& rejected, double reference_margin,
                                        const PreferenceParams<double>& params) {
  const double margin = aot_policy_margin(chosen, rejected, params) - reference_margin;
  return chain_rewards(of_margin(smoothed_sigmoid(margin, params.label_smoothing)),
                       pair_rewards(PreferenceLoss::aot, chosen, rejected, params));
}

/// aot_unpaired: the loss of a chosen answer and the rejected one that sorting has set against it.
DPO_HD inline PairLoss<double> aot_unpaired_loss(const PairSide<double>& chosen, const PairSide<double>& rejected,
                                                 const PreferenceParams<double>& params) {
  constexpr auto kind = PreferenceLoss::aot_unpaired;
  const double margin = reward(kind, chosen, params) - reward(kind, rejected, params);
  return chain_rewards(of_margin(smoothed_sigmoid(margin, params.label_smoothing)), pair_rewards(kind, chosen, rejected, params));
}

/// Sums over pairs; `loss` is a mean already.
struct PairSums {
  double loss, chosen_reward, rejected_reward, accurate, chosen_log_prob, rejected_log_prob, log_ratio, kernel_accurate;

  DPO_HD void merge(const PairSums& other) {
    loss += other.loss;
    chosen_reward += other.chosen_reward;
    rejected_reward += other.rejected_reward;
    accurate += other.accurate;
    chosen_log_prob += other.chosen_log_prob;
    rejected_log_prob += other.rejected_log_prob;
    log_ratio += other.log_ratio;
    kernel_accurate += other.kernel_accurate;
  }

  DPO_HD void write_metrics(double* metrics, std::int64_t pairs, double bco_delta, double bco_count) const {
    const double mean = 1 / static_cast<double>(pairs);
    metrics[DPO_METRIC_LOSS] = loss;
    metrics[DPO_METRIC_REWARDS_CHOSEN] = chosen_reward * mean;
    metrics[DPO_METRIC_REWARDS_REJECTED] = rejected_reward * mean;
    metrics[DPO_METRIC_REWARDS_MARGINS] = (chosen_reward - rejected_reward) * mean;
    metrics[DPO_METRIC_REWARDS_ACCURACIES] = accurate * mean;
    metrics[DPO_METRIC_LOGPS_CHOSEN] = chosen_log_prob * mean;
    metrics[DPO_METRIC_LOGPS_REJECTED] = rejected_log_prob * mean;
    metrics[DPO_METRIC_KERNEL_LOG_RATIO] = log_ratio * mean;
    metrics[DPO_METRIC_KERNEL_ACCURACY] = kernel_accurate * mean;
    metrics[DPO_METRIC_BCO_DELTA] = bco_delta;
    metrics[DPO_METRIC_BCO_COUNT] = bco_count;
  }
};

/// One pair's rewards and log-probabilities, as they are reported.
DPO_HD inline PairSums pair_sums(const PairSide<double>& chosen, const PairSide<double>& rejected, double chosen_reward,
                                 double rejected_reward) {
  return {0,
          chosen_reward,
          rejected_reward,
          chosen_reward > rejected_reward ? 1.0 : 0.0,
          chosen.policy,
          rejected.policy,
          chosen.log_kernel - rejected.log_kernel,
          chosen.log_kernel > rejected.log_kernel ? 1.0 : 0.0};
}

/// The running mean δ of bco_pair when the batch's rewards are taken in, as TRL's BCOTrainer does before using it.
struct BcoDelta {
  double delta, count;
};
DPO_HD inline BcoDelta updated_bco_delta(BcoDelta before, double sum_of_rewards, std::int64_t pairs) {
  if (before.count < 0) return before;
  const double seen = 2 * static_cast<double>(pairs), count = before.count + seen;
  return {before.delta + (sum_of_rewards - seen * before.delta) / count, count};
}

}  // namespace dpo::math
