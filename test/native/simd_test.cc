#include "native/cpu/simd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <type_traits>
#include <vector>

#include "native/cpu/row_ratios.h"

namespace dpo::cpu {
namespace {

template <class T>
constexpr T kInf = std::numeric_limits<T>::infinity();
template <class T>
constexpr T kNan = std::numeric_limits<T>::quiet_NaN();

// The distance from the exact value in units of the last place of T at that value.
template <class T>
long double ulps(T value, long double exact) {
  const int exponent = std::max(std::ilogb(static_cast<T>(exact)), std::numeric_limits<T>::min_exponent - 1);
  return std::abs(static_cast<long double>(value) - exact) / std::ldexp(1.0L, exponent + 1 - std::numeric_limits<T>::digits);
}

template <class T>
T lane(Vec<T> v, int i) {
  return v[i];
}

// n numbers in equal steps from low to high, both included.
template <class T>
std::vector<T> steps(T low, T high, int n) {
  std::vector<T> values;
  for (int i = 0; i < n; ++i) {
    values.push_back(low + (high - low) * (static_cast<T>(i) / static_cast<T>(n - 1)));
  }
  return values;
}

// n random numbers 2^a, where a is spread evenly up to the given exponent from the one of the smallest denormal.
template <class T>
std::vector<T> magnitudes(T highest_exponent, int n) {
  std::mt19937 random(11);
  std::uniform_real_distribution<T> exponent(std::numeric_limits<T>::min_exponent - std::numeric_limits<T>::digits,
                                             highest_exponent);
  std::vector<T> values;
  for (int i = 0; i < n; ++i) {
    values.push_back(std::exp2(exponent(random)));
  }
  return values;
}

template <class T>
std::vector<T> negated(std::vector<T> values) {
  for (T& value : values) {
    value = -value;
  }
  return values;
}

// The largest error of function over the numbers of all samples, in ulps of the exact results; infinite where a result is NaN.
template <class T, class F, class R>
long double worst_ulps(const std::vector<std::vector<T>>& samples, F function, R reference) {
  long double worst = 0;
  for (const std::vector<T>& sample : samples) {
    for (std::size_t i = 0; i < sample.size(); i += static_cast<std::size_t>(lanes<T>)) {
      const int n = static_cast<int>(std::min(sample.size() - i, static_cast<std::size_t>(lanes<T>)));
      const Vec<T> x = load_partial(sample.data() + i, n, T{0});
      const Vec<T> y = function(x);
      for (int j = 0; j < n; ++j) {
        const long double error = ulps(lane<T>(y, j), reference(static_cast<long double>(lane<T>(x, j))));
        worst = std::isnan(error) ? kInf<long double> : std::max(worst, error);
      }
    }
  }
  return worst;
}

// What function gives for value in any one lane, whichever lane it is; the other lanes hold 0 and must give at_zero.
template <class T, class F>
T in_every_lane(F function, T value, T at_zero) {
  T result = 0;
  for (int at = 0; at < lanes<T>; ++at) {
    Vec<T> x{};
    x[at] = value;
    const Vec<T> y = function(x);
    for (int i = 0; i < lanes<T>; ++i) {
      if (i != at) {
        EXPECT_EQ(lane<T>(y, i), at_zero) << value;
      }
    }
    if (at > 0 && !std::isnan(result)) {
      EXPECT_EQ(lane<T>(y, at), result) << value;
    }
    result = lane<T>(y, at);
  }
  return result;
}

// NaNs of both signs, and with payloads that tricks with the exponent get wrong.
template <class T>
std::vector<T> nans() {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  std::vector<T> values{kNan<T>, -kNan<T>};
  for (const Bits payload : {Bits{1}, Bits{0x1f}, Bits{0xff}, Bits{0x7ff}, Bits{0xfff}}) {
    values.push_back(std::bit_cast<T>(std::bit_cast<Bits>(kInf<T>) | payload));
  }
  return values;
}

template <class T>
class SimdTest : public testing::Test {};
using ComputeTypes = testing::Types<float, double>;
TYPED_TEST_SUITE(SimdTest, ComputeTypes);

template <class S>
class StorageTest : public testing::Test {};
using StorageTypes = testing::Types<float, double, bf16, f16>;
TYPED_TEST_SUITE(StorageTest, StorageTypes);

TYPED_TEST(SimdTest, ExpIsWithinItsBound) {
  using T = TypeParam;
  const T low = std::log(std::numeric_limits<T>::min());
  const T high = std::log(std::numeric_limits<T>::max());
  constexpr int n = 200000 / lanes<T> * lanes<T>;
  long double worst = 0;
  for (int i = 0; i < n; i += lanes<T>) {
    Vec<T> x{};
    for (int j = 0; j < lanes<T>; ++j) {
      x[j] = low + (high - low) * static_cast<T>(i + j) / n;
      // Every other sample lies near zero, where losses spend their time.
      if (j % 2 == 1) {
        x[j] *= static_cast<T>(0.01);
      }
    }
    const Vec<T> y = exp(x);
    for (int j = 0; j < lanes<T>; ++j) {
      const long double exact = std::exp(static_cast<long double>(lane<T>(x, j)));
      if (exact >= static_cast<long double>(std::numeric_limits<T>::min())) {
        worst = std::max(worst, ulps(lane<T>(y, j), exact));
      }
    }
  }
  this->RecordProperty("worst_ulp_thousandths", static_cast<int>(worst * 1000));
  EXPECT_LT(worst, 1.25L);
}

TYPED_TEST(SimdTest, ExpOfSpecialValues) {
  using T = TypeParam;
  constexpr T min = std::numeric_limits<T>::min();
  const T tiny = std::log(min) - 1;
  for (int at = 0; at < lanes<T>; ++at) {
    // A special value in one lane changes that lane only.
    const auto one_lane = [at](T value) {
      Vec<T> x{};
      x[at] = value;
      const Vec<T> y = exp(x);
      for (int i = 0; i < lanes<T>; ++i) {
        if (i != at) {
          EXPECT_EQ(lane<T>(y, i), T{1});
        }
      }
      return lane<T>(y, at);
    };
    EXPECT_EQ(one_lane(T{0}), T{1});
    EXPECT_EQ(one_lane(-T{0}), T{1});
    EXPECT_EQ(one_lane(-kInf<T>), T{0});
    EXPECT_FALSE(std::signbit(one_lane(-kInf<T>)));
    EXPECT_EQ(one_lane(std::numeric_limits<T>::lowest()), T{0});
    EXPECT_EQ(one_lane(T(-1e4)), T{0});
    EXPECT_EQ(one_lane(kInf<T>), kInf<T>);
    EXPECT_EQ(one_lane(std::numeric_limits<T>::max()), kInf<T>);
    EXPECT_EQ(one_lane(std::numeric_limits<T>::denorm_min()), T{1});
    EXPECT_EQ(one_lane(tiny), T{0});
    EXPECT_TRUE(std::isnan(one_lane(kNan<T>)));
    EXPECT_TRUE(std::isnan(one_lane(-kNan<T>)));
  }
  // A NaN with the lowest payload bit set, which shifting exponent tricks get wrong.
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  const T payload = std::bit_cast<T>(std::bit_cast<Bits>(kInf<T>) | Bits{0x1f});
  EXPECT_TRUE(std::isnan(lane<T>(exp(broadcast(payload)), 0)));
}

/// Steps over the arguments around the one beyond which e^x does not fit.
template <class T, class Exact, class Vectorised>
void expect_same_overflow(Exact exact, Vectorised vectorised) {
  T x = std::log(std::numeric_limits<T>::max());
  for (int i = 0; i < 100; ++i) x = std::nextafter(x, T{0});
  for (int i = 0; i < 200; ++i) {
    const T truth = exact(x);
    const T value = lane<T>(vectorised(broadcast(x)), 0);
    if (std::isinf(truth)) {
      EXPECT_EQ(value, truth) << x;
    } else {
      EXPECT_LE(ulps(value, static_cast<long double>(truth)), 1.6L) << x;
    }
    x = std::nextafter(x, kInf<T>);
  }
}

TYPED_TEST(SimdTest, ExpAndExpm1TurnToInfinityWhereTheResultsDo) {
  using T = TypeParam;
  expect_same_overflow<T>([](T x) { return std::exp(x); }, [](Vec<T> x) { return exp(x); });
  expect_same_overflow<T>([](T x) { return std::expm1(x); }, [](Vec<T> x) { return expm1(x); });
}

TYPED_TEST(SimdTest, LogIsWithinItsBound) {
  using T = TypeParam;
  std::mt19937 random(7);
  std::uniform_real_distribution<T> exponent(std::numeric_limits<T>::min_exponent - std::numeric_limits<T>::digits + 1,
                                             std::numeric_limits<T>::max_exponent - 1);
  std::uniform_real_distribution<T> near_one(T(0.5), T(2));
  long double worst = 0;
  for (int i = 0; i < 100000; i += lanes<T>) {
    Vec<T> x{};
    for (int j = 0; j < lanes<T>; ++j) {
      x[j] = j % 2 == 0 ? near_one(random) : std::exp2(exponent(random));
    }
    const Vec<T> y = log(x);
    for (int j = 0; j < lanes<T>; ++j) {
      worst = std::max(worst, ulps(lane<T>(y, j), std::log(static_cast<long double>(lane<T>(x, j)))));
    }
  }
  this->RecordProperty("worst_ulp_thousandths", static_cast<int>(worst * 1000));
  EXPECT_LT(worst, 1.1L);
}

TYPED_TEST(SimdTest, LogOfSpecialValues) {
  using T = TypeParam;
  const auto of = [](T x) { return lane<T>(log(broadcast(x)), lanes<T> - 1); };
  EXPECT_EQ(of(1), T{0});
  EXPECT_EQ(of(0), -kInf<T>);
  EXPECT_EQ(of(-T{0}), -kInf<T>);
  EXPECT_EQ(of(kInf<T>), kInf<T>);
  EXPECT_TRUE(std::isnan(of(-1)));
  EXPECT_TRUE(std::isnan(of(-kInf<T>)));
  EXPECT_TRUE(std::isnan(of(kNan<T>)));
  constexpr T denormal = std::numeric_limits<T>::denorm_min();
  EXPECT_LE(ulps(of(denormal), std::log(static_cast<long double>(denormal))), 1.1L);
}

TYPED_TEST(SimdTest, Expm1IsWithinItsBound) {
  using T = TypeParam;
  const auto worst = [](const std::vector<std::vector<T>>& samples) {
    return worst_ulps<T>(
        samples, [](Vec<T> x) { return expm1(x); }, [](long double x) { return std::expm1(x); });
  };
  const T high = std::nextafter(std::log(std::numeric_limits<T>::max()), T{0});
  const long double negative =
      worst({steps(T(-60), T(0), 100000), steps(T(-2), T(0), 100000), negated(magnitudes(T(10), 50000))});
  const long double positive = worst({steps(T(0), high, 100000), steps(T(0), T(2), 100000), magnitudes(T(6), 50000)});
  this->RecordProperty("worst_negative_ulp_thousandths", static_cast<int>(negative * 1000));
  this->RecordProperty("worst_positive_ulp_thousandths", static_cast<int>(positive * 1000));
  EXPECT_LT(negative, 1.5L);
  EXPECT_LT(positive, 2.75L);
}

TYPED_TEST(SimdTest, Expm1OfSpecialValues) {
  using T = TypeParam;
  const auto of = [](T x) { return in_every_lane([](Vec<T> v) { return expm1(v); }, x, T{0}); };
  EXPECT_EQ(of(0), T{0});
  EXPECT_EQ(of(-T{0}), T{0});
  EXPECT_EQ(of(-kInf<T>), T{-1});
  EXPECT_EQ(of(std::numeric_limits<T>::lowest()), T{-1});
  EXPECT_EQ(of(T(-1e4)), T{-1});
  EXPECT_EQ(of(kInf<T>), kInf<T>);
  EXPECT_EQ(of(std::numeric_limits<T>::max()), kInf<T>);
  EXPECT_EQ(of(T(1e4)), kInf<T>);
  for (const T tiny :
       {std::numeric_limits<T>::denorm_min(), std::numeric_limits<T>::min(), std::numeric_limits<T>::epsilon() / 8}) {
    EXPECT_EQ(of(tiny), tiny);
    EXPECT_EQ(of(-tiny), -tiny);
  }
  for (const T nan : nans<T>()) {
    EXPECT_TRUE(std::isnan(of(nan)));
  }
}

// As worst_ulps, of functions like e^x and less what ln 2 in one float costs.
template <class T, class F, class R>
long double worst_excess(const std::vector<std::vector<T>>& samples, F function, R reference) {
  // In units of the last place of the smallest mantissa.
  const long double of_distance = sizeof(T) == 4 ? 2.8e-9L * 0x1p24L : 0.0L;
  long double most = 0;
  for (const std::vector<T>& sample : samples) {
    for (const T x : sample) {
      const long double error = worst_ulps<T>({{x}}, function, reference);
      most = std::max(most, error - of_distance * std::fabs(static_cast<long double>(x)));
    }
  }
  return most;
}

TYPED_TEST(SimdTest, ExpNoOverflowIsWithinItsBound) {
  using T = TypeParam;
  const T low = std::nextafter(std::log(std::numeric_limits<T>::min()), T{0});
  const T high = sizeof(T) == 4 ? T(88) : T(709);
  const long double worst = worst_excess<T>(
      {steps(low, high, 50000), steps(T(-2), T(2), 50000), negated(magnitudes(T(6), 20000))},
      [](Vec<T> v) { return exp_no_overflow(v); }, [](long double x) { return std::exp(x); });
  EXPECT_LT(worst, 1.25L);
}

TYPED_TEST(SimdTest, ExpNoOverflowOfSpecialValues) {
  using T = TypeParam;
  const auto of = [](T x) { return in_every_lane([](Vec<T> v) { return exp_no_overflow(v); }, x, T{1}); };
  for (const T x : {-kInf<T>, std::numeric_limits<T>::lowest(), T(-1e30), T(-1e4), std::log(std::numeric_limits<T>::min()) - 1}) {
    EXPECT_EQ(of(x), T{0}) << x;
    EXPECT_FALSE(std::signbit(of(x))) << x;
  }
  for (const T x : {T{0}, -T{0}, std::numeric_limits<T>::denorm_min(), -std::numeric_limits<T>::min()}) EXPECT_EQ(of(x), T{1});
  EXPECT_TRUE(std::isnan(of(kInf<T>)));
  for (const T nan : nans<T>()) {
    EXPECT_TRUE(std::isnan(of(nan)));
  }
}

TYPED_TEST(SimdTest, ExpPartsAreWithinTheirBounds) {
  using T = TypeParam;
  using Samples = std::vector<std::vector<T>>;
  const auto e = [](Vec<T> x) { return exp_parts(x).e; };
  const auto em1 = [](Vec<T> x) { return exp_parts(x).em1; };
  const auto exp_of = [](long double x) { return std::exp(x); };
  const auto expm1_of = [](long double x) { return std::expm1(x); };
  const auto worst_em1_less_x = [](const Samples& samples) {
    return worst_ulps<T>(
        samples, [](Vec<T> x) { return exp_parts(x).em1_less_x; },
        [](long double x) {
          // The difference has lost 12 of 64 bits at 0.03.
          if (std::fabs(x) > 0.03L) return std::expm1(x) - x;
          return x * x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7 * (1 + x / 8 * (1 + x / 9)))))));
        });
  };
  const T low = std::nextafter(std::log(std::numeric_limits<T>::min()), T{0});
  const T high = sizeof(T) == 4 ? T(88) : T(709);
  const Samples negative{steps(low, T(0), 100000), steps(T(-2), T(0), 100000), negated(magnitudes(T(6), 50000))};
  const Samples positive{steps(T(0), high, 100000), steps(T(0), T(2), 100000), magnitudes(T(6), 50000)};
  const T least = sizeof(T) == 4 ? T(1e-15) : T(1e-150);  // whose square is a normal number
  const Samples near{steps(T(-0.34), -least, 100000), steps(least, T(0.34), 100000)};
  const Samples far{steps(low, T(-0.34), 100000), steps(T(-2), T(-0.34), 100000)};
  const long double of_e = std::max(worst_ulps<T>(negative, e, exp_of), worst_ulps<T>(positive, e, exp_of));
  const long double of_em1 = worst_ulps<T>(negative, em1, expm1_of), of_positive = worst_ulps<T>(positive, em1, expm1_of);
  const long double less_near = worst_em1_less_x(near), less_far = worst_em1_less_x(far);
  this->RecordProperty("worst_e_ulp_thousandths", static_cast<int>(of_e * 1000));
  this->RecordProperty("worst_em1_ulp_thousandths", static_cast<int>(of_em1 * 1000));
  this->RecordProperty("worst_near_em1_less_x_ulp_thousandths", static_cast<int>(less_near * 1000));
  this->RecordProperty("worst_far_em1_less_x_ulp_thousandths", static_cast<int>(less_far * 1000));
  EXPECT_LT(of_e, 1.25L);
  EXPECT_LT(of_em1, 1.5L);
  EXPECT_LT(of_positive, 2.75L);
  EXPECT_LT(less_near, 4.5L);
  EXPECT_LT(less_far, 12.0L);
}

