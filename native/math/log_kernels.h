// Logarithms of kernels with their derivatives. Always ln k, never ln of a computed k: k itself underflows.
// V is a number or a vector of numbers, E its elementary functions: exp, log, log1p, sqrt, cos, sin.
#pragma once

#include <cmath>
#include <cstdint>

#include "native/math/elementary.h"
#include "native/math/host_device.h"

namespace dpo::math {

enum class LogKernel : std::int32_t {
  rbf,
  laplacian,
  matern,
  rational_quadratic,
  rbf_mixture,
  wavelet,
  polynomial,
  mahalanobis,
  spectral,
  random_fourier
};
inline constexpr std::int32_t log_kernel_count = 10;

/// What the formula of a kernel is a function of.
enum class Seen { squared_distance, absolute_distance, inner_product };

/// A kernel's formula with its numbers. Parameters in order: rbf, laplacian, matern, wavelet: sigma; rational_quadratic: sigma,
/// alpha; rbf_mixture: lambdas, then as many rates; polynomial: degree, coef0; mahalanobis, random_fourier: none; spectral:
/// lambdas, which weigh its eigenfunctions and are no part of the formula.
struct KernelFormula {
  LogKernel kind;
  const double* parameters;
  std::int64_t parameter_count;
  double nu;           // matern: 1/2, 3/2, 5/2 or infinity
  double floor;        // τ: below it, as a share of the value at u = v, a logarithm goes on as its tangent
  bool unit_diagonal;  // ln k(u, v) − ½ ln k(u, u) − ½ ln k(v, v)
};

/// Elementary functions of one number.
template <class T>
struct ScalarFunctions {
  using Scalar = T;
  DPO_HD_INLINE static T exp(T x) { return std::exp(x); }
  DPO_HD_INLINE static T log(T x) { return std::log(x); }
  DPO_HD_INLINE static T log1p(T x) { return std::log1p(x); }
  DPO_HD_INLINE static T sqrt(T x) { return std::sqrt(x); }
  DPO_HD_INLINE static T cos(T x) { return std::cos(x); }
  DPO_HD_INLINE static T sin(T x) { return std::sin(x); }
};

/// ln a, from a = floor down its tangent there, so that value and slope stay finite and continuous.
template <class E, class V>
DPO_HD_INLINE ValueAndSlope<V> log_with_tangent(V a, typename E::Scalar floor) {
  const V inside = a > floor ? a : V{} + floor;
  return {E::log(inside) + (a - inside) / floor, 1 / inside};
}

/// 1/(2σ²). Divides by σ twice, because σ² leaves the range of double long before the quotient does.
DPO_HD inline double half_precision(double sigma) { return 0.5 / sigma / sigma; }

// Kernels of a distance d: r² = ‖u − v‖², or ‖u − v‖₁. `at` gives ln k and its slope in d, `parameter_slopes` calls add(index,
// slope) for every parameter.

/// rbf: −r²/(2σ²), by 1/σ twice: σ² leaves the range long before the quotient does.
template <class T>
struct RbfLogKernel {
  static constexpr Seen seen = Seen::squared_distance;
  T inverse, slope;  // 1/σ, −1/(2σ²)

  DPO_HD explicit RbfLogKernel(const KernelFormula& of)
      : inverse(static_cast<T>(1 / of.parameters[0])), slope(static_cast<T>(-half_precision(of.parameters[0]))) {}

  template <class E, class V>
  DPO_HD_INLINE ValueAndSlope<V> at(V r2) const {
    return {r2 * inverse * inverse * T(-0.5), V{} + slope};
  }
  /// r² of a pair whose ln k is known.
  template <class V>
  DPO_HD_INLINE V squared_distance(V log_k) const {
    return log_k / slope;
  }
  template <class E, class V, class Add>
  DPO_HD_INLINE void parameter_slopes(V r2, const Add& add) const {
    add(0, r2 * inverse * inverse * inverse);
  }
};

/// mahalanobis: −r²/2, r² the squared distance of the mapped rows Aᵀu and Aᵀv.
template <class T>
struct MahalanobisLogKernel {
  static constexpr Seen seen = Seen::squared_distance;

