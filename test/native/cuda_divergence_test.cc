// divergence of the CUDA backend against plain loops in double, in every launch order; rows of one warp, of several, of more elements
// than a block has threads, and of more than one block.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "native/math/divergences.h"
#include "native/simt/grid.h"
#include "test/native/cuda_support.h"

namespace dpo {
namespace {

using math::Divergence;

struct Kind {
  Divergence kind;
  double parameter;
  std::function<double(const std::vector<double>&, const std::vector<double>&)> of;
};

template <class Term>
auto sum_of(const Term& term) {
  return [term](const std::vector<double>& p, const std::vector<double>& q) {
    double sum = 0;
    for (std::size_t i = 0; i < p.size(); ++i) sum += term(p[i], q[i]);
    return sum;
  };
}

double cumulative_distance(const std::vector<double>& p, const std::vector<double>& q) {
  double sum = 0, total = 0;
  for (std::size_t i = 0; i + 1 < p.size(); ++i) total += std::fabs(sum += p[i] - q[i]);
  return total;
}

double largest_log_ratio(const std::vector<double>& p, const std::vector<double>& q) {
  double largest = 0;
  for (std::size_t i = 0; i < p.size(); ++i) largest = std::max(largest, std::log(p[i] / q[i]));
  return largest;
}

const Kind kKinds[] = {
    {Divergence::kl, 0, sum_of([](double p, double q) { return p * std::log(p / q); })},
    {Divergence::js, 0.5,
     sum_of([](double p, double q) { return p / 2 * std::log(2 * p / (p + q)) + q / 2 * std::log(2 * q / (p + q)); })},
    {Divergence::tv, 0, sum_of([](double p, double q) { return std::fabs(p - q) / 2; })},
    {Divergence::chi2, 0, sum_of([](double p, double q) { return (p - q) * (p - q) / q; })},
    {Divergence::wasserstein, 1, cumulative_distance},
    {Divergence::renyi, std::numeric_limits<double>::infinity(), largest_log_ratio},
};

std::vector<double> softmax(const double* logits, std::int64_t count) {
  std::vector<double> p(logits, logits + count);
  double sum = 0;
  for (double& value : p) sum += value = std::exp(value);
  for (double& value : p) value /= sum;
  return p;
}

class CudaDivergence : public testing::TestWithParam<std::int64_t> {
 protected:
  ~CudaDivergence() override { simt::launch_order() = simt::Order::forward; }
};

TEST_P(CudaDivergence, EqualsPlainLoops) {
  constexpr std::int64_t kRows = 3;
  const std::int64_t columns = GetParam(), count = kRows * columns;
  const std::vector<float> x = numbers(count, 2, 1), y = numbers(count, 2, 2);
  std::vector<double> policy(x.begin(), x.end()), reference(y.begin(), y.end()), upstream = {1, -2, 0.5};
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    for (const Kind& kind : kKinds) {
      std::vector<double> values(kRows), gradient(static_cast<std::size_t>(count));
      dpo_divergence_args args{};
      args.policy = tensor_of(policy, {kRows, columns}, DPO_F64);
      args.reference = tensor_of(reference, {kRows, columns}, DPO_F64);
      args.divergence.kind = static_cast<std::int32_t>(kind.kind);
      args.divergence.parameter = kind.parameter;
      args.options = {1, 0};
      args.upstream = tensor_of(upstream, {kRows}, DPO_F64);
      args.values = tensor_of(values, {kRows}, DPO_F64);
      args.grad_policy = tensor_of(gradient, {kRows, columns}, DPO_F64);
      dpo_job job;
      ASSERT_EQ(dpo_backend_open(&host_services())->divergence(&job, &args), DPO_OK) << job.status.message;
      for (std::int64_t row = 0; row < kRows; ++row) {
        std::vector<double> logits(policy.begin() + row * columns, policy.begin() + (row + 1) * columns);
        const std::vector<double> q = softmax(reference.data() + row * columns, columns);
        const auto at = [&] { return kind.of(softmax(logits.data(), columns), q); };
        const double value = at(), scale = std::max(1.0, value);
        EXPECT_NEAR(values[static_cast<std::size_t>(row)], value, 1e-12 * scale) << args.divergence.kind;
        for (const std::int64_t j : {std::int64_t{0}, columns / 2, columns - 1}) {
          constexpr double kStep = 1e-5;
          double& logit = logits[static_cast<std::size_t>(j)];
          const double middle = logit;
          logit = middle + kStep;
          const double above = at();
          logit = middle - kStep;
          const double slope = (above - at()) / (2 * kStep);
          logit = middle;
          EXPECT_NEAR(gradient[static_cast<std::size_t>(row * columns + j)], slope * upstream[static_cast<std::size_t>(row)],
                      1e-8 * scale)
              << args.divergence.kind << " at " << j;
        }
      }
    }
  }
}

TEST_P(CudaDivergence, WritesTheGradientInThePlaceOfTheLogits) {
  constexpr std::int64_t kRows = 2;
  const std::int64_t columns = GetParam(), count = kRows * columns;
  const std::vector<float> reference = numbers(count, 2, 2);
  std::vector<float> policy = numbers(count, 2, 1);
  policy[static_cast<std::size_t>(columns)] = 30;  // nearly all of the second row's mass
  std::vector<double> upstream = {1, -2}, target_upstream = {0.5, 3};
  std::vector<std::int32_t> targets = {0, 1};
  const dpo_backend& backend = *dpo_backend_open(&host_services());
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    std::vector<float> apart(policy), in_place(policy), other(reference), values(kRows);
    for (std::vector<float>* gradient : {&apart, &in_place}) {
      std::vector<float> logits(policy);
      dpo_divergence_args args{};
      args.policy = tensor_of(gradient == &in_place ? in_place : logits, {kRows, columns}, DPO_F32);
      args.reference = tensor_of(other, {kRows, columns}, DPO_F32);
      args.targets = tensor_of(targets, {kRows}, DPO_I32);
      args.divergence.kind = static_cast<std::int32_t>(math::Divergence::js);
      args.divergence.parameter = 0.5;
      args.options = {1, 0};
      args.upstream = tensor_of(upstream, {kRows}, DPO_F64);
      args.target_upstream = tensor_of(target_upstream, {kRows}, DPO_F64);
      args.values = tensor_of(values, {kRows}, DPO_F32);
      args.grad_policy = tensor_of(*gradient, {kRows, columns}, DPO_F32);
      // What the device can use as it is.
      for (dpo_tensor* tensor : {&args.policy, &args.reference, &args.grad_policy}) tensor->place = DPO_DEVICE;
      dpo_job job;
      ASSERT_EQ(backend.divergence(&job, &args), DPO_OK) << job.status.message;
    }
    EXPECT_EQ(apart, in_place);
  }
}

INSTANTIATE_TEST_SUITE_P(Columns, CudaDivergence, testing::Values(2, 37, 300, 1100, 2 * 8192 + 5));

}  // namespace
}  // namespace dpo