TYPED_TEST(SimdTest, ExpPartsOfSpecialValues) {
  using T = TypeParam;
  const auto e = [](T x) { return in_every_lane([](Vec<T> v) { return exp_parts(v).e; }, x, T{1}); };
  const auto em1 = [](T x) { return in_every_lane([](Vec<T> v) { return exp_parts(v).em1; }, x, T{0}); };
  const T tiny = std::log(std::numeric_limits<T>::min()) - 1;
  for (const T x : {-kInf<T>, std::numeric_limits<T>::lowest(), T(-1e4), tiny}) {
    EXPECT_EQ(e(x), T{0}) << x;
    EXPECT_FALSE(std::signbit(e(x))) << x;
    EXPECT_EQ(em1(x), T{-1}) << x;
  }
  for (const T x : {T{0}, -T{0}}) {
    EXPECT_EQ(e(x), T{1});
    EXPECT_EQ(em1(x), T{0});
  }
  for (const T x : {std::numeric_limits<T>::denorm_min(), std::numeric_limits<T>::min(), std::numeric_limits<T>::epsilon() / 8}) {
    EXPECT_EQ(e(-x), T{1});
    EXPECT_EQ(em1(-x), -x);
  }
  for (const T nan : nans<T>()) {
    EXPECT_TRUE(std::isnan(e(nan)));
    EXPECT_TRUE(std::isnan(em1(nan)));
  }
}