  DPO_HD explicit MahalanobisLogKernel(const KernelFormula&) {}

  template <class E, class V>
  DPO_HD_INLINE ValueAndSlope<V> at(V r2) const {
    return {r2 * T(-0.5), V{} - T(0.5)};
  }
  template <class V>
  DPO_HD_INLINE V squared_distance(V log_k) const {
    return T(-2) * log_k;
  }
  template <class E, class V, class Add>
  DPO_HD_INLINE void parameter_slopes(V, const Add&) const {}
};

/// laplacian: −‖u − v‖₁/σ (scikit-learn's, gamma = 1/σ).
template <class T>
struct LaplacianLogKernel {
  static constexpr Seen seen = Seen::absolute_distance;
  T sigma;

  DPO_HD explicit LaplacianLogKernel(const KernelFormula& of) : sigma(static_cast<T>(of.parameters[0])) {}

  template <class E, class V>
  DPO_HD_INLINE ValueAndSlope<V> at(V distance) const {
    return {-distance / sigma, V{} - 1 / sigma};
  }
  template <class E, class V, class Add>
  DPO_HD_INLINE void parameter_slopes(V distance, const Add& add) const {
    add(0, distance / sigma / sigma);
  }
};

/// matern of ν = p + ½ (Rasmussen & Williams 2006, 4.17), s = √(2ν)·r/σ. At r = 0 the slope of ν = ½, which has none, counts as
/// 0.
template <class T, int kHalfNu>
struct MaternLogKernel {
  static_assert(kHalfNu == 1 || kHalfNu == 3 || kHalfNu == 5);
  static constexpr Seen seen = Seen::squared_distance;
  static constexpr T nu = T(kHalfNu) / 2;
  T rate, sigma;  // rate: s² = rate·r²

  DPO_HD explicit MaternLogKernel(const KernelFormula& of)
      : rate(static_cast<T>(2 * kHalfNu * half_precision(of.parameters[0]))), sigma(static_cast<T>(of.parameters[0])) {}

  template <class E, class V>
  DPO_HD_INLINE ValueAndSlope<V> at(V r2) const {
    const V s = E::sqrt(rate * r2);
    if constexpr (kHalfNu == 1) return {-s, s > 0 ? T(-0.5) * rate / s : V{}};
    if constexpr (kHalfNu == 3) return {E::log1p(s) - s, T(-0.5) * rate / (1 + s)};
    if constexpr (kHalfNu == 5) return {E::log1p(s + s * s / 3) - s, rate * (1 + s) / (-6 - s * (6 + 2 * s))};
  }
  template <class E, class V, class Add>
  DPO_HD_INLINE void parameter_slopes(V r2, const Add& add) const {
    add(0, -2 * r2 * at<E>(r2).slope / sigma);
  }
};

/// rational_quadratic: −α·ln(1 + r²/(2ασ²)).
template <class T>
struct RationalQuadraticLogKernel {
  static constexpr Seen seen = Seen::squared_distance;
  T rate, sigma, alpha;

  DPO_HD explicit RationalQuadraticLogKernel(const KernelFormula& of)
      : rate(static_cast<T>(half_precision(of.parameters[0]) / of.parameters[1])),
        sigma(static_cast<T>(of.parameters[0])),
        alpha(static_cast<T>(of.parameters[1])) {}

  template <class E, class V>
  DPO_HD_INLINE ValueAndSlope<V> at(V r2) const {
    const V x = rate * r2;
    return {-alpha * E::log1p(x), -alpha * rate / (1 + x)};
  }
  template <class E, class V, class Add>
  DPO_HD_INLINE void parameter_slopes(V r2, const Add& add) const {
    const V x = rate * r2;
    add(0, 2 * alpha * x / (1 + x) / sigma);
    add(1, x / (1 + x) - E::log1p(x));
  }
};

/// rbf_mixture: ln Σ_k λ_k·e^(−a_k·r²).
template <class T>
struct RbfMixtureLogKernel {
  static constexpr Seen seen = Seen::squared_distance;
  const double *lambdas, *rates;
  std::int64_t count;
  T diagonal;        // what is taken off: ln Σ λ_k, or 0
  T diagonal_slope;  // the same in each λ_k

