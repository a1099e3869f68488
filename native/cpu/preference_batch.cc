#include "native/cpu/preference_batch.h"

namespace dpo::cpu {
namespace {

PreferenceParams<double> params_of(const dpo_preference_options& options, double mean_chosen_tokens) {
  PreferenceParams<double> params;
  params.transform = static_cast<math::RewardTransform>(options.transform);
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

}  // namespace

PreferenceBatch::PreferenceBatch(const dpo_preference_args& args, double mean_chosen_tokens)
    : args_(args), pairs_(args.policy.shape[0] / 2), params_(params_of(args.options, mean_chosen_tokens)) {}

PairSide<double> PreferenceBatch::side(std::int64_t sequence) const {
  const auto or_else = [sequence](const dpo_tensor& tensor, double fallback) {
    return present(tensor) ? get(tensor, sequence) : fallback;
  };
  const double policy = get(args_.policy, sequence);
  // Without a reference the log-ratio, which only sft's reported reward then has, is 0.
  return {policy, or_else(args_.reference, policy), or_else(args_.log_kernel, 0), or_else(args_.token_counts, 1)};
}

void PreferenceBatch::record_rewards(std::int64_t pair) {
  const auto loss = static_cast<PreferenceLoss>(args_.options.losses[0].kind);
  const PairSide<double> won = chosen(pair), lost = rejected(pair);
  const double won_reward = math::reward(loss, won, params_), lost_reward = math::reward(loss, lost, params_);
  set(args_.rewards, pair, won_reward);
  set(args_.rewards, pair + pairs_, lost_reward);
  sums_.chosen_reward += won_reward;
  sums_.rejected_reward += lost_reward;
  sums_.accurate += won_reward > lost_reward ? 1 : 0;
  sums_.chosen_log_prob += won.policy;
  sums_.rejected_log_prob += lost.policy;
  sums_.log_ratio += won.log_kernel - lost.log_kernel;
  sums_.kernel_accurate += won.log_kernel > lost.log_kernel ? 1 : 0;
}

void PreferenceBatch::accumulate(PairLoss<double>& total, const PairLoss<double>& loss, double weight) {
  total.value += weight * loss.value;
  total.chosen_policy += weight * loss.chosen_policy;
  total.rejected_policy += weight * loss.rejected_policy;
  total.chosen_log_kernel += weight * loss.chosen_log_kernel;
  total.rejected_log_kernel += weight * loss.rejected_log_kernel;
}

void PreferenceBatch::record_loss(std::int64_t pair, const PairLoss<double>& loss) {
  const double pair_weight = present(args_.pair_weights) ? get(args_.pair_weights, pair) : 1;
  const double share = pair_weight / static_cast<double>(pairs_);
  sums_.loss += share * loss.value;
  set(args_.losses, pair, loss.value);
  set(args_.grad_policy, pair, share * loss.chosen_policy);
  set(args_.grad_policy, pair + pairs_, share * loss.rejected_policy);
  if (!present(args_.grad_log_kernel)) return;
  set(args_.grad_log_kernel, pair, share * loss.chosen_log_kernel);
  set(args_.grad_log_kernel, pair + pairs_, share * loss.rejected_log_kernel);
}

void PreferenceBatch::write_metrics(double bco_count) const {
  double* metrics = data<double>(args_.metrics);
  const double mean = 1 / static_cast<double>(pairs_);
  metrics[DPO_METRIC_LOSS] = sums_.loss;
  metrics[DPO_METRIC_REWARDS_CHOSEN] = sums_.chosen_reward * mean;
  metrics[DPO_METRIC_REWARDS_REJECTED] = sums_.rejected_reward * mean;
  metrics[DPO_METRIC_REWARDS_MARGINS] = (sums_.chosen_reward - sums_.rejected_reward) * mean;
  metrics[DPO_METRIC_REWARDS_ACCURACIES] = sums_.accurate * mean;
  metrics[DPO_METRIC_LOGPS_CHOSEN] = sums_.chosen_log_prob * mean;
  metrics[DPO_METRIC_LOGPS_REJECTED] = sums_.rejected_log_prob * mean;
  metrics[DPO_METRIC_KERNEL_LOG_RATIO] = sums_.log_ratio * mean;
  metrics[DPO_METRIC_KERNEL_ACCURACY] = sums_.kernel_accurate * mean;
  metrics[DPO_METRIC_BCO_DELTA] = params_.bco_delta;
  metrics[DPO_METRIC_BCO_COUNT] = bco_count;
}

void add_pair_loss(PairLoss<double>& total, const dpo_weighted_loss& loss, const PreferenceBatch& batch, std::int64_t pair) {
  const auto kind = static_cast<PreferenceLoss>(loss.kind);
  PreferenceBatch::accumulate(total, math::pair_loss(kind, batch.chosen(pair), batch.rejected(pair), batch.params()),
                              loss.weight);
}

}  // namespace dpo::cpu