TYPED_TEST(SimdTest, Log1pIsWithinItsBound) {
  using T = TypeParam;
  const T least = std::nextafter(T(-1), T(0));
  std::vector<T> near_minus_one = magnitudes(T(0), 50000);
  for (T& x : near_minus_one) {
    x = std::max(x - 1, least);
  }
  const T highest_exponent = std::nextafter(static_cast<T>(std::numeric_limits<T>::max_exponent), T{0});
  const long double worst = worst_ulps<T>(
      {steps(least, T(1), 200000),
       steps(T(0), T(10), 200000),
       near_minus_one,
       magnitudes(highest_exponent, 50000),
       negated(magnitudes(T(-0.01), 50000)),
       {std::numeric_limits<T>::max()}},
      [](Vec<T> x) { return log1p(x); }, [](long double x) { return std::log1p(x); });
  this->RecordProperty("worst_ulp_thousandths", static_cast<int>(worst * 1000));
  EXPECT_LT(worst, 2.25L);
}

TYPED_TEST(SimdTest, Log1pOfSpecialValues) {
  using T = TypeParam;
  const auto of = [](T x) { return in_every_lane([](Vec<T> v) { return log1p(v); }, x, T{0}); };
  EXPECT_EQ(of(0), T{0});
  EXPECT_EQ(of(-T{0}), T{0});
  EXPECT_EQ(of(-1), -kInf<T>);
  EXPECT_EQ(of(kInf<T>), kInf<T>);
  EXPECT_TRUE(std::isnan(of(std::nextafter(T(-1), T(-2)))));
  EXPECT_TRUE(std::isnan(of(-2)));
  EXPECT_TRUE(std::isnan(of(std::numeric_limits<T>::lowest())));
  EXPECT_TRUE(std::isnan(of(-kInf<T>)));
  for (const T tiny :
       {std::numeric_limits<T>::denorm_min(), std::numeric_limits<T>::min(), std::numeric_limits<T>::epsilon() / 8}) {
    EXPECT_EQ(of(tiny), tiny);
    EXPECT_EQ(of(-tiny), -tiny);
  }
  for (const T nan : nans<T>()) {
    EXPECT_TRUE(std::isnan(of(nan)));
  }
}

