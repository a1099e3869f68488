#include "native/math/elementary.h"

#include <gtest/gtest.h>

#include "test/native/accuracy.h"

namespace dpo::math {
namespace {

using test::error_in_epsilons;
using test::Real;

constexpr Real max_ulp = 4;

template <class T>
class Elementary : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Elementary, Types);

TYPED_TEST(Elementary, SigmoidFamily) {
  using T = TypeParam;
  test::for_each_argument<T>([](T x) {
    const Real e = std::exp(-std::fabs(Real(x)));
    const Real p = (x < 0 ? e : 1) / (1 + e);
    const Real log_p = (x < 0 ? Real(x) : 0) - std::log1p(e);
    EXPECT_LE(error_in_epsilons(sigmoid(x), p, p), max_ulp) << x;
    EXPECT_LE(error_in_epsilons(sigmoid_slope(x), e / ((1 + e) * (1 + e)), e / ((1 + e) * (1 + e))), max_ulp) << x;
    EXPECT_LE(error_in_epsilons(log_sigmoid(x), log_p, -log_p), max_ulp) << x;
    EXPECT_LE(error_in_epsilons(softplus(T(-x)), -log_p, -log_p), max_ulp) << x;
  });
}

TYPED_TEST(Elementary, Log1mexpAndLogOdds) {
  using T = TypeParam;
  test::for_each_argument<T>([](T x) {
    if (x >= log_odds_limit<T>) return;
    const Real one_minus = -std::expm1(Real(x)), log = x > -1 ? std::log(one_minus) : std::log1p(-std::exp(Real(x)));
    EXPECT_LE(error_in_epsilons(log1mexp(x), log, -log), max_ulp) << x;
    EXPECT_LE(error_in_epsilons(log_odds(x).value, {Real(x), -log}), max_ulp) << x;
    EXPECT_LE(error_in_epsilons(log_odds(x).slope, 1 / one_minus, 1 / one_minus), max_ulp) << x;
  });
}

TYPED_TEST(Elementary, LogOddsStayFiniteUpToCertainty) {
  using T = TypeParam;
  const T limit = log_odds_limit<T>;
  EXPECT_EQ(log_odds(limit).slope, log_odds(T(0)).slope);
  EXPECT_NEAR(log_odds(T(0)).value, log_odds(limit).value + 1, 1e-5);  // slope 1/epsilon over a distance of epsilon
  EXPECT_EQ(log_odds(-std::numeric_limits<T>::infinity()).value, -std::numeric_limits<T>::infinity());
}

TYPED_TEST(Elementary, ClampedExp) {
  using T = TypeParam;
  EXPECT_EQ(clamped_exp(T(80), T(80)).slope, std::exp(T(80)));
  EXPECT_EQ(clamped_exp(T(1e9), T(80)).value, std::exp(T(80)));
  EXPECT_EQ(clamped_exp(T(1e9), T(80)).slope, T(0));
}

TYPED_TEST(Elementary, NanPassesThrough) {
  const TypeParam nan = std::numeric_limits<TypeParam>::quiet_NaN();
  for (const TypeParam y : {sigmoid(nan), sigmoid_slope(nan), softplus(nan), log_sigmoid(nan), log1mexp(nan), log_odds(nan).value,
                            clamped_exp(nan, TypeParam(80)).value}) {
    EXPECT_TRUE(std::isnan(y));
  }
}

}  // namespace
}  // namespace dpo::math
