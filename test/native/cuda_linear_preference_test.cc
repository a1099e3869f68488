// linear_preference of the CUDA backend against the operations it joins, one by one, in every launch order; all pairs at once and
// pair by pair. The preference losses themselves are held to formulas.
#include <gtest/gtest.h>

#include <cmath>

#include "native/math/preference_losses.h"
#include "native/simt/grid.h"
#include "test/native/cuda_support.h"

namespace dpo {
namespace {

using math::PreferenceLoss;

dpo_preference_options options_of(std::vector<dpo_weighted_loss> losses) {
  dpo_preference_options options{};
  options.loss_count = static_cast<std::int32_t>(losses.size());
  std::copy(losses.begin(), losses.end(), options.losses);
  options.beta = 0.1;
  options.gamma = 0.5;
  options.discopop_tau = 0.05;
  options.simpo_gamma = 0.5;
  options.cpo_alpha = 1;
  options.bco_count = -1;
  options.kto_desirable_weight = options.kto_undesirable_weight = 1;
  return options;
}

std::int32_t number(PreferenceLoss loss) { return static_cast<std::int32_t>(loss); }

/// A batch of packed pairs with hidden states, and the results of a call.
struct Batch {
  static constexpr std::int64_t n = 14, d = 5, v = 37, pairs = 3;
  std::vector<float> hidden = numbers(n * d, 1, 1), weight = numbers(v * d, 1, 2), bias = numbers(v, 1, 3),
                     reference = numbers(2 * pairs, 4, 4), log_kernel = numbers(2 * pairs, 1, 5);
  std::vector<double> pair_weights = {1, 0.5, 2};
  std::vector<std::int32_t> targets = some_targets(n, v), offsets = {0, 3, 3, 6, 9, 10, 14};
  dpo_sequence_options sequence{DPO_SEQUENCE_SUM, 0.7};
  std::vector<float> policy = std::vector<float>(2 * pairs), losses = std::vector<float>(pairs), rewards = policy,
                     grad_policy = policy, grad_log_kernel = policy, mean_logit = std::vector<float>(n),
                     grad_hidden = std::vector<float>(n * d), grad_weight = std::vector<float>(v * d),
                     grad_bias = std::vector<float>(v);
  std::vector<double> token_counts = std::vector<double>(2 * pairs), metrics = std::vector<double>(DPO_METRIC_COUNT);

  dpo_linear_head head() {
    return {tensor_of(hidden, {n, d}, DPO_F32), tensor_of(weight, {v, d}, DPO_F32), tensor_of(bias, {v}, DPO_F32)};
  }
  dpo_linear_head_gradients grads() {
    return {tensor_of(grad_hidden, {n, d}, DPO_F32), tensor_of(grad_weight, {v, d}, DPO_F32), tensor_of(grad_bias, {v}, DPO_F32)};
  }
  dpo_preference_args preference(const dpo_preference_options& options) {
    dpo_preference_args args{};
    args.policy = tensor_of(policy, {2 * pairs}, DPO_F32);
    args.reference = tensor_of(reference, {2 * pairs}, DPO_F32);
    args.log_kernel = tensor_of(log_kernel, {2 * pairs}, DPO_F32);
    args.token_counts = tensor_of(token_counts, {2 * pairs}, DPO_F64);
    args.pair_weights = tensor_of(pair_weights, {pairs}, DPO_F64);
    args.options = options;
    args.losses = tensor_of(losses, {pairs}, DPO_F32);
    args.rewards = tensor_of(rewards, {2 * pairs}, DPO_F32);
    args.grad_policy = tensor_of(grad_policy, {2 * pairs}, DPO_F32);
    args.grad_log_kernel = tensor_of(grad_log_kernel, {2 * pairs}, DPO_F32);
    args.metrics = tensor_of(metrics, {DPO_METRIC_COUNT}, DPO_F64);
    return args;
  }
};

dpo_status at_once(Batch& batch, const dpo_preference_options& options, std::int64_t memory_limit) {
  dpo_linear_preference_args args{};
  args.head = batch.head();
  args.targets = tensor_of(batch.targets, {Batch::n}, DPO_I32);
  args.offsets = tensor_of(batch.offsets, {2 * Batch::pairs + 1}, DPO_I32);
  args.logit_options = {1.5, 0};
  args.sequence_options = batch.sequence;
  args.memory_limit = memory_limit;
  args.mean_logit = tensor_of(batch.mean_logit, {Batch::n}, DPO_F32);
  args.preference = batch.preference(options);
  args.grads = batch.grads();
  dpo_job job;
  return dpo_backend_open(&host_services())->linear_preference(&job, &args);
}

void step_by_step(Batch& batch, const dpo_preference_options& options) {
  const dpo_backend* backend = dpo_backend_open(&host_services());
  std::vector<float> log_probs(Batch::n), upstream(Batch::n);
  std::vector<double> log_sum_exp(Batch::n);
  dpo_job jobs[5];
  dpo_linear_token_log_probs_args tokens{};
  tokens.head = batch.head();
  tokens.targets = tensor_of(batch.targets, {Batch::n}, DPO_I32);
  tokens.options = {1.5, 0};
  tokens.memory_limit = 1 << 20;
  tokens.log_probs = tensor_of(log_probs, {Batch::n}, DPO_F32);
  tokens.log_sum_exp = tensor_of(log_sum_exp, {Batch::n}, DPO_F64);
  tokens.mean_logit = tensor_of(batch.mean_logit, {Batch::n}, DPO_F32);
  ASSERT_EQ(backend->linear_token_log_probs(&jobs[0], &tokens), DPO_OK);
  dpo_sequence_log_probs_args sequences{};
  sequences.log_probs = tokens.log_probs;
  sequences.targets = tokens.targets;
  sequences.offsets = tensor_of(batch.offsets, {2 * Batch::pairs + 1}, DPO_I32);
  sequences.options = batch.sequence;
  sequences.sequence_log_probs = tensor_of(batch.policy, {2 * Batch::pairs}, DPO_F32);
  sequences.token_counts = tensor_of(batch.token_counts, {2 * Batch::pairs}, DPO_F64);
  ASSERT_EQ(backend->sequence_log_probs(&jobs[1], &sequences), DPO_OK);
  const dpo_preference_args preference = batch.preference(options);
  ASSERT_EQ(backend->preference(&jobs[2], &preference), DPO_OK);
  dpo_sequence_log_probs_vjp_args spread{};
  spread.targets = tokens.targets;
  spread.offsets = sequences.offsets;
  spread.upstream = preference.grad_policy;
  spread.options = batch.sequence;
  spread.grad_log_probs = tensor_of(upstream, {Batch::n}, DPO_F32);
  ASSERT_EQ(backend->sequence_log_probs_vjp(&jobs[3], &spread), DPO_OK);
  dpo_linear_token_log_probs_vjp_args pull{};
  pull.head = batch.head();
  pull.targets = tokens.targets;
  pull.log_sum_exp = tokens.log_sum_exp;
  pull.upstream = spread.grad_log_probs;
  pull.options = tokens.options;
  pull.memory_limit = tokens.memory_limit;
  pull.grads = batch.grads();
  ASSERT_EQ(backend->linear_token_log_probs_vjp(&jobs[4], &pull), DPO_OK);
}

template <class T>
void expect_near(const std::vector<T>& one, const std::vector<T>& other, const char* what) {
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], other[i], 3e-6 * (1 + std::fabs(other[i]))) << what << i;
}

