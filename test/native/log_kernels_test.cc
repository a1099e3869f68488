#include "native/math/log_kernels.h"

#include <gtest/gtest.h>

#include "test/native/accuracy.h"

namespace dpo::math {
namespace {

using test::error_in_epsilons;
using test::Real;

template <class T>
class LogKernels : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(LogKernels, Types);

TYPED_TEST(LogKernels, RbfWithinFourUlp) {
  using T = TypeParam;
  for (const double r2 : {0.0, 1e-20, 1e-6, 0.3, 1.0, 2.0, 4.0, 1e3, 1e8}) {
    for (const double sigma : {1e-3, 0.1, 0.7, 1.0, 3.0, 1e4}) {
      const auto k = rbf_log_kernel(T(r2), T(sigma));
      const Real s = T(sigma), r = T(r2), value = -r / (2 * s * s), r2_slope = -1 / (2 * s * s), sigma_slope = r / (s * s * s);
      EXPECT_LE(error_in_epsilons(k.value, value, -value), 4);
      EXPECT_LE(error_in_epsilons(k.r2_slope, r2_slope, -r2_slope), 4);
      EXPECT_LE(error_in_epsilons(k.sigma_slope, sigma_slope, sigma_slope), 4);
    }
  }
}

TYPED_TEST(LogKernels, RbfWhereSigmaSquaredLeavesTheRange) {
  using T = TypeParam;
  const T tiny = std::sqrt(std::numeric_limits<T>::min()) / 100;  // tiny² is subnormal
  EXPECT_NEAR(rbf_log_kernel(tiny * tiny, tiny).value, T(-0.5), 0.01);
  EXPECT_NEAR(rbf_log_kernel(tiny, tiny).value * tiny, T(-0.5), 1e-6);
}

TEST(LogKernels, RbfSlopesEqualFiniteDifferences) {
  for (const double r2 : {0.01, 0.5, 2.0, 40.0}) {
    for (const double sigma : {0.2, 0.7, 1.0, 5.0}) {
      const auto k = rbf_log_kernel(r2, sigma);
      const double r2_slope = test::five_point_slope([=](double x) { return rbf_log_kernel(x, sigma).value; }, r2, 1e-3 * r2);
      const double sigma_slope =
          test::five_point_slope([=](double x) { return rbf_log_kernel(r2, x).value; }, sigma, 1e-3 * sigma);
      EXPECT_NEAR(k.r2_slope, r2_slope, 1e-6 * std::fabs(r2_slope));
      EXPECT_NEAR(k.sigma_slope, sigma_slope, 1e-6 * std::fabs(sigma_slope));
    }
  }
}

}  // namespace
}  // namespace dpo::math
