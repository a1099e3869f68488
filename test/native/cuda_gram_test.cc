// gram, its pull-back, its product with vectors and mmd of the CUDA backend against plain loops in double, in every launch order:
// a Gaussian on norms and products and on differences, and a mixture with a Laplacian and another Gaussian, which sees the same
// distances, on rows that fill no tile.
#include <gtest/gtest.h>

#include <cmath>

#include "native/math/log_kernels.h"
#include "native/simt/grid.h"
#include "test/native/cuda_support.h"

namespace dpo {
namespace {

using Numbers = std::vector<double>;

constexpr double kSigma = 1.5, kTau = 2.5, kOtherSigma = 2.2;

struct Shape {
  std::int64_t n, m, d;
};

class CudaGram : public testing::TestWithParam<Shape> {
 protected:
  CudaGram() {
    const std::vector<float> of_x = numbers(shape_.n * shape_.d, 1, 1), of_y = numbers(shape_.m * shape_.d, 1, 2),
                             of_u = numbers(shape_.n * shape_.m, 1, 3);
    x_.assign(of_x.begin(), of_x.end());
    y_.assign(of_y.begin(), of_y.end());
    upstream_.assign(of_u.begin(), of_u.end());
  }
  ~CudaGram() override { simt::launch_order() = simt::Order::forward; }

  /// rbf alone, or a third each of it, a Laplacian and another rbf.
  dpo_gram_rows rows(bool mixture, bool exact) {
    dpo_gram_rows of{};
    of.x = tensor_of(x_, {shape_.n, shape_.d}, DPO_F64);
    of.y = tensor_of(y_, {shape_.m, shape_.d}, DPO_F64);
    of.exact = exact;
    of.kernel.member_count = mixture ? 3 : 1;
    of.kernel.members[0].formula.kind = static_cast<std::int32_t>(math::LogKernel::rbf);
    of.kernel.members[0].formula.parameters = tensor_of(sigma_, {1}, DPO_F64);
    if (!mixture) return of;
    of.kernel.members[1].formula.kind = static_cast<std::int32_t>(math::LogKernel::laplacian);
    of.kernel.members[1].formula.parameters = tensor_of(tau_, {1}, DPO_F64);
    of.kernel.members[2].formula.kind = static_cast<std::int32_t>(math::LogKernel::rbf);
    of.kernel.members[2].formula.parameters = tensor_of(other_sigma_, {1}, DPO_F64);
    of.kernel.group_count = 1;
    of.kernel.parents = tensor_of(parents_, {4}, DPO_I32);
    of.kernel.logits = tensor_of(logits_, {4}, DPO_F64);
    return of;
  }

  double kernel(const double* u, const double* v, bool mixture, double sigma = kSigma) const {
    double square = 0, magnitude = 0;
    for (std::int64_t k = 0; k < shape_.d; ++k) {
      square += (u[k] - v[k]) * (u[k] - v[k]);
      magnitude += std::fabs(u[k] - v[k]);
    }
    const double gaussian = std::exp(-square / (2 * sigma * sigma));
    if (!mixture) return gaussian;
    return (gaussian + std::exp(-magnitude / kTau) + std::exp(-square / (2 * kOtherSigma * kOtherSigma))) / 3;
  }
  double kernel(std::int64_t i, std::int64_t j, bool mixture) const {
    return kernel(x_.data() + i * shape_.d, y_.data() + j * shape_.d, mixture);
  }
  double loss(bool mixture, double sigma = kSigma) const {
    double sum = 0;
    for (std::int64_t i = 0; i < shape_.n; ++i) {
      for (std::int64_t j = 0; j < shape_.m; ++j)
        sum += upstream_[static_cast<std::size_t>(i * shape_.m + j)] *
               kernel(x_.data() + i * shape_.d, y_.data() + j * shape_.d, mixture, sigma);
    }
    return sum;
  }
  double slope(double& of, bool mixture) const {
    constexpr double kStep = 1e-5;
    const double middle = of;
    of = middle + kStep;
    const double above = loss(mixture);
    of = middle - kStep;
    const double result = (above - loss(mixture)) / (2 * kStep);
    of = middle;
    return result;
  }
  static double mean(const Numbers& of) {
    double sum = 0;
    for (const double value : of) sum += value;
    return sum / static_cast<double>(of.size());
  }