TYPED_TEST(SimdTest, LessLog1pUnitIsWithinItsBound) {
  using T = TypeParam;
  const auto less = [](Vec<T> x) { return math::less_log1p_unit<VectorElementary<T>>(x); };
  const auto exact = [](long double x) {
    if (std::fabs(x) > 0.03L) return x - std::log1p(x);
    long double sum = 0, power = x * x;
    for (int k = 2; k < 14; ++k, power *= -x) sum += power / k;
    return sum;
  };
  const T least = sizeof(T) == 4 ? T(1e-12) : T(1e-120);  // whose square is far above what keeps it from being denormal
  const long double worst = worst_ulps<T>({steps(T(-0.5), -least, 200000), steps(least, T(1), 200000)}, less, exact);
  const long double of_logarithm = worst_ulps<T>(
      {steps(T(-0.5), T(1), 400000), magnitudes(T(0), 50000), negated(magnitudes(T(-1), 50000))},
      [&](Vec<T> x) { return x - less(x); }, [](long double x) { return std::log1p(x); });
  EXPECT_LT(of_logarithm, 1.5L);
  this->RecordProperty("worst_ulp_thousandths", static_cast<int>(worst * 1000));
  EXPECT_LT(worst, 4.0L);
  EXPECT_EQ(in_every_lane(less, T{0}, T{0}), T{0});
  for (const T nan : nans<T>()) {
    EXPECT_TRUE(std::isnan(in_every_lane(less, nan, T{0})));
  }
}