class CudaLinearPreference : public testing::TestWithParam<std::int64_t> {
 protected:
  ~CudaLinearPreference() override { simt::launch_order() = simt::Order::forward; }
};

TEST_P(CudaLinearPreference, EqualsItsParts) {
  const auto options =
      options_of({{number(PreferenceLoss::sigmoid), 1}, {number(PreferenceLoss::cpo), 0.5}, {number(PreferenceLoss::ipo), 0.1}});
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    Batch joined, parts;
    ASSERT_EQ(at_once(joined, options, GetParam()), DPO_OK);
    step_by_step(parts, options);
    expect_near(joined.policy, parts.policy, "policy ");
    expect_near(joined.losses, parts.losses, "losses ");
    expect_near(joined.rewards, parts.rewards, "rewards ");
    expect_near(joined.grad_policy, parts.grad_policy, "grad_policy ");
    expect_near(joined.grad_log_kernel, parts.grad_log_kernel, "grad_log_kernel ");
    expect_near(joined.token_counts, parts.token_counts, "token_counts ");
    expect_near(joined.metrics, parts.metrics, "metrics ");
    expect_near(joined.mean_logit, parts.mean_logit, "mean_logit ");
    expect_near(joined.grad_hidden, parts.grad_hidden, "grad_hidden ");
    expect_near(joined.grad_weight, parts.grad_weight, "grad_weight ");
    expect_near(joined.grad_bias, parts.grad_bias, "grad_bias ");
  }
}

// The largest pair has 5 counted tokens, of 37 logits, 2 * 5 numbers beside them, and sums of 32 bytes.
INSTANTIATE_TEST_SUITE_P(MemoryLimits, CudaLinearPreference,
                         testing::Values(std::int64_t{1} << 20, 5 * (37 * 4 + 2 * 5 * 4 + 32)));

TEST(CudaPreference, SortsForAot) {
  // Policy margins 0.3, 0.1, 0.2 meet reference margins in their order: 0.3 with 0.5, 0.1 with -0.4, 0.2 with 0.
  Batch batch;
  batch.policy = {0.3f, 0.1f, 0.2f, 0, 0, 0};
  batch.reference = {0, 0.5f, -0.4f, 0, 0, 0};
  batch.log_kernel.assign(6, 0);
  auto options = options_of({{number(PreferenceLoss::aot), 1}});
  options.beta = 1;
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    const dpo_preference_args args = batch.preference(options);
    dpo_job job;
    ASSERT_EQ(dpo_backend_open(&host_services())->preference(&job, &args), DPO_OK);
    const double margins[] = {0.3 - 0.5, 0.1 + 0.4, 0.2};
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(batch.losses[i], std::log1p(std::exp(-margins[i])), 1e-6) << i;
  }
  simt::launch_order() = simt::Order::forward;
}

}  // namespace
}  // namespace dpo