  const Shape shape_ = GetParam();
  Numbers x_, y_, upstream_, sigma_{kSigma}, tau_{kTau}, other_sigma_{kOtherSigma}, logits_{0, 0, 0, 0};
  std::vector<std::int32_t> parents_{-1, 0, 0, 0};
};

TEST_P(CudaGram, EqualsPlainLoops) {
  const auto [n, m, d] = shape_;
  const dpo_backend* backend = dpo_backend_open(&host_services());
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    for (const bool mixture : {false, true}) {
      for (const bool exact : {false, true}) {
        Numbers gram(static_cast<std::size_t>(n * m)), sums(static_cast<std::size_t>(n)), ones(static_cast<std::size_t>(m), 1);
        dpo_job job;
        const dpo_gram_args args{rows(mixture, exact), tensor_of(gram, {n, m}, DPO_F64)};
        ASSERT_EQ(backend->gram(&job, &args), DPO_OK) << job.status.message;
        const dpo_gram_reduce_args reduce{rows(mixture, exact), tensor_of(ones, {m, 1}, DPO_F64), tensor_of(sums, {n, 1}, DPO_F64)};
        dpo_job reduce_job;
        ASSERT_EQ(backend->gram_reduce(&reduce_job, &reduce), DPO_OK) << reduce_job.status.message;
        for (std::int64_t i = 0; i < n; ++i) {
          double sum = 0;
          for (std::int64_t j = 0; j < m; ++j) {
            EXPECT_NEAR(gram[static_cast<std::size_t>(i * m + j)], kernel(i, j, mixture), 1e-13);
            sum += kernel(i, j, mixture);
          }
          EXPECT_NEAR(sums[static_cast<std::size_t>(i)], sum, 1e-12);
        }
      }
    }
  }
}

TEST_P(CudaGram, PullsBackAsFiniteDifferences) {
  const auto [n, m, d] = shape_;
  const dpo_backend* backend = dpo_backend_open(&host_services());
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    for (const auto& [mixture, exact] : {std::pair{false, false}, {true, false}, {true, true}}) {
      Numbers of_x(x_.size()), of_y(y_.size()), of_sigma(1), of_tau(1), of_other_sigma(1), of_logits(4);
      dpo_gram_vjp_args args{};
      args.rows = rows(mixture, exact);
      args.upstream = tensor_of(upstream_, {n, m}, DPO_F64);
      args.grads.x = tensor_of(of_x, {n, d}, DPO_F64);
      args.grads.y = tensor_of(of_y, {m, d}, DPO_F64);
      args.grads.kernel.parameters[0] = tensor_of(of_sigma, {1}, DPO_F64);
      if (mixture) {
        args.grads.kernel.parameters[1] = tensor_of(of_tau, {1}, DPO_F64);
        args.grads.kernel.parameters[2] = tensor_of(of_other_sigma, {1}, DPO_F64);
        args.grads.kernel.logits = tensor_of(of_logits, {4}, DPO_F64);
      }
      dpo_job job;
      ASSERT_EQ(backend->gram_vjp(&job, &args), DPO_OK) << job.status.message;
      for (const std::size_t at : {std::size_t{0}, x_.size() / 2, x_.size() - 1})
        EXPECT_NEAR(of_x[at], slope(x_[at], mixture), 1e-8);
      for (const std::size_t at : {std::size_t{0}, y_.size() - 1}) EXPECT_NEAR(of_y[at], slope(y_[at], mixture), 1e-8);
      EXPECT_NEAR(of_sigma[0], (loss(mixture, kSigma + 1e-5) - loss(mixture, kSigma - 1e-5)) / 2e-5, 1e-8);
    }
  }
}

TEST_P(CudaGram, MakesMmdOfThreeMeans) {
  const auto [n, m, d] = shape_;
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    Numbers within_x, within_y, between;
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < n; ++j) within_x.push_back(kernel(x_.data() + i * d, x_.data() + j * d, true));
      for (std::int64_t j = 0; j < m; ++j) between.push_back(kernel(i, j, true));
    }
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < m; ++j) within_y.push_back(kernel(y_.data() + i * d, y_.data() + j * d, true));
    }
    Numbers mmd2(1);
    dpo_mmd_args args{};
    args.rows = rows(true, false);
    args.mmd2 = tensor_of(mmd2, {1}, DPO_F64);
    dpo_job job;
    ASSERT_EQ(dpo_backend_open(&host_services())->mmd(&job, &args), DPO_OK) << job.status.message;
    EXPECT_NEAR(mmd2[0], mean(within_x) + mean(within_y) - 2 * mean(between), 1e-13);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaGram, testing::Values(Shape{1, 1, 1}, Shape{17, 35, 5}, Shape{33, 18, 19}));

}  // namespace
}  // namespace dpo
