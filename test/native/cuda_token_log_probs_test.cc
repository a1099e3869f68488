// token_log_probs of the CUDA backend against plain loops in double, in every launch order, at every edge of packs, warps and
// parts.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "native/simt/grid.h"
#include "test/native/cuda_support.h"

namespace dpo {
namespace {

struct Batch {
  std::int64_t rows, columns;
  std::vector<float> logits;
  std::vector<std::int32_t> targets;

  Batch(std::int64_t n, std::int64_t v)
      : rows(n), columns(v), logits(numbers(n * v, 4, static_cast<std::uint32_t>(7 * n + v))), targets(some_targets(n, v)) {}
  double log_sum_exp(std::int64_t row) const {
    double sum = 0;
    for (std::int64_t i = 0; i < columns; ++i) sum += std::exp(static_cast<double>(at(row, i)));
    return std::log(sum);
  }
  float at(std::int64_t row, std::int64_t i) const { return logits[static_cast<std::size_t>(row * columns + i)]; }
};

class CudaTokenLogProbs : public testing::TestWithParam<std::pair<std::int64_t, std::int64_t>> {
 protected:
  CudaTokenLogProbs() : backend_(dpo_backend_open(&host_services())) {}
  ~CudaTokenLogProbs() override { simt::launch_order() = simt::Order::forward; }

  const dpo_backend* backend_;
};

TEST_P(CudaTokenLogProbs, EqualsPlainLoops) {
  Batch batch(GetParam().first, GetParam().second);
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    const auto n = static_cast<std::size_t>(batch.rows);
    std::vector<float> log_probs(n), entropy(n), grads(batch.logits.size()), upstream(n, 0.5f);
    std::vector<double> log_sum_exp(n);
    dpo_token_log_probs_args args{};
    args.logits = tensor_of(batch.logits, {batch.rows, batch.columns}, DPO_F32);
    args.targets = tensor_of(batch.targets, {batch.rows}, DPO_I32);
    args.options = {1, 0};
    args.log_probs = tensor_of(log_probs, {batch.rows}, DPO_F32);
    args.log_sum_exp = tensor_of(log_sum_exp, {batch.rows}, DPO_F64);
    args.entropy = tensor_of(entropy, {batch.rows}, DPO_F32);
    dpo_job job;
    ASSERT_EQ(backend_->token_log_probs(&job, &args), DPO_OK) << job.status.message;
    dpo_token_log_probs_vjp_args pull{};
    pull.logits = args.logits;
    pull.targets = args.targets;
    pull.log_sum_exp = args.log_sum_exp;
    pull.upstream = tensor_of(upstream, {batch.rows}, DPO_F32);
    pull.options = args.options;
    pull.grad_logits = tensor_of(grads, {batch.rows, batch.columns}, DPO_F32);
    dpo_job other;
    ASSERT_EQ(backend_->token_log_probs_vjp(&other, &pull), DPO_OK) << other.status.message;
    for (std::int64_t row = 0; row < batch.rows; ++row) {
      const auto r = static_cast<std::size_t>(row);
      const std::int32_t target = batch.targets[r];
      const bool ignored = target == DPO_IGNORED_TARGET;
      const double lse = batch.log_sum_exp(row);
      EXPECT_NEAR(log_sum_exp[r], ignored ? 0 : lse, 2e-6);
      EXPECT_NEAR(log_probs[r], ignored ? 0 : static_cast<double>(batch.at(row, target)) - lse, 2e-6);
      double mixed = 0;
      for (std::int64_t i = 0; i < batch.columns; ++i) {
        const double z = static_cast<double>(batch.at(row, i)), p = std::exp(z - lse);
        mixed -= p * (z - lse);
        const double wanted = ignored ? 0 : 0.5 * ((i == target ? 1 : 0) - p);
        ASSERT_NEAR(grads[static_cast<std::size_t>(row * batch.columns + i)], wanted, 1e-6) << "row " << row << ", column " << i;
      }
      EXPECT_NEAR(entropy[r], ignored ? 0 : mixed, 1e-5);
    }
  }
}

// Odd widths move rows off the boundaries of packs; 20000 makes several parts of a row.
INSTANTIATE_TEST_SUITE_P(Shapes, CudaTokenLogProbs,
                         testing::Values(std::pair{1, 1}, std::pair{1, 4}, std::pair{3, 5}, std::pair{4, 64}, std::pair{5, 1023},
                                         std::pair{2, 1028}, std::pair{2, 20001}));

TEST_F(CudaTokenLogProbs, NamesTheFirstBadLogit) {
  Batch batch(4, 40);
  batch.logits[40 + 31] = std::numeric_limits<float>::infinity();
  batch.logits[3 * 40 + 2] = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> log_probs(4);
  std::vector<double> log_sum_exp(4);
  dpo_token_log_probs_args args{};
  args.logits = tensor_of(batch.logits, {4, 40}, DPO_F32);
  args.targets = tensor_of(batch.targets, {4}, DPO_I32);
  args.options = {1, 0};
  args.log_probs = tensor_of(log_probs, {4}, DPO_F32);
  args.log_sum_exp = tensor_of(log_sum_exp, {4}, DPO_F64);
  dpo_job job;
  EXPECT_EQ(backend_->token_log_probs(&job, &args), DPO_ERR_NONFINITE);
  EXPECT_EQ(job.status.index, 40 + 31);
}

}  // namespace
}  // namespace dpo
