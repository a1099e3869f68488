#include "native/math/reward_transforms.h"

#include <gtest/gtest.h>

#include "test/native/accuracy.h"

namespace dpo::math {
namespace {

using test::error_in_epsilons;
using test::Real;

template <class T>
class RewardTransforms : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(RewardTransforms, Types);

TYPED_TEST(RewardTransforms, ReverseKlIsTheIdentity) {
  using T = TypeParam;
  test::for_each_argument<T>([](T rho) {
    const auto phi = reward_transform(RewardTransform::reverse_kl, rho, T(0.5));
    EXPECT_EQ(phi.value, rho);
    EXPECT_EQ(phi.slope, T(1));
  });
}

TYPED_TEST(RewardTransforms, ForwardKl) {
  using T = TypeParam;
  test::for_each_argument<T>([](T rho) {
    const auto phi = reward_transform(RewardTransform::forward_kl, rho, T(0.5));
    const Real e = std::exp(std::min(-Real(rho), Real(80)));
    EXPECT_LE(error_in_epsilons(phi.value, -e, e), 4) << rho;
    EXPECT_LE(error_in_epsilons(phi.slope, rho < -80 ? 0 : e, e), 4) << rho;
  });
}

TYPED_TEST(RewardTransforms, JsDivergence) {
  using T = TypeParam;
  test::for_each_argument<T>([](T rho) {
    const auto phi = reward_transform(RewardTransform::js_divergence, rho, T(0.5));
    const Real log_p = -std::log1p(std::exp(-Real(rho))), p = 1 / (1 + std::exp(Real(rho)));
    EXPECT_LE(error_in_epsilons(phi.value, log_p, -log_p), 4) << rho;
    EXPECT_LE(error_in_epsilons(phi.slope, p, p), 4) << rho;
  });
}

TYPED_TEST(RewardTransforms, AlphaDivergence) {
  using T = TypeParam;
  for (const double alpha : {-1.0, 0.0, 0.3, 0.5, 0.99, 1.01, 2.0, 3.0}) {
    test::for_each_argument<T>([alpha](T rho) {
      const auto phi = reward_transform(RewardTransform::alpha_divergence, rho, T(alpha));
      const Real c = Real(T(alpha)) - 1, t = c * rho, e = std::exp(std::min(t, Real(80)));
      // Rounding α − 1 and the exponent costs |exponent| units of the result, whatever the evaluation.
      const Real bound = 4 + 2 * std::min(std::fabs(t), Real(750));
      EXPECT_LE(error_in_epsilons(phi.value, e / c, std::fabs(e / c)), bound) << alpha << ' ' << rho;
      EXPECT_LE(error_in_epsilons(phi.slope, t > 80 ? 0 : e, e), bound) << alpha << ' ' << rho;
    });
  }
}

TYPED_TEST(RewardTransforms, AlphaOneIsReverseKl) {
  using T = TypeParam;
  for (const double alpha : {1.0, 1 + 5e-7, 1 - 5e-7}) {
    const auto phi = reward_transform(RewardTransform::alpha_divergence, T(-3.25), T(alpha));
    EXPECT_EQ(phi.value, T(-3.25));
    EXPECT_EQ(phi.slope, T(1));
  }
}

TYPED_TEST(RewardTransforms, FiniteEverywhere) {
  using T = TypeParam;
  for (const auto transform : {RewardTransform::reverse_kl, RewardTransform::forward_kl, RewardTransform::js_divergence,
                               RewardTransform::alpha_divergence}) {
    for (const double alpha : {-5.0, 0.5, 0.999, 1 - 2e-6, 1 + 2e-6, 1 + 1e-4, 1.001, 7.0}) {
      for (const double rho : {-1e30, -1e9, -1e4, -80.0, 0.0, 80.0, 1e4, 1e9, 1e30}) {
        const auto phi = reward_transform(transform, T(rho), T(alpha));
        EXPECT_TRUE(std::isfinite(phi.value) && std::isfinite(phi.slope)) << int(transform) << ' ' << alpha << ' ' << rho;
      }
    }
  }
}

TEST(RewardTransforms, SlopesEqualFiniteDifferences) {
  for (const auto transform : {RewardTransform::reverse_kl, RewardTransform::forward_kl, RewardTransform::js_divergence,
                               RewardTransform::alpha_divergence}) {
    for (const double alpha : {-1.0, 0.5, 1.5, 3.0}) {
      for (const double rho : {-20.0, -2.0, -0.1, 0.0, 0.3, 5.0, 20.0}) {
        const double slope =
            test::five_point_slope([=](double x) { return reward_transform(transform, x, alpha).value; }, rho, 1e-3);
        EXPECT_NEAR(reward_transform(transform, rho, alpha).slope, slope, 1e-6 * std::fabs(slope) + 1e-11);
      }
    }
  }
}

}  // namespace
}  // namespace dpo::math
