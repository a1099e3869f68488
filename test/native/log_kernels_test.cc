#include "native/math/log_kernels.h"

#include <gtest/gtest.h>

#include <vector>

#include "test/native/accuracy.h"

namespace dpo::math {
namespace {

using test::error_in_epsilons;
using test::Real;

/// A formula with its own copy of the parameters.
struct Formula {
  LogKernel kind;
  std::vector<double> parameters;
  double nu = 0, floor = 1e-3;
  bool unit_diagonal = false;

  KernelFormula view() const {
    return {kind, parameters.data(), static_cast<std::int64_t>(parameters.size()), nu, floor, unit_diagonal};
  }
};

/// ln k and its slope in a distance.
template <class T>
ValueAndSlope<T> at_distance(const Formula& formula, T distance) {
  return with_log_kernel<T>(formula.view(), [&](const auto& kernel) -> ValueAndSlope<T> {
    using Kernel = std::remove_cvref_t<decltype(kernel)>;
    if constexpr (Kernel::seen != Seen::inner_product) return kernel.template at<ScalarFunctions<T>>(distance);
    ADD_FAILURE() << "no kernel of a distance";
    return {};
  });
}

/// ln k and its slopes in inner products.
template <class T>
InnerProductPoint<T> at_products(const Formula& formula, const InnerProducts<T>& products) {
  return InnerProductLogKernel<T>(formula.view()).template at<ScalarFunctions<T>>(products);
}

template <class T>
std::vector<T> slopes_in_parameters(const Formula& formula, const InnerProducts<T>& seen) {
  std::vector<T> slopes(formula.parameters.size());
  with_log_kernel<T>(formula.view(), [&](const auto& kernel) {
    using Kernel = std::remove_cvref_t<decltype(kernel)>;
    const auto add = [&](std::int64_t p, T slope) { slopes[static_cast<std::size_t>(p)] += slope; };
    if constexpr (Kernel::seen == Seen::inner_product) {
      kernel.template parameter_slopes<ScalarFunctions<T>>(seen, add);
    } else {
      kernel.template parameter_slopes<ScalarFunctions<T>>(seen.uv, add);
    }
  });
  return slopes;
}

double value_at(const Formula& formula, const InnerProducts<double>& seen) {
  return seen_by(formula.kind) == Seen::inner_product ? at_products(formula, seen).value : at_distance(formula, seen.uv).value;
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Every kernel of a distance.
std::vector<Formula> of_distance() {
  return {{LogKernel::rbf, {0.7}},
          {LogKernel::laplacian, {1.3}},
          {LogKernel::matern, {0.8}, 0.5},
          {LogKernel::matern, {0.8}, 1.5},
          {LogKernel::matern, {0.8}, 2.5},
          {LogKernel::matern, {0.8}, kInfinity},
          {LogKernel::rational_quadratic, {0.6, 1.7}},
          {LogKernel::rbf_mixture, {0.3, 1.5, 0.2, 0.3, 1, 4}},
          {LogKernel::rbf_mixture, {0.3, 1.5, 0.2, 0.3, 1, 4}, 0, 1e-3, true},
          {LogKernel::wavelet, {0.9}},
          {LogKernel::mahalanobis, {}}};
}

/// The formulas as SPEC 3 has them, in long double; distances are those that the kernel sees.
Real real_value(const Formula& formula, Real d) {
  const auto p = [&](std::size_t i) { return Real(formula.parameters[i]); };
  switch (formula.kind) {
    case LogKernel::rbf:
      return -d / (2 * p(0) * p(0));
    case LogKernel::mahalanobis:
      return -d / 2;
    case LogKernel::laplacian:
      return -d / p(0);
    case LogKernel::matern: {
      if (formula.nu == kInfinity) return -d / (2 * p(0) * p(0));
      const Real s = std::sqrt(2 * Real(formula.nu) * d) / p(0);
      if (formula.nu == 0.5) return -s;
      return std::log1p(s + (formula.nu == 2.5 ? s * s / 3 : Real(0))) - s;
    }
    case LogKernel::rational_quadratic:
      return -p(1) * std::log1p(d / (2 * p(1) * p(0) * p(0)));
    case LogKernel::rbf_mixture: {
      const std::size_t count = formula.parameters.size() / 2;
      Real sum = 0, diagonal = 0;
      for (std::size_t k = 0; k < count; ++k) sum += p(k) * std::exp(-p(count + k) * d), diagonal += p(k);
      return std::log(sum) - (formula.unit_diagonal ? std::log(diagonal) : Real(0));
    }
    case LogKernel::wavelet: {
      const Real t = d / (2 * p(0) * p(0)), c = std::cos(t), floor = formula.floor;
      return (c > floor ? std::log(c) : std::log(floor) + (c - floor) / floor) - t;
    }
    default:
      ADD_FAILURE() << "not of a distance";
      return 0;
  }
}

template <class T>
class LogKernels : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(LogKernels, Types);

TYPED_TEST(LogKernels, RbfWithinFourUlp) {
  using T = TypeParam;
  for (const double r2 : {0.0, 1e-20, 1e-6, 0.3, 1.0, 2.0, 4.0, 1e3, 1e8}) {
    for (const double sigma : {1e-3, 0.1, 0.7, 1.0, 3.0, 1e4}) {
      const Formula formula{LogKernel::rbf, {double(T(sigma))}};
      const auto k = at_distance<T>(formula, T(r2));
      const Real s = T(sigma), r = T(r2), value = -r / (2 * s * s), slope = -1 / (2 * s * s), sigma_slope = r / (s * s * s);
      EXPECT_LE(error_in_epsilons(k.value, value, -value), 4);
      EXPECT_LE(error_in_epsilons(k.slope, slope, -slope), 4);
      EXPECT_LE(error_in_epsilons(slopes_in_parameters<T>(formula, {T(r2), 0, 0})[0], sigma_slope, sigma_slope), 4);
    }
  }
}

TYPED_TEST(LogKernels, RbfWhereSigmaSquaredLeavesTheRange) {
  using T = TypeParam;
  const T tiny = std::sqrt(std::numeric_limits<T>::min()) / 100;  // tiny² is subnormal
  const Formula formula{LogKernel::rbf, {double(tiny)}};
  EXPECT_NEAR(at_distance<T>(formula, tiny * tiny).value, T(-0.5), 0.01);
  EXPECT_NEAR(at_distance<T>(formula, tiny).value * tiny, T(-0.5), 1e-6);
}

TYPED_TEST(LogKernels, ValuesOfDistancesWithinFourUlpOfTheirTerms) {
  using T = TypeParam;
  for (Formula formula : of_distance()) {
    for (double& parameter : formula.parameters) parameter = T(parameter);
    formula.floor = T(formula.floor);
    for (const double distance : {0.0, 1e-12, 1e-6, 1e-3, 0.1, 0.5, 1.0, 1.2, 2.0, 4.0, 30.0}) {
      // ln(1 + s) − s and the like cancel: the larger term counts. A cosine is as exact as its argument.
      const Real d = T(distance), value = real_value(formula, d);
      Real magnitude = std::fabs(value);
      if (formula.kind == LogKernel::matern) magnitude += 2 * std::sqrt(5 * d) / Real(formula.parameters[0]);
      if (formula.kind == LogKernel::rbf_mixture) magnitude += 2 + d * 4;
      if (formula.kind == LogKernel::wavelet) {
        const Real t = d / (2 * Real(formula.parameters[0]) * Real(formula.parameters[0]));
        magnitude += t * (1 + 1 / std::max(std::fabs(std::cos(t)), Real(formula.floor))) + 1 / Real(formula.floor);
      }
      EXPECT_LE(error_in_epsilons(at_distance<T>(formula, T(distance)).value, value, magnitude), 4)
          << "kind " << int(formula.kind) << ", nu " << formula.nu << ", distance " << distance;
    }
  }
}

TYPED_TEST(LogKernels, AreZeroAtZeroDistance) {
  using T = TypeParam;
  for (const Formula& formula : of_distance()) {
    if (formula.kind == LogKernel::rbf_mixture) continue;
    const auto k = at_distance<T>(formula, T(0));
    EXPECT_EQ(k.value, T(0)) << "kind " << int(formula.kind);
    EXPECT_TRUE(std::isfinite(k.slope)) << "kind " << int(formula.kind);
  }
}

TEST(LogKernels, SlopesInDistancesEqualFiniteDifferences) {
  for (const Formula& formula : of_distance()) {
    for (const double distance : {0.01, 0.5, 1.1, 2.0, 40.0}) {
      const double slope =
          test::five_point_slope([&](double x) { return at_distance(formula, x).value; }, distance, 1e-3 * distance);
      EXPECT_NEAR(at_distance(formula, distance).slope, slope, 1e-6 * std::fabs(slope) + 1e-8)
          << "kind " << int(formula.kind) << ", nu " << formula.nu << ", distance " << distance;
    }
  }
}

std::vector<Formula> of_products() {
  std::vector<Formula> formulas;
  for (const bool unit_diagonal : {false, true}) {
    formulas.push_back({LogKernel::polynomial, {3, 0.5}, 0, 1e-3, unit_diagonal});
    formulas.push_back({LogKernel::polynomial, {1.5, 0}, 0, 0.2, unit_diagonal});
    formulas.push_back({LogKernel::spectral, {}, 0, 1e-3, unit_diagonal});
    formulas.push_back({LogKernel::random_fourier, {}, 0, 1e-3, unit_diagonal});
  }
  return formulas;
}

/// Pairs on both sides of every floor.
constexpr InnerProducts<double> kProducts[] = {{0.9, 1, 1}, {1.3, 2.5, 0.8}, {0.3, 3, 1.5},
                                               {0.0, 1, 2}, {-0.7, 1, 1.2},  {-4, 5, 6}};

TEST(LogKernels, SlopesInInnerProductsEqualFiniteDifferences) {
  for (const Formula& formula : of_products()) {
    for (const InnerProducts<double>& given : kProducts) {
      const auto point = at_products(formula, given);
      const auto difference = [&](double InnerProducts<double>::*which) {
        const auto value = [&](double x) {
          InnerProducts<double> moved = given;
          moved.*which = x;
          return at_products(formula, moved).value;
        };
        return test::five_point_slope(value, given.*which, 1e-4);
      };
      const double scale = std::fabs(point.slopes.uv) + 1;
      EXPECT_NEAR(point.slopes.uv, difference(&InnerProducts<double>::uv), 1e-6 * scale);
      EXPECT_NEAR(point.slopes.uu, difference(&InnerProducts<double>::uu), 1e-6 * scale);
      EXPECT_NEAR(point.slopes.vv, difference(&InnerProducts<double>::vv), 1e-6 * scale);
    }
  }
}

TEST(LogKernels, SlopesInParametersEqualFiniteDifferences) {
  std::vector<Formula> formulas = of_distance();
  for (const Formula& formula : of_products()) {
    if (formula.kind == LogKernel::polynomial) formulas.push_back(formula);
  }
  for (const Formula& formula : formulas) {
    for (const InnerProducts<double>& given : kProducts) {
      InnerProducts<double> seen = given;
      if (seen_by(formula.kind) != Seen::inner_product) seen.uv = std::fabs(seen.uv) + 0.1;
      const std::vector<double> slopes = slopes_in_parameters(formula, seen);
      for (std::size_t p = 0; p < slopes.size(); ++p) {
        const auto value = [&](double x) {
          Formula moved = formula;
          moved.parameters[p] = x;
          return value_at(moved, seen);
        };
        const double slope = test::five_point_slope(value, formula.parameters[p], 1e-4);
        EXPECT_NEAR(slopes[p], slope, 1e-6 * (1 + std::fabs(slope))) << "kind " << int(formula.kind) << ", parameter " << p;
      }
    }
  }
}

TYPED_TEST(LogKernels, PolynomialWithinFourUlpOfItsTerms) {
  using T = TypeParam;
  for (const double coef0 : {0.0, 0.5, 3.0}) {
    for (const double degree : {1.0, 2.0, 3.5}) {
      for (const InnerProducts<double>& given : kProducts) {
        const Formula formula{LogKernel::polynomial, {degree, coef0}, 0, 0.125, false};
        const InnerProducts<T> of{T(given.uv), T(given.uu), T(given.vv)};
        const Real uv = Real(of.uv) + Real(coef0), g = std::sqrt((Real(of.uu) + Real(coef0)) * (Real(of.vv) + Real(coef0)));
        const Real rho = uv / g, floor = 0.125;
        const Real log_rho = rho > floor ? std::log(rho) : std::log(floor) + (rho - floor) / floor;
        // Of ln ρ: what ρ's rounding makes of it, and of the two logarithms.
        const Real magnitude = std::fabs(log_rho) + std::fabs(std::log(g)) + 1 / std::max(rho, floor) * (1 + std::fabs(rho));
        EXPECT_LE(error_in_epsilons(at_products<T>(formula, of).value, Real(degree) * (log_rho + std::log(g)),
                                    Real(degree) * magnitude),
                  4);
      }
    }
  }
}

TEST(LogKernels, TheTangentIsContinuousInValueAndSlope) {
  const double floor = 0.2, step = 1e-9;
  for (const bool unit_diagonal : {false, true}) {
    const Formula formula{LogKernel::polynomial, {2, 0}, 0, floor, unit_diagonal};
    const auto below = at_products<double>(formula, {floor - step, 1, 1}),
               above = at_products<double>(formula, {floor + step, 1, 1});
    EXPECT_NEAR(below.value, above.value, 1e-7);
    EXPECT_NEAR(below.slopes.uv, above.slopes.uv, 1e-6);
    EXPECT_NEAR(below.slopes.uu, above.slopes.uu, 1e-6);
    // Further down the logarithm goes on as a straight line.
    const auto far = at_products<double>(formula, {-3, 1, 1}), further = at_products<double>(formula, {-4, 1, 1});
    EXPECT_NEAR(far.value - further.value, 2 / floor, 1e-12);
    EXPECT_EQ(far.slopes.uv, further.slopes.uv);
  }
}

TEST(LogKernels, WaveletIsFiniteBeyondItsZeros) {
  const Formula formula{LogKernel::wavelet, {1}, 0, 1e-3};
  for (double t = 0; t < 12; t += 0.01) {
    const auto k = at_distance(formula, 2 * t);
    EXPECT_TRUE(std::isfinite(k.value) && std::isfinite(k.slope)) << t;
    EXPECT_LE(k.value, -t + 1e-12) << t;
  }
}

TEST(LogKernels, UnitDiagonalTakesOffTheDiagonal) {
  for (const InnerProducts<double>& given : kProducts) {
    for (const LogKernel kind : {LogKernel::polynomial, LogKernel::spectral}) {
      const std::vector<double> parameters = kind == LogKernel::polynomial ? std::vector<double>{2, 0.5} : std::vector<double>{};
      const Formula plain{kind, parameters}, unit{kind, parameters, 0, 1e-3, true};
      const double own = at_products<double>(plain, {given.uu, given.uu, given.uu}).value / 2 +
                         at_products<double>(plain, {given.vv, given.vv, given.vv}).value / 2;
      EXPECT_NEAR(at_products(unit, given).value, at_products(plain, given).value - own,
                  1e-12 * (1 + std::fabs(at_products(plain, given).value)));
      EXPECT_NEAR(at_products<double>(unit, {given.uu, given.uu, given.uu}).value, 0, 1e-15);
    }
  }
}

}  // namespace
}  // namespace dpo::math
