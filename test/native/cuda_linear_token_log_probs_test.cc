// linear_token_log_probs of the CUDA backend against plain loops in double, in every launch order, in one block and in several.
#include <gtest/gtest.h>

#include <cmath>

#include "native/simt/grid.h"
#include "test/native/cuda_support.h"

namespace dpo {
namespace {

struct Shape {
  std::int64_t rows, depth, columns, memory_limit;
};

class CudaLinearTokenLogProbs : public testing::TestWithParam<Shape> {
 protected:
  ~CudaLinearTokenLogProbs() override { simt::launch_order() = simt::Order::forward; }
};

TEST_P(CudaLinearTokenLogProbs, EqualsPlainLoops) {
  const auto [n, d, v, memory_limit] = GetParam();
  std::vector<float> hidden = numbers(n * d, 1, 1), weight = numbers(v * d, 1, 2), bias = numbers(v, 1, 3),
                     upstream = numbers(n, 1, 4);
  std::vector<std::int32_t> targets = some_targets(n, v);
  const auto rows = static_cast<std::size_t>(n), depth = static_cast<std::size_t>(d), columns = static_cast<std::size_t>(v);

  std::vector<double> logits(rows * columns), sums(rows), of_hidden(rows * depth), of_weight(columns * depth), of_bias(columns);
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < columns; ++j) {
      double z = static_cast<double>(bias[j]);
      for (std::size_t k = 0; k < depth; ++k)
        z += static_cast<double>(hidden[i * depth + k]) * static_cast<double>(weight[j * depth + k]);
      logits[i * columns + j] = z;
      sums[i] += std::exp(z);
    }
    sums[i] = std::log(sums[i]);
    if (targets[i] == DPO_IGNORED_TARGET) continue;
    for (std::size_t j = 0; j < columns; ++j) {
      const double p = std::exp(logits[i * columns + j] - sums[i]), is_target = static_cast<std::size_t>(targets[i]) == j ? 1 : 0;
      const double grad = static_cast<double>(upstream[i]) * (is_target - p);
      of_bias[j] += grad;
      for (std::size_t k = 0; k < depth; ++k) {
        of_hidden[i * depth + k] += grad * static_cast<double>(weight[j * depth + k]);
        of_weight[j * depth + k] += grad * static_cast<double>(hidden[i * depth + k]);
      }
    }
  }

  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    const dpo_backend* backend = dpo_backend_open(&host_services());
    std::vector<float> log_probs(rows), grad_hidden(rows * depth), grad_weight(columns * depth), grad_bias(columns);
    std::vector<double> log_sum_exp(rows);
    dpo_linear_token_log_probs_args args{};
    args.head = {tensor_of(hidden, {n, d}, DPO_F32), tensor_of(weight, {v, d}, DPO_F32), tensor_of(bias, {v}, DPO_F32)};
    args.targets = tensor_of(targets, {n}, DPO_I32);
    args.options = {1, 0};
    args.memory_limit = memory_limit;
    args.log_probs = tensor_of(log_probs, {n}, DPO_F32);
    args.log_sum_exp = tensor_of(log_sum_exp, {n}, DPO_F64);
    dpo_job job;
    ASSERT_EQ(backend->linear_token_log_probs(&job, &args), DPO_OK) << job.status.message;
    dpo_linear_token_log_probs_vjp_args pull{};
    pull.head = args.head;
    pull.targets = args.targets;
    pull.log_sum_exp = args.log_sum_exp;
    pull.upstream = tensor_of(upstream, {n}, DPO_F32);
    pull.options = args.options;
    pull.memory_limit = memory_limit;
    pull.grads = {tensor_of(grad_hidden, {n, d}, DPO_F32), tensor_of(grad_weight, {v, d}, DPO_F32),
                  tensor_of(grad_bias, {v}, DPO_F32)};
    dpo_job other;
    ASSERT_EQ(backend->linear_token_log_probs_vjp(&other, &pull), DPO_OK) << other.status.message;
    for (std::size_t i = 0; i < rows; ++i) {
      const bool ignored = targets[i] == DPO_IGNORED_TARGET;
      EXPECT_NEAR(log_sum_exp[i], ignored ? 0 : sums[i], 4e-6);
      EXPECT_NEAR(log_probs[i], ignored ? 0 : logits[i * columns + static_cast<std::size_t>(targets[i])] - sums[i], 4e-6);
    }
    for (std::size_t i = 0; i < of_hidden.size(); ++i) ASSERT_NEAR(grad_hidden[i], of_hidden[i], 4e-6) << i;
    for (std::size_t i = 0; i < of_weight.size(); ++i) ASSERT_NEAR(grad_weight[i], of_weight[i], 4e-6) << i;
    for (std::size_t i = 0; i < of_bias.size(); ++i) ASSERT_NEAR(grad_bias[i], of_bias[i], 4e-6) << i;
  }
}

constexpr std::int64_t kMuch = std::int64_t{64} << 20;
// 5000 words are two blocks of the vocabulary, and 40 rows in a small memory two blocks of rows.
INSTANTIATE_TEST_SUITE_P(Shapes, CudaLinearTokenLogProbs,
                         testing::Values(Shape{1, 1, 1, kMuch}, Shape{4, 7, 33, kMuch}, Shape{5, 3, 300, kMuch},
                                         Shape{4, 5, 5000, kMuch}, Shape{40, 2, 5000, 1}));

}  // namespace
}  // namespace dpo
