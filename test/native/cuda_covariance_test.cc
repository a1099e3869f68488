// covariance of the CUDA backend against plain loops in double, in every launch order, and over several chunks of rows.
#include <gtest/gtest.h>

#include <cmath>

#include "native/core/private_covariance.h"
#include "native/math/shrinkage.h"
#include "native/simt/grid.h"
#include "test/native/cuda_support.h"

namespace dpo {
namespace {

using Numbers = std::vector<double>;

class CudaCovariance : public testing::Test {
 protected:
  ~CudaCovariance() override { simt::launch_order() = simt::Order::forward; }

  dpo_status estimate(dpo_job& job, std::int64_t rows, std::int64_t depth, std::int32_t method) {
    covariance_.assign(static_cast<std::size_t>(depth * depth), 0);
    mean_.assign(static_cast<std::size_t>(depth), 0);
    shrinkage_.assign(1, -1);
    args_.x = tensor_of(x_, {rows, depth}, DPO_F64);
    args_.method = method;
    args_.covariance = tensor_of(covariance_, {depth, depth}, DPO_F64);
    args_.mean = tensor_of(mean_, {depth}, DPO_F64);
    args_.shrinkage = tensor_of(shrinkage_, {1}, DPO_F64);
    return dpo_backend_open(&host_services())->covariance(&job, &args_);
  }

  void make(std::int64_t rows, std::int64_t depth) {
    const std::vector<float> values = numbers(rows * depth, 1, 5);
    x_.assign(values.begin(), values.end());
  }

  Numbers mean(std::size_t depth) const {
    Numbers mean(depth);
    for (std::size_t i = 0; i < x_.size(); ++i) mean[i % depth] += x_[i];
    for (double& value : mean) value /= static_cast<double>(x_.size() / depth);
    return mean;
  }
  /// And Σ ‖x‖⁴.
  Numbers mean_products(std::size_t depth, const Numbers& mean, double& fourth) const {
    Numbers products(depth * depth);
    const std::size_t rows = x_.size() / depth;
    fourth = 0;
    for (std::size_t r = 0; r < rows; ++r) {
      double square = 0;
      for (std::size_t i = 0; i < depth; ++i) {
        const double centered = x_[r * depth + i] - mean[i];
        square += centered * centered;
        for (std::size_t j = 0; j < depth; ++j)
          products[i * depth + j] += centered * (x_[r * depth + j] - mean[j]) / static_cast<double>(rows);
      }
      fourth += square * square;
    }
    return products;
  }