TYPED_TEST(SimdTest, Abs) {
  using T = TypeParam;
  const auto of = [](T x) { return in_every_lane([](Vec<T> v) { return cpu::abs(v); }, x, T{0}); };
  for (const T x : {T{0}, T(1.5), kInf<T>, std::numeric_limits<T>::denorm_min()}) {
    EXPECT_EQ(of(-x), x);
    EXPECT_EQ(of(x), x);
    EXPECT_FALSE(std::signbit(of(-x)));
  }
  EXPECT_TRUE(std::isnan(of(-kNan<T>)));
}

TYPED_TEST(SimdTest, BroadcastKeepsEveryValue) {
  using T = TypeParam;
  EXPECT_TRUE(std::signbit(lane<T>(broadcast(-T{0}), lanes<T> - 1)));
  EXPECT_EQ(lane<T>(broadcast(kInf<T>), 0), kInf<T>);
  EXPECT_TRUE(std::isnan(lane<T>(broadcast(kNan<T>), 0)));
}

TYPED_TEST(SimdTest, MaxMinSelect) {
  using T = TypeParam;
  const Vec<T> nan = broadcast(kNan<T>);
  const Vec<T> two = broadcast(T{2});
  const Vec<T> three = broadcast(T{3});
  EXPECT_EQ(lane<T>(max(two, three), 0), T{3});
  EXPECT_EQ(lane<T>(min(three, two), 0), T{2});
  EXPECT_EQ(lane<T>(max(nan, two), 0), T{2});
  EXPECT_TRUE(std::isnan(lane<T>(max(two, nan), 0)));
  EXPECT_EQ(lane<T>(min(nan, two), 0), T{2});
  EXPECT_TRUE(std::isnan(lane<T>(min(two, nan), 0)));
  Vec<T> x{};
  x[lanes<T> - 1] = 5;
  const Vec<T> chosen = select(x > T{1}, two, three);
  EXPECT_EQ(lane<T>(chosen, 0), T{3});
  EXPECT_EQ(lane<T>(chosen, lanes<T> - 1), T{2});
}

