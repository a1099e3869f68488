// How the tests of native/math measure error: in units of epsilon, relative to the sum of the terms' magnitudes.
#pragma once

#include <cmath>
#include <initializer_list>
#include <limits>
#include <type_traits>

namespace dpo::test {

using Real = long double;  // wide enough to be the truth for float and double

/// A sum, and Σ|terms|, which says how exact any evaluation of it can be.
struct Sum {
  Real value = 0, magnitude = 0;
  Sum(std::initializer_list<Real> terms) {
    for (const Real term : terms) value += term, magnitude += std::fabs(term);
  }
};

/// |actual − expected| in units of T's epsilon times `magnitude`.
/// Towards the end of T's range, where factors of a term may already be subnormal, the unit stays what it is there.
template <class T>
Real error_in_epsilons(T actual, Real expected, std::type_identity_t<Real> magnitude) {
  const Real smallest = 1024 * Real(std::numeric_limits<T>::min());
  return std::fabs(actual - expected) / (std::numeric_limits<T>::epsilon() * (magnitude > smallest ? magnitude : smallest));
}

template <class T>
Real error_in_epsilons(T actual, const Sum& expected) {
  return error_in_epsilons(actual, expected.value, expected.magnitude);
}

/// f'(x) by the five-point central difference; truncation error is of order step⁴.
template <class F>
double five_point_slope(F f, double x, double step) {
  return (8 * (f(x + step) - f(x - step)) - (f(x + 2 * step) - f(x - 2 * step))) / (12 * step);
}

/// Calls f with both signs of magnitudes from 1e-12 to 1e4, dense where the formulas bend, and with 0.
template <class T, class F>
void for_each_argument(F f) {
  f(T(0));
  for (double magnitude = 1e-12; magnitude<1.1e4; magnitude *= magnitude> 0.01 && magnitude < 200 ? 1.01 : 1.7) {
    f(T(magnitude)), f(T(-magnitude));
  }
  for (const double magnitude : {1e3, 1e4}) f(T(magnitude)), f(T(-magnitude));
}

}  // namespace dpo::test
