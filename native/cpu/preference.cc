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
    const double reference_margin = sorted.right[sorted.right_order[j]];
    math::accumulate(losses[pair], math::aot_loss(batch.chosen(pair), batch.rejected(pair), reference_margin, params), weight);
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
    const PairLoss<double> both = math::aot_unpaired_loss(batch.chosen(won), batch.rejected(lost), params);
    math::accumulate(losses[won], both.of_chosen(), weight);
    math::accumulate(losses[lost], both.of_rejected(), weight);
  }
}

/// Takes the batch's rewards into the running mean δ of bco_pair before it is used. Returns the new count.
double update_bco_delta(PreferenceBatch& batch, double count) {
  double sum = 0;
  for (std::int64_t pair = 0; pair < batch.pairs(); ++pair) {
    sum += math::reward(PreferenceLoss::bco_pair, batch.chosen(pair), batch.params()) +
           math::reward(PreferenceLoss::bco_pair, batch.rejected(pair), batch.params());
  }
  const math::BcoDelta updated = math::updated_bco_delta({batch.params().bco_delta, count}, sum, batch.pairs());
  batch.params().bco_delta = updated.delta;
  return updated.count;
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

  const double bco_count = update_bco_delta(batch, args->options.bco_count);
  for (std::int64_t pair = 0; pair < batch.pairs(); ++pair) losses[pair] = batch.mixed_loss(pair);
  for (std::int32_t i = 0; i < args->options.loss_count; ++i) {
    const dpo_weighted_loss& loss = args->options.losses[i];
    const auto kind = static_cast<PreferenceLoss>(loss.kind);
    if (kind == PreferenceLoss::aot) add_aot(batch, sorted, loss.weight, losses);
    if (kind == PreferenceLoss::aot_unpaired) add_aot_unpaired(batch, sorted, loss.weight, losses);
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