TYPED_TEST(SimdTest, HorizontalReductions) {
  using T = TypeParam;
  for (int at = 0; at < lanes<T>; ++at) {
    Vec<T> x{};
    T sum = 0;
    for (int i = 0; i < lanes<T>; ++i) {
      x[i] = i == at ? T{100} : static_cast<T>(-i);
      sum += lane<T>(x, i);
    }
    EXPECT_EQ(horizontal_sum(x), sum);
    EXPECT_EQ(horizontal_max(x), T{100});
  }
}

TYPED_TEST(StorageTest, PartialLoadsAndStoresTouchOnlyTheirElements) {
  using S = TypeParam;
  using T = compute_t<S>;
  for (int n = 0; n <= lanes<T>; ++n) {
    // An array of exactly n, so that a sanitizer sees any access beyond.
    const auto from = std::make_unique<S[]>(static_cast<std::size_t>(n));
    for (int i = 0; i < n; ++i) {
      from[static_cast<std::size_t>(i)] = to_storage<S>(static_cast<T>(i + 1));
    }
    const Vec<T> loaded = load_partial(from.get(), n, -kInf<T>);
    for (int i = 0; i < lanes<T>; ++i) {
      EXPECT_EQ(lane<T>(loaded, i), i < n ? static_cast<T>(i + 1) : -kInf<T>) << n;
    }
    std::vector<S> to(static_cast<std::size_t>(lanes<T>) + 1, to_storage<S>(T{99}));
    store_partial(to.data() + 1, n, loaded);
    for (int i = 0; i <= lanes<T>; ++i) {
      EXPECT_EQ(to_compute(to[static_cast<std::size_t>(i)]), i > 0 && i <= n ? static_cast<T>(i) : T{99}) << n;
    }
  }
}

