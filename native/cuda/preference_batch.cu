#include "native/cuda/preference_batch.h"

namespace dpo::cuda {
namespace {

constexpr unsigned kThreads = 256;

/// One block that merges T of all pairs.
template <class T>
Grid one_block(std::int64_t pairs) {
  const unsigned threads = block_threads(pairs, kThreads);
  return {{1, 1, 1}, threads, merge_block_bytes<T>(threads)};
}

struct BatchSums {
  double chosen_tokens, rewards;
  __device__ void merge(const BatchSums& other) {
    chosen_tokens += other.chosen_tokens;
    rewards += other.rewards;
  }
};

/// One block.
__global__ __launch_bounds__(kThreads) void prepare_params(PreferenceBatch batch, PreferenceParams<double>* params,
                                                           double* bco_count) {
  const bool updates = batch.options.bco_count >= 0;
  const PreferenceParams<double> plain = math::preference_params(batch.options, 1);
  BatchSums sums{0, 0};
  for (std::int64_t pair = threadIdx.x; pair < batch.pairs; pair += blockDim.x) {
    sums.chosen_tokens += batch.token_counts.at_or(pair, 1);
    if (updates)
      sums.rewards += math::reward(math::PreferenceLoss::bco_pair, batch.chosen(pair), plain) +
                      math::reward(math::PreferenceLoss::bco_pair, batch.rejected(pair), plain);
  }
  sums = merge_block(sums);
  if (threadIdx.x != 0) return;
  *params = math::preference_params(batch.options, sums.chosen_tokens / static_cast<double>(batch.pairs));
  const math::BcoDelta updated =
      math::updated_bco_delta({batch.options.bco_delta, batch.options.bco_count}, sums.rewards, batch.pairs);
  params->bco_delta = updated.delta;
  *bco_count = updated.count;
}

/// One block.
__global__ __launch_bounds__(kThreads) void finish_metrics(const math::PairSums* sums, std::int64_t pairs,
                                                           const PreferenceParams<double>* params, const double* bco_count,
                                                           double* metrics) {
  math::PairSums total{};
  for (std::int64_t pair = threadIdx.x; pair < pairs; pair += blockDim.x) total.merge(sums[pair]);
  total = merge_block(total);
  if (threadIdx.x == 0) total.write_metrics(metrics, pairs, params->bco_delta, *bco_count);
}

}  // namespace

PreferenceParameters::PreferenceParameters(Call& call, PreferenceBatch& batch)
    : params_(call.allocate<PreferenceParams<double>>(1)), bco_count_(call.allocate<double>(1)) {
  batch.params = params_;
}

void PreferenceParameters::prepare(Call& call, const PreferenceBatch& batch) {
  call.launch(prepare_params, one_block<BatchSums>(batch.pairs), batch, params_, bco_count_);
}

__global__ void take_losses(PreferenceBatch batch, PairRange range, PairLoss<double>* losses) {
  for_each_index(range.count, [&](std::int64_t i) {
    const std::int64_t pair = range.first + i;
    losses[pair] = math::mixed_loss(batch.options, batch.chosen(pair), batch.rejected(pair), *batch.params);
  });
}

void write_metrics(Call& call, const PreferenceBatch& batch, const PreferenceParameters& parameters, const math::PairSums* sums,
                   double* metrics) {
  call.launch(finish_metrics, one_block<math::PairSums>(batch.pairs), sums, batch.pairs, batch.params, parameters.bco_count(),
              metrics);
}

}  // namespace dpo::cuda
