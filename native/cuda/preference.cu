#include "native/core/preference.h"

#include "native/cuda/operations.h"
#include "native/cuda/preference_batch.h"

namespace dpo::cuda {
namespace {

/// order[j] = number of the j-th smallest value; equal values keep their order. By counting, for there are few.
__global__ void sort_indices(const double* values, std::int64_t count, std::int64_t* order) {
  for_each_index(count, [&](std::int64_t i) {
    const double value = values[i];
    std::int64_t before = 0;
    for (std::int64_t j = 0; j < count; ++j) before += values[j] < value || (values[j] == value && j < i) ? 1 : 0;
    order[before] = i;
  });
}

/// What the aot losses need beside the batch: values of both sides and their orders.
struct SortedMargins {
  double *left, *right;
  std::int64_t *left_order, *right_order;

  static SortedMargins of(Call& call, std::int64_t pairs) {
    const SortedMargins margins{call.allocate<double>(pairs), call.allocate<double>(pairs), call.allocate<std::int64_t>(pairs),
                                call.allocate<std::int64_t>(pairs)};
    // Values that are not numbers have no place; what is left out must still be a pair's number.
    for (std::int64_t* order : {margins.left_order, margins.right_order})
      call.fill(order, 0, static_cast<std::size_t>(pairs) * sizeof *order);
    return margins;
  }

  void sort(Call& call, std::int64_t pairs) const {
    call.launch(sort_indices, grid_of(pairs), left, pairs, left_order);
    call.launch(sort_indices, grid_of(pairs), right, pairs, right_order);
  }
};

__global__ void take_aot_margins(PreferenceBatch batch, SortedMargins margins) {
  for_each_index(batch.pairs, [&](std::int64_t pair) {
    margins.left[pair] = math::aot_policy_margin(batch.chosen(pair), batch.rejected(pair), *batch.params);
    margins.right[pair] = math::aot_reference_margin(batch.chosen(pair), batch.rejected(pair), *batch.params);
  });
}

/// aot: the j-th smallest policy margin against the j-th smallest reference margin.
__global__ void add_aot(PreferenceBatch batch, SortedMargins margins, double weight, PairLoss<double>* losses) {
  for_each_index(batch.pairs, [&](std::int64_t j) {
    const std::int64_t pair = margins.left_order[j];
    const double reference_margin = margins.right[margins.right_order[j]];
    math::accumulate(losses[pair], math::aot_loss(batch.chosen(pair), batch.rejected(pair), reference_margin, *batch.params),
                     weight);
  });
}

__global__ void take_rewards(PreferenceBatch batch, SortedMargins margins) {
  for_each_index(batch.pairs, [&](std::int64_t pair) {
    margins.left[pair] = math::reward(math::PreferenceLoss::aot_unpaired, batch.chosen(pair), *batch.params);
    margins.right[pair] = math::reward(math::PreferenceLoss::aot_unpaired, batch.rejected(pair), *batch.params);
  });
}

/// aot_unpaired: the j-th smallest chosen reward against the j-th smallest rejected reward. Two launches, one for the chosen
/// answers and one for the rejected, because each goes to a pair of its own.
__global__ void add_aot_unpaired(PreferenceBatch batch, SortedMargins margins, double weight, bool of_chosen,
                                 PairLoss<double>* losses) {
  for_each_index(batch.pairs, [&](std::int64_t j) {
    const std::int64_t won = margins.left_order[j], lost = margins.right_order[j];
    const PairLoss<double> both = math::aot_unpaired_loss(batch.chosen(won), batch.rejected(lost), *batch.params);
    math::accumulate(losses[of_chosen ? won : lost], of_chosen ? both.of_chosen() : both.of_rejected(), weight);
  });
}

/// Adds the losses of the mix that sort the batch.
void add_sorted_losses(Call& call, const PreferenceBatch& batch, PairLoss<double>* losses) {
  const SortedMargins margins = SortedMargins::of(call, batch.pairs);
  const Grid grid = grid_of(batch.pairs);
  for (std::int32_t i = 0; i < batch.options.loss_count; ++i) {
    const auto [kind, weight] = batch.options.losses[i];
    if (static_cast<math::PreferenceLoss>(kind) == math::PreferenceLoss::aot) {
      call.launch(take_aot_margins, grid, batch, margins);
      margins.sort(call, batch.pairs);
      call.launch(add_aot, grid, batch, margins, weight, losses);
    } else if (static_cast<math::PreferenceLoss>(kind) == math::PreferenceLoss::aot_unpaired) {
      call.launch(take_rewards, grid, batch, margins);
      margins.sort(call, batch.pairs);
      call.launch(add_aot_unpaired, grid, batch, margins, weight, true, losses);
      call.launch(add_aot_unpaired, grid, batch, margins, weight, false, losses);
    }
  }
}

template <class T>
dpo_status preference(Call& call, const dpo_preference_args& args) {
  PreferenceBatch batch{args.policy.shape[0] / 2,
                        Scalars::of(call, args.policy),
                        Scalars::of(call, args.reference),
                        Scalars::of(call, args.log_kernel),
                        Scalars::of(call, args.token_counts),
                        Scalars::of(call, args.pair_weights),
                        args.options,
                        nullptr};
  PreferenceParameters parameters(call, batch);
  const auto results = PreferenceResults<T>::of(call, args);
  auto* losses = call.allocate<PairLoss<double>>(batch.pairs);
  auto* sums = call.allocate<math::PairSums>(batch.pairs);
  const PairRange all = PairRange::all(batch.pairs);
  parameters.prepare(call, batch);
  call.launch(take_losses, grid_of(batch.pairs), batch, all, losses);
  add_sorted_losses(call, batch, losses);
  call.launch(record_pairs<T>, grid_of(batch.pairs), batch, all, losses, results, sums);
  write_metrics(call, batch, parameters, sums, results.metrics);
  return call.finish();
}

}  // namespace

dpo_status preference(dpo_job* job, const dpo_preference_args* args) {
  return run(job, [&](Call& call) {
    return args->policy.dtype == DPO_F64 ? preference<double>(call, *args) : preference<float>(call, *args);
  });
}

}  // namespace dpo::cuda