  DPO_HD explicit RbfMixtureLogKernel(const KernelFormula& of)
      : lambdas(of.parameters),
        rates(of.parameters + of.parameter_count / 2),
        count(of.parameter_count / 2),
        diagonal(0),
        diagonal_slope(0) {
    if (!of.unit_diagonal) return;
    double total = 0;
    for (std::int64_t k = 0; k < count; ++k) total += lambdas[k];
    diagonal = static_cast<T>(std::log(total));
    diagonal_slope = static_cast<T>(1 / total);
  }

  template <class E, class V>
  DPO_HD_INLINE ValueAndSlope<V> at(V r2) const {
    const V max = largest(r2);
    V sum{}, slopes{};
    for (std::int64_t k = 0; k < count; ++k) {
      const V term = static_cast<T>(lambdas[k]) * E::exp(exponent(k, r2) - max);
      sum += term;
      slopes -= static_cast<T>(rates[k]) * term;
    }
    return {max + E::log(sum) - diagonal, slopes / sum};
  }
  template <class E, class V, class Add>
  DPO_HD_INLINE void parameter_slopes(V r2, const Add& add) const {
    const V max = largest(r2);
    V sum{};
    for (std::int64_t k = 0; k < count; ++k) sum += static_cast<T>(lambdas[k]) * E::exp(exponent(k, r2) - max);
    for (std::int64_t k = 0; k < count; ++k) {
      const V share = E::exp(exponent(k, r2) - max) / sum;
      add(k, share - diagonal_slope);
      add(count + k, -static_cast<T>(lambdas[k]) * share * r2);
    }
  }

 private:
  template <class V>
  DPO_HD_INLINE V exponent(std::int64_t k, V r2) const {
    return -static_cast<T>(rates[k]) * r2;
  }
  /// The largest exponent, that of the smallest rate.
  template <class V>
  DPO_HD_INLINE V largest(V r2) const {
    V max = exponent(0, r2);
    for (std::int64_t k = 1; k < count; ++k) {
      const V next = exponent(k, r2);
      max = next > max ? next : max;
    }
    return max;
  }
};

/// wavelet: −t + ln cos t, t = r²/(2σ²) (DETONATE, arXiv 2506.14903); the logarithm by its tangent where cos t is small or
/// negative.
template <class T>
struct WaveletLogKernel {
  static constexpr Seen seen = Seen::squared_distance;
  T rate, sigma, floor;

  DPO_HD explicit WaveletLogKernel(const KernelFormula& of)
      : rate(static_cast<T>(half_precision(of.parameters[0]))),
        sigma(static_cast<T>(of.parameters[0])),
        floor(static_cast<T>(of.floor)) {}

  template <class E, class V>
  DPO_HD_INLINE ValueAndSlope<V> at(V r2) const {
    const V t = rate * r2;
    const ValueAndSlope<V> log_cos = log_with_tangent<E>(E::cos(t), floor);
    return {log_cos.value - t, -rate * (1 + log_cos.slope * E::sin(t))};
  }
  template <class E, class V, class Add>
  DPO_HD_INLINE void parameter_slopes(V r2, const Add& add) const {
    add(0, -2 * r2 * at<E>(r2).slope / sigma);
  }
};

/// ⟨u,v⟩, ⟨u,u⟩, ⟨v,v⟩; or the slopes in them.
template <class V>
struct InnerProducts {
  V uv, uu, vv;
};

template <class V>
struct InnerProductPoint {
  V value;
  InnerProducts<V> slopes;
};

/// polynomial: d·ln(⟨u,v⟩ + c). With g = √((⟨u,u⟩ + c)(⟨v,v⟩ + c)), the value at u = v, it is d·(ln ρ + ln g), ρ = (⟨u,v⟩ + c)/g
/// ≤ 1, and with a unit diagonal d·ln ρ; ln ρ by its tangent below the floor. Of rows mapped to features (spectral,
/// random_fourier) d = 1, c = 0.
template <class T>
struct InnerProductLogKernel {
  static constexpr Seen seen = Seen::inner_product;
  T degree, coef0, floor;
  bool unit_diagonal, trained;  // trained: degree and coef0 are parameters

