// sequence_log_probs of the CUDA backend against plain loops, in every launch order, for sequences shorter and longer than a
// block of threads.
#include <gtest/gtest.h>

#include <algorithm>

#include "native/simt/grid.h"
#include "test/native/cuda_support.h"

namespace dpo {
namespace {

TEST(CudaSequenceLogProbs, EqualPlainLoops) {
  std::vector<std::int32_t> offsets = {0, 500, 500, 530, 850, 851, 1300};
  const std::int64_t tokens = offsets.back();
  const std::size_t count = offsets.size() - 1;
  std::vector<float> log_probs = numbers(tokens, 2, 1), upstream = numbers(static_cast<std::int64_t>(count), 1, 2);
  std::vector<std::int32_t> targets = some_targets(tokens, 50);
  const auto at = [](std::int32_t i) { return static_cast<std::size_t>(i); };
  std::vector<double> counts(count), sums(count), grads(at(offsets.back()));
  for (std::size_t s = 0; s < count; ++s) {
    for (std::int32_t t = offsets[s]; t < offsets[s + 1]; ++t) counts[s] += targets[at(t)] != DPO_IGNORED_TARGET ? 1 : 0;
  }
  for (std::size_t s = 0; s < count; ++s) {
    const double shared = std::min(counts[s], counts[(s + count / 2) % count]), scale = counts[s] > 0 ? 1 / counts[s] : 1;
    double position = 0;
    for (std::int32_t t = offsets[s]; t < offsets[s + 1]; ++t) {
      if (targets[at(t)] == DPO_IGNORED_TARGET) continue;
      const double weight = scale * (position++ < shared ? 1 : 0.25);
      sums[s] += weight * static_cast<double>(log_probs[at(t)]);
      grads[at(t)] = weight * static_cast<double>(upstream[s]);
    }
  }
  const auto sequences = static_cast<std::int64_t>(count);
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    const dpo_backend* backend = dpo_backend_open(&host_services());
    std::vector<float> found(count), found_grads(at(offsets.back()));
    std::vector<double> found_counts(count);
    dpo_sequence_log_probs_args args{};
    args.log_probs = tensor_of(log_probs, {tokens}, DPO_F32);
    args.targets = tensor_of(targets, {tokens}, DPO_I32);
    args.offsets = tensor_of(offsets, {sequences + 1}, DPO_I32);
    args.options = {DPO_SEQUENCE_MEAN, 0.25};
    args.sequence_log_probs = tensor_of(found, {sequences}, DPO_F32);
    args.token_counts = tensor_of(found_counts, {sequences}, DPO_F64);
    dpo_job job;
    ASSERT_EQ(backend->sequence_log_probs(&job, &args), DPO_OK) << job.status.message;
    dpo_sequence_log_probs_vjp_args pull{};
    pull.targets = args.targets;
    pull.offsets = args.offsets;
    pull.upstream = tensor_of(upstream, {sequences}, DPO_F32);
    pull.options = args.options;
    pull.grad_log_probs = tensor_of(found_grads, {tokens}, DPO_F32);
    dpo_job other;
    ASSERT_EQ(backend->sequence_log_probs_vjp(&other, &pull), DPO_OK) << other.status.message;
    for (std::size_t s = 0; s < count; ++s) {
      EXPECT_EQ(found_counts[s], counts[s]);
      EXPECT_NEAR(found[s], sums[s], 1e-6) << s;
    }
    for (std::size_t t = 0; t < grads.size(); ++t) ASSERT_NEAR(found_grads[t], grads[t], 1e-8) << t;
  }
  simt::launch_order() = simt::Order::forward;
}

}  // namespace
}  // namespace dpo
