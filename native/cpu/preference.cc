#include "native/core/preference.h"

#include <algorithm>
#include <numeric>

#include "native/cpu/operation.h"
#include "native/cpu/operations.h"
#include "native/cpu/preference_batch.h"

namespace dpo::cpu {
namespace {

/// Numbers 0 .. count-1 in the order of rising values; equal values keep their order.
void sort_indices(const double* values, std::int64_t count, std::int64_t* order) {
  std::iota(order, order + count, 0);
  std::sort(order, order + count,
            [values](std::int64_t a, std::int64_t b) { return values[a] < values[b] || (values[a] == values[b] && a < b); });
}

/// What the aot losses need beside the batch: values of both sides and their orders.
struct SortedMargins {
  double *left, *right;
  std::int64_t *left_order, *right_order;

  bool allocate(dpo_job* job, std::int64_t pairs) {
    left = cpu::allocate<double>(job, 2 * pairs);
    left_order = cpu::allocate<std::int64_t>(job, 2 * pairs);
    if (!left || !left_order) return false;
    right = left + pairs;
    right_order = left_order + pairs;
    return true;
  }

  void sort(std::int64_t pairs) const {
    sort_indices(left, pairs, left_order);
    sort_indices(right, pairs, right_order);
  }
};

/// aot: the j-th smallest policy margin against the j-th smallest reference margin.
void add_aot(const PreferenceBatch& batch, const SortedMargins& sorted, double weight, PairLoss<double>* losses) {
  const PreferenceParams<double>& params = batch.params();
  for (std::int64_t i = 0; i < batch.pairs(); ++i) {
    sorted.left[i] = math::aot_policy_margin(batch.chosen(i), batch.rejected(i), params);
    sorted.right[i] = math::aot_reference_margin(batch.chosen(i), batch.rejected(i), params);
  }
  sorted.sort(batch.pairs());
  for (std::int64_t j = 0; j < batch.pairs(); ++j) {
    const std::int64_t pair = sorted.left_order[j];
    const double margin = sorted.left[pair] - sorted.right[sorted.right_order[j]];
    const auto loss = math::of_margin(math::smoothed_sigmoid(margin, params.label_smoothing));
    const auto rewards = math::pair_rewards(PreferenceLoss::aot, batch.chosen(pair), batch.rejected(pair), params);
    PreferenceBatch::accumulate(losses[pair], math::chain_rewards(loss, rewards), weight);
  }
}

/// aot_unpaired: the j-th smallest chosen reward against the j-th smallest rejected reward.
void add_aot_unpaired(const PreferenceBatch& batch, const SortedMargins& sorted, double weight, PairLoss<double>* losses) {
  const PreferenceParams<double>& params = batch.params();
  for (std::int64_t i = 0; i < batch.pairs(); ++i) {
    sorted.left[i] = math::reward(PreferenceLoss::aot_unpaired, batch.chosen(i), params);
    sorted.right[i] = math::reward(PreferenceLoss::aot_unpaired, batch.rejected(i), params);
  }
  sorted.sort(batch.pairs());
  for (std::int64_t j = 0; j < batch.pairs(); ++j) {
    const std::int64_t won = sorted.left_order[j], lost = sorted.right_order[j];
    const auto loss = math::of_margin(math::smoothed_sigmoid(sorted.left[won] - sorted.right[lost], params.label_smoothing));
    const auto rewards = math::pair_rewards(PreferenceLoss::aot_unpaired, batch.chosen(won), batch.rejected(lost), params);
    const PairLoss<double> both = math::chain_rewards(loss, rewards);
    PreferenceBatch::accumulate(losses[won], {both.value, both.chosen_policy, 0, both.chosen_log_kernel, 0}, weight);
    PreferenceBatch::accumulate(losses[lost], {0, 0, both.rejected_policy, 0, both.rejected_log_kernel}, weight);
  }
}

/// Takes the batch's rewards into the running mean δ of bco_pair before it is used, as TRL's BCOTrainer. Returns the new count.
double update_bco_delta(PreferenceBatch& batch, double count) {
  if (count < 0) return count;
  double sum = 0;
  for (std::int64_t pair = 0; pair < batch.pairs(); ++pair) {
    sum += math::reward(PreferenceLoss::bco_pair, batch.chosen(pair), batch.params()) +
           math::reward(PreferenceLoss::bco_pair, batch.rejected(pair), batch.params());
  }
  const double seen = 2 * static_cast<double>(batch.pairs());
  batch.params().bco_delta += (sum - seen * batch.params().bco_delta) / (count + seen);
  return count + seen;
}

double mean_chosen_tokens(const dpo_preference_args& args) {
  if (!present(args.token_counts)) return 1;
  const double* counts = data<double>(args.token_counts);
  const std::int64_t pairs = args.policy.shape[0] / 2;
  return std::accumulate(counts, counts + pairs, 0.0) / static_cast<double>(pairs);
}

}  // namespace

dpo_status preference(dpo_job* job, const dpo_preference_args* args) {
  PreferenceBatch batch(*args, mean_chosen_tokens(*args));
  auto* losses = allocate<PairLoss<double>>(job, batch.pairs());
  SortedMargins sorted{};
  if (!losses || !sorted.allocate(job, batch.pairs())) return out_of_memory(job);
  std::fill(losses, losses + batch.pairs(), PairLoss<double>{});

  const double bco_count = update_bco_delta(batch, args->options.bco_count);
  for (std::int32_t i = 0; i < args->options.loss_count; ++i) {
    const dpo_weighted_loss& loss = args->options.losses[i];
    const auto kind = static_cast<PreferenceLoss>(loss.kind);
    if (kind == PreferenceLoss::aot) {
      add_aot(batch, sorted, loss.weight, losses);
    } else if (kind == PreferenceLoss::aot_unpaired) {
      add_aot_unpaired(batch, sorted, loss.weight, losses);
    } else {
      for (std::int64_t pair = 0; pair < batch.pairs(); ++pair) add_pair_loss(losses[pair], loss, batch, pair);
    }
  }

  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  for (std::int64_t pair = 0; pair < batch.pairs(); ++pair) {
    batch.record_rewards(pair);
    batch.record_loss(pair, losses[pair]);
  }
  batch.write_metrics(bco_count);
  return DPO_OK;
}

}  // namespace dpo::cpu
