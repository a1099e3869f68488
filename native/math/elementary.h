// Elementary functions that neither overflow nor cancel, shared by the formulas of this folder.
// All of them let NaN through: clamps are written as comparisons, because fmin and fmax would swallow it.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>

#include "native/math/host_device.h"

namespace dpo::math {

/// f(x) and f'(x).
template <class T>
struct ValueAndSlope {
  T value, slope;
};

/// e^x, e^x − 1 and e^x − 1 − x.
template <class V>
struct ExpParts {
  V e, em1, em1_less_x;
};

/// Σ c_k x^k, the highest power first. V is a number or a vector of numbers.
template <class V, class T, std::size_t N>
DPO_HD_INLINE V horner(V x, const T (&coefficients)[N]) {
  V sum = V{} + coefficients[0];
  DPO_UNROLL
  for (std::size_t i = 1; i < N; ++i) sum = sum * x + coefficients[i];
  return sum;
}

/// A number whose addition to squares keeps them from being denormal, which is slow, and changes none that counts.
template <class T>
inline constexpr T negligible_square = T(sizeof(T) == 4 ? 1e-30 : 1e-250);

/// x − ln(1+x) = s·(x − R(s²)) with s = x/(2+x), by the coefficients of R(z)/z: of second order in x, with all its digits.
template <class V, class T, std::size_t N>
DPO_HD_INLINE V less_log1p(V x, V s, const T (&coefficients)[N]) {
  const V z = s * s + negligible_square<T>;
  return s * (x - z * horner(z, coefficients));
}

/// R(z)/z for |s| ≤ ⅓, the highest power first. Minimax, with a relative error of the logarithm of 4.5e-9 and 1.3e-18.
template <class T>
struct LogUnitTerms;

template <>
struct LogUnitTerms<float> {
  float values[4] = {0.28011953073931124f, 0.28001813411068891f, 0.40021526646906457f, 0.66666416297892824f};
};

template <>
struct LogUnitTerms<double> {
  double values[10] = {
      0.17009756370036655437, 0.083449725644523053319, 0.12104944461787461648, 0.13301121455386132423, 0.15386548386076430694,
      0.18181744479354442578, 0.22222223953642782798,  0.28571428548117897041, 0.40000000000155119504, 0.66666666666666309682};
};

/// x − ln(1+x) for −½ ≤ x ≤ 1.
template <class E, class V>
DPO_HD_INLINE V less_log1p_unit(V x) {
  using T = typename E::Scalar;
  constexpr LogUnitTerms<T> terms;
  return less_log1p(x, E::quotient(x, x + T(2)), terms.values);
}

/// σ(x) = 1/(1 + e^−x). The exponential's argument is never positive.
template <class T>
DPO_HD T sigmoid(T x) {
  const T e = std::exp(-std::fabs(x));
  return (x < 0 ? e : T(1)) / (1 + e);
}

/// σ'(x) = σ(x)·σ(−x).
template <class T>
DPO_HD T sigmoid_slope(T x) {
  const T e = std::exp(-std::fabs(x));
  return e / ((1 + e) * (1 + e));
}

/// softplus(x) = ln(1 + e^x) = max(x, 0) + ln(1 + e^−|x|).
template <class T>
DPO_HD T softplus(T x) {
  return (x > 0 ? x : T(0)) + std::log1p(std::exp(-std::fabs(x)));
}

/// ln σ(x).
template <class T>
DPO_HD T log_sigmoid(T x) {
  return -softplus(-x);
}

/// ln(1 − e^x) for x < 0. Mächler (2012), "Accurately computing log(1 − exp(−|a|))": two branches that meet at −ln 2.
template <class T>
DPO_HD T log1mexp(T x) {
  return x > T(-0.6931471805599453) ? std::log(-std::expm1(x)) : std::log1p(-std::exp(x));
}

/// Where log_odds goes over to its tangent. (A variable, because nvcc has no device version of epsilon().)
template <class T>
inline constexpr T log_odds_limit = -std::numeric_limits<T>::epsilon();

/// Log-odds ln(p/(1 − p)) of p = e^x, x ≤ 0, and their slope 1/(1 − e^x).
/// Both are infinite at p = 1; from x = −epsilon on the value continues along its tangent, so that they stay finite.
template <class T>
DPO_HD ValueAndSlope<T> log_odds(T x) {
  constexpr T limit = log_odds_limit<T>;
  if (x <= limit) return {x - log1mexp(x), -1 / std::expm1(x)};
  const T slope = -1 / std::expm1(limit);
  return {limit - log1mexp(limit) + slope * (x - limit), slope};
}

/// e^x held constant, with slope 0, from x = limit on.
template <class T>
DPO_HD ValueAndSlope<T> clamped_exp(T x, T limit) {
  const T value = std::exp(x > limit ? limit : x);
  return {value, x > limit ? T(0) : value};
}

}  // namespace dpo::math