  DPO_HD explicit InnerProductLogKernel(const KernelFormula& of)
      : degree(1),
        coef0(0),
        floor(static_cast<T>(of.floor)),
        unit_diagonal(of.unit_diagonal),
        trained(of.kind == LogKernel::polynomial) {
    if (!trained) return;
    degree = static_cast<T>(of.parameters[0]);
    coef0 = static_cast<T>(of.parameters[1]);
  }

  template <class E, class V>
  DPO_HD_INLINE InnerProductPoint<V> at(const InnerProducts<V>& of) const {
    const V uu = of.uu + coef0, vv = of.vv + coef0;
    const V g = E::sqrt(uu) * E::sqrt(vv);
    const V rho = (of.uv + coef0) / g;
    const ValueAndSlope<V> log_rho = log_with_tangent<E>(rho, floor);
    const V value = unit_diagonal ? log_rho.value : log_rho.value + E::log(g);
    // ∂ ln ρ and, without a unit diagonal, ∂ ln g.
    const V of_diagonal = (unit_diagonal ? T(0) : T(0.5)) - log_rho.slope * rho / 2;
    return {degree * value, {degree * log_rho.slope / g, degree * of_diagonal / uu, degree * of_diagonal / vv}};
  }
  template <class E, class V, class Add>
  DPO_HD_INLINE void parameter_slopes(const InnerProducts<V>& of, const Add& add) const {
    if (!trained) return;
    const InnerProductPoint<V> point = at<E>(of);
    add(0, point.value / degree);
    add(1, point.slopes.uv + point.slopes.uu + point.slopes.vv);
  }
};

/// Calls visit(formula of the kernel, with numbers of type T).
template <class T, class Visit>
DPO_HD auto with_log_kernel(const KernelFormula& of, const Visit& visit) {
  switch (of.kind) {
    case LogKernel::laplacian:
      return visit(LaplacianLogKernel<T>(of));
    case LogKernel::matern:
      if (of.nu == 0.5) return visit(MaternLogKernel<T, 1>(of));
      if (of.nu == 1.5) return visit(MaternLogKernel<T, 3>(of));
      if (of.nu == 2.5) return visit(MaternLogKernel<T, 5>(of));
      return visit(RbfLogKernel<T>(of));
    case LogKernel::rational_quadratic:
      return visit(RationalQuadraticLogKernel<T>(of));
    case LogKernel::rbf_mixture:
      return visit(RbfMixtureLogKernel<T>(of));
    case LogKernel::wavelet:
      return visit(WaveletLogKernel<T>(of));
    case LogKernel::mahalanobis:
      return visit(MahalanobisLogKernel<T>(of));
    case LogKernel::polynomial:
    case LogKernel::spectral:
    case LogKernel::random_fourier:
      return visit(InnerProductLogKernel<T>(of));
    case LogKernel::rbf:
      break;
  }
  return visit(RbfLogKernel<T>(of));
}

/// What the formula of this kind is a function of.
DPO_HD inline Seen seen_by(LogKernel kind) {
  switch (kind) {
    case LogKernel::laplacian:
      return Seen::absolute_distance;
    case LogKernel::polynomial:
    case LogKernel::spectral:
    case LogKernel::random_fourier:
      return Seen::inner_product;
    default:
      return Seen::squared_distance;
  }
}

}  // namespace dpo::math