TYPED_TEST(StorageTest, StoreAndStreamWriteWhatLoadReads) {
  using S = TypeParam;
  using T = compute_t<S>;
  alignas(64) std::array<S, 64> from{};
  alignas(64) std::array<S, 64> to{};
  for (std::size_t i = 0; i < from.size(); ++i) {
    from[i] = to_storage<S>(static_cast<T>(i) - T(17.25));
  }
  store(to.data() + 1, load(from.data() + 3));
  for (std::size_t i = 0; i < static_cast<std::size_t>(lanes<T>); ++i) {
    EXPECT_EQ(to_compute(to[i + 1]), static_cast<T>(i) - T(14.25));
  }
  stream(to.data() + lanes<T>, load(from.data()));
  stream_fence();
  for (std::size_t i = 0; i < static_cast<std::size_t>(lanes<T>); ++i) {
    EXPECT_EQ(to_compute(to[i + static_cast<std::size_t>(lanes<T>)]), to_compute(from[i]));
  }
}

// What a 16-bit format with the given fraction bits and smallest normal exponent holds nearest to value, by plain arithmetic.
double nearest_in_format(double value, int fraction_bits, int min_exponent, double largest) {
  if (value == 0 || !std::isfinite(value)) {
    return value;
  }
  const int exponent = std::max(std::ilogb(value), min_exponent);
  const double step = std::ldexp(1.0, exponent - fraction_bits);
  const double rounded = std::nearbyint(value / step) * step;
  return std::abs(rounded) > largest ? std::copysign(kInf<double>, value) : rounded;
}

