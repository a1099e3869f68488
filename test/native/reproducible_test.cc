// sin, cos and ln of native/math/reproducible.h against long double, which has eleven bits more.
#include "native/math/reproducible.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace dpo::math {
namespace {

double ulps(double actual, long double truth) {
  const double size = std::fabs(static_cast<double>(truth));
  return static_cast<double>(std::fabs(actual - truth)) / (std::nextafter(size, INFINITY) - size);
}

TEST(Reproducible, LogarithmsAreThoseOfLongDouble) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> exponents(-1022, 1023), near_one(0.5, 2);
  for (int i = 0; i < 200000; ++i) {
    const double x = i % 2 == 0 ? near_one(random) : std::exp2(exponents(random));
    ASSERT_LT(ulps(natural_log(x), std::log(static_cast<long double>(x))), 1) << x;
  }
  EXPECT_EQ(natural_log(1), 0);
}

TEST(Reproducible, SinesAndCosinesAreThoseOfTheLibrary) {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<double> exponents(-40, 1023);
  for (int i = 0; i < 400000; ++i) {
    const double size = std::exp2(i % 2 == 0 ? std::fmod(exponents(random), 35) : exponents(random)),
                 x = i % 4 < 2 ? size : -size;
    // The x87's own reduction knows π to 66 bits only; glibc's double functions are right to an ulp everywhere.
    const SinCos actual = sin_cos(x);
    ASSERT_LT(ulps(actual.sin, std::sin(x)), 4) << x;
    ASSERT_LT(ulps(actual.cos, std::cos(x)), 4) << x;
  }
}

TEST(Reproducible, AnglesNextToMultiplesOfAQuarterTurnLoseNoDigits) {
  for (const double x : {0.0, 1.5707963267948966, 3.1415926535897931, 1e9, 0x1p30, 0x1.fffffffffffffp29, 0x1p53, 0x1p55, 0x1p118,
                         std::numeric_limits<double>::max()}) {
    for (const double sign : {1, -1}) {
      const SinCos actual = sin_cos(sign * x);
      EXPECT_LT(ulps(actual.sin, std::sin(sign * x)), 4) << x;
      EXPECT_LT(ulps(actual.cos, std::cos(sign * x)), 4) << x;
    }
  }
  // 6381956970095103·2^797 is the double next to a multiple of π/2, and libraries lose digits there; by exact arithmetic:
  EXPECT_LT(ulps(sin_cos(0x1.6ac5b262ca1ffp+849).cos, -0x1.14ae72e6ba22fp-61L), 1);
  EXPECT_TRUE(std::isnan(sin_cos(INFINITY).sin));
  EXPECT_TRUE(std::isnan(sin_cos(NAN).cos));
  EXPECT_TRUE(std::signbit(sin_cos(-0.0).sin));
}

}  // namespace
}  // namespace dpo::math
