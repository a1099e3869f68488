#include "native/math/log_sum_exp.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "test/native/accuracy.h"

namespace dpo::math {
namespace {

using test::Real;

template <class T>
class LogSumExpTest : public testing::Test {
 protected:
  static constexpr T infinity = std::numeric_limits<T>::infinity();

  static LogSumExp<T> of(const std::vector<T>& values) {
    LogSumExp<T> total;
    for (const T x : values) total.add(x);
    return total;
  }

  static Real expected(const std::vector<T>& values) {
    Real max = -std::numeric_limits<Real>::infinity(), sum = 0;
    for (const T x : values) max = std::max(max, Real(x));
    for (const T x : values) sum += std::exp(x - max);
    return max + std::log(sum);
  }

  static std::vector<T> random_values(int count, double mean, double spread) {
    std::mt19937 random(7);
    std::normal_distribution<double> normal(mean, spread);
    std::vector<T> values;
    for (int i = 0; i < count; ++i) values.push_back(T(normal(random)));
    return values;
  }
};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(LogSumExpTest, Types);

TYPED_TEST(LogSumExpTest, EqualsTheTwoPassSum) {
  using T = TypeParam;
  for (const double mean : {0.0, -500.0, 1e4}) {
    for (const double spread : {0.0, 1.0, 30.0, 1e3}) {
      for (const int count : {1, 2, 10, 1000}) {
        const std::vector<T> values = this->random_values(count, mean, spread);
        // Each addition may lose half a unit of the sum; what the sum loses relatively, its logarithm loses absolutely.
        const Real bound = std::numeric_limits<T>::epsilon() * (2 + count + std::fabs(this->expected(values)));
        EXPECT_NEAR(this->of(values).value(), double(this->expected(values)), double(bound))
            << mean << ' ' << spread << ' ' << count;
      }
    }
  }
}

TYPED_TEST(LogSumExpTest, FourUlpOnAFewTerms) {
  using T = TypeParam;
  test::for_each_argument<T>([](T x) {
    const Real larger = std::max(Real(x), Real(1)), smaller = std::min(Real(x), Real(1));
    const test::Sum expected = {larger, std::log1p(std::exp(smaller - larger))};
    EXPECT_LE(test::error_in_epsilons(TestFixture::of({x, T(1)}).value(), expected), 4) << x;
    EXPECT_LE(test::error_in_epsilons(TestFixture::of({T(1), x}).value(), expected), 4) << x;
  });
}

TYPED_TEST(LogSumExpTest, MergingPartsEqualsAddingAll) {
  using T = TypeParam;
  const std::vector<T> values = this->random_values(301, 3, 20);
  for (const int split : {0, 1, 150, 300, 301}) {
    LogSumExp<T> left = this->of({values.begin(), values.begin() + split});
    const LogSumExp<T> right = this->of({values.begin() + split, values.end()});
    LogSumExp<T> swapped = right;
    swapped.merge(left);
    left.merge(right);
    EXPECT_NEAR(left.value(), this->of(values).value(), 16 * std::numeric_limits<T>::epsilon() * std::fabs(left.value()))
        << split;
    EXPECT_EQ(left.value(), swapped.value()) << split;
  }
}

TYPED_TEST(LogSumExpTest, InfinitiesAndNan) {
  using T = TypeParam;
  const T inf = this->infinity, nan = std::numeric_limits<T>::quiet_NaN();
  EXPECT_EQ(this->of({}).value(), -inf);
  EXPECT_EQ(this->of({-inf, -inf}).value(), -inf);
  EXPECT_EQ(this->of({-inf, T(2), -inf}).value(), T(2));
  EXPECT_EQ(this->of({T(1), inf, T(3), inf}).value(), inf);
  for (const auto& values : {std::vector<T>{nan}, {nan, T(1)}, {T(1), nan, T(2)}, {-inf, nan}}) {
    EXPECT_TRUE(std::isnan(this->of(values).value()));
    LogSumExp<T> merged = this->of({T(5)});
    merged.merge(this->of(values));
    EXPECT_TRUE(std::isnan(merged.value()));
  }
  LogSumExp<T> empty;
  empty.merge({});
  EXPECT_EQ(empty.value(), -inf);
}

TYPED_TEST(LogSumExpTest, NoOverflowAtTheEndsOfTheRange) {
  using T = TypeParam;
  const T huge = std::numeric_limits<T>::max();
  EXPECT_EQ(this->of({huge, -huge, huge}).value(), huge);
  EXPECT_EQ(this->of({-huge, huge}).value(), huge);
}

}  // namespace
}  // namespace dpo::math