template <class S>
void check_rounding() {
  constexpr bool is_bf16 = std::is_same_v<S, bf16>;
  const auto reference = [](float x) {
    return is_bf16 ? nearest_in_format(x, 7, -126, 0x1.fep127) : nearest_in_format(x, 10, -14, 65504.0);
  };
  // Every stored value but the largest, with its neighbours, the exact middle to the next one, and that middle's neighbours.
  std::vector<float> values;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const S stored{static_cast<std::uint16_t>(bits)};
    const float value = to_compute(stored);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(to_compute(to_storage<S>(value))));
      continue;
    }
    EXPECT_EQ(to_storage<S>(value).bits, stored.bits);
    values.push_back(value);
    const float next = to_compute(S{static_cast<std::uint16_t>(bits + 1)});
    if (std::isfinite(value) && std::isfinite(next)) {
      const float middle = value + (next - value) / 2;
      for (const float x :
           {middle, std::nextafter(middle, kInf<float>), std::nextafter(middle, -kInf<float>), std::nextafter(value, next)}) {
        values.push_back(x);
      }
    }
  }
  for (const float x :
       {65519.996f, 65520.0f, -65520.0f, 3.4e38f, 3.39e38f, 1e-45f, 2.9e-8f, 2.98023224e-8f, 3e-8f, kInf<float>, -kInf<float>}) {
    values.push_back(x);
  }
  while (values.size() % static_cast<std::size_t>(lanes<float>) != 0) {
    values.push_back(0);
  }
  std::vector<S> stored(values.size());
  for (std::size_t i = 0; i < values.size(); i += static_cast<std::size_t>(lanes<float>)) {
    store(stored.data() + i, load(values.data() + i));
    const Vec<float> back = load(stored.data() + i);
    for (std::size_t j = 0; j < static_cast<std::size_t>(lanes<float>); ++j) {
      const float x = values[i + j];
      const auto expected = static_cast<float>(reference(x));
      ASSERT_EQ(to_compute(to_storage<S>(x)), expected) << std::hexfloat << x;
      ASSERT_EQ(std::signbit(to_compute(to_storage<S>(x))), std::signbit(x));
      ASSERT_EQ(stored[i + j].bits, to_storage<S>(x).bits) << std::hexfloat << x;
      ASSERT_EQ(lane<float>(back, static_cast<int>(j)), expected) << std::hexfloat << x;
    }
  }
}

TEST(Storage, Bf16RoundsToNearestEven) { check_rounding<bf16>(); }
TEST(Storage, F16RoundsToNearestEven) { check_rounding<f16>(); }

template <class S>
void check_nan() {
  for (const std::uint32_t bits : {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0x7fffffffu, 0xff800001u, 0x7f80ffffu}) {
    const auto nan = std::bit_cast<float>(bits);
    EXPECT_TRUE(std::isnan(to_compute(to_storage<S>(nan)))) << std::hex << bits;
    std::array<S, 16> stored{};
    store(stored.data(), broadcast(nan));
    EXPECT_TRUE(std::isnan(to_compute(stored[0]))) << std::hex << bits;
    EXPECT_TRUE(std::isnan(lane<float>(load(stored.data()), 0))) << std::hex << bits;
  }
}

TEST(Storage, Bf16KeepsNan) { check_nan<bf16>(); }
TEST(Storage, F16KeepsNan) { check_nan<f16>(); }

}  // namespace
}  // namespace dpo::cpu