  dpo_covariance_args args_{};
  Numbers x_, covariance_, mean_, shrinkage_;
};

TEST_F(CudaCovariance, EqualsPlainLoops) {
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    for (const std::size_t depth : {1, 5, 37, 300}) {
      constexpr std::int64_t kRows = 11;
      make(kRows, static_cast<std::int64_t>(depth));
      const Numbers center = mean(depth);
      double fourth = 0;
      const Numbers products = mean_products(depth, center, fourth);
      math::Moments moments{};
      for (std::size_t i = 0; i < depth; ++i) moments.trace += products[i * depth + i];
      for (const double value : products) moments.squares += value * value;
      for (const std::int32_t method : {DPO_COVARIANCE_SAMPLE, DPO_COVARIANCE_LEDOIT_WOLF, DPO_COVARIANCE_OAS}) {
        const auto n = static_cast<double>(depth);
        const double share = method == DPO_COVARIANCE_SAMPLE ? 0
                             : method == DPO_COVARIANCE_OAS  ? math::oas_shrinkage(moments, kRows, n)
                                                             : math::ledoit_wolf_shrinkage(moments, fourth, kRows, n);
        dpo_job job;
        ASSERT_EQ(estimate(job, kRows, static_cast<std::int64_t>(depth), method), DPO_OK) << job.status.message;
        EXPECT_NEAR(shrinkage_[0], share, 1e-11);
        for (std::size_t i = 0; i < depth; ++i) EXPECT_NEAR(mean_[i], center[i], 1e-14);
        for (std::size_t i = 0; i < depth * depth; ++i) {
          const double expected = math::shrunk(products[i], i / depth == i % depth, share, moments.trace / n);
          ASSERT_NEAR(covariance_[i], expected, 1e-11) << method;
          ASSERT_EQ(covariance_[i], covariance_[i % depth * depth + i / depth]);
        }
      }
    }
  }
}

TEST_F(CudaCovariance, OverSeveralChunksAndPartsOfRowsToo) {
  constexpr std::int64_t kRows = 16400, kDepth = 64;
  make(kRows, kDepth);
  // One row and column of the product is enough to see that every chunk is in it, and takes less than all.
  for (std::size_t i = 0; i < x_.size(); ++i) x_[i] = i % kDepth == 0 ? x_[i] : 0;
  dpo_job job;
  ASSERT_EQ(estimate(job, kRows, kDepth, DPO_COVARIANCE_SAMPLE), DPO_OK) << job.status.message;
  double sum = 0, square = 0;
  for (std::int64_t r = 0; r < kRows; ++r) sum += x_[static_cast<std::size_t>(r * kDepth)];
  for (std::int64_t r = 0; r < kRows; ++r) square += std::pow(x_[static_cast<std::size_t>(r * kDepth)] - sum / kRows, 2);
  EXPECT_NEAR(mean_[0], sum / kRows, 1e-14);
  EXPECT_NEAR(covariance_[0], square / kRows, 1e-13);
  EXPECT_EQ(covariance_.back(), 0);
}

TEST_F(CudaCovariance, PrivateOnesAreClippedAndHaveTheNoiseOfTheirSeed) {
  // Enough on the diagonal that no eigenvalue is below 0.
  constexpr std::int64_t kDepth = 6;
  x_.assign(kDepth * kDepth, 0);
  for (std::size_t i = 0; i < kDepth; ++i) x_[i * kDepth + i] = 1e300;
  args_.clip = 10;
  args_.count = 4;
  args_.noise_scale = 0.5;
  args_.seed = 3;
  const SymmetricNoise noise = SymmetricNoise::of(args_);
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    dpo_job job;
    ASSERT_EQ(estimate(job, kDepth, kDepth, DPO_COVARIANCE_PRIVATE), DPO_OK) << job.status.message;
    for (std::int64_t i = 0; i < kDepth; ++i) {
      for (std::int64_t j = 0; j <= i; ++j)
        EXPECT_NEAR(covariance_[static_cast<std::size_t>(i * kDepth + j)], ((i == j ? 100 : 0) + noise.at(i, j)) / 4, 1e-12);
    }
  }
}

TEST_F(CudaCovariance, PrivateOnesOfNoiseAloneArePositiveSemidefinite) {
  constexpr std::size_t kDepth = 2;
  x_.assign(kDepth, 0);
  args_.clip = args_.count = args_.noise_scale = 1;
  for (int seed = 0; seed < 20; ++seed) {
    args_.seed = seed;
    dpo_job job;
    ASSERT_EQ(estimate(job, 1, kDepth, DPO_COVARIANCE_PRIVATE), DPO_OK) << job.status.message;
    EXPECT_GE(covariance_[0], 0);
    EXPECT_GE(covariance_[3], 0);
    EXPECT_GE(covariance_[0] * covariance_[3] - covariance_[1] * covariance_[2], -1e-15);
  }
}

TEST_F(CudaCovariance, RefusesWhatOverflows) {
  x_ = {1e200, -1e200, 1, 1};
  dpo_job job;
  EXPECT_EQ(estimate(job, 2, 2, DPO_COVARIANCE_SAMPLE), DPO_ERR_RANGE);
  EXPECT_EQ(job.status.message, "covariance: overflows");
}

}  // namespace
}  // namespace dpo
