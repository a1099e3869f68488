#include "native/cpu/preference_batch.h"

namespace dpo::cpu {

PreferenceBatch::PreferenceBatch(const dpo_preference_args& args, double mean_chosen_tokens)
    : args_(args), pairs_(args.policy.shape[0] / 2), params_(math::preference_params(args.options, mean_chosen_tokens)) {}

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
  sums_.merge(math::pair_sums(won, lost, won_reward, lost_reward));
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
  sums_.write_metrics(data<double>(args_.metrics), pairs_, params_.bco_delta, bco_count);
}

}  // namespace dpo::cpu
