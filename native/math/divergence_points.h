// What divergences of two softmax rows are made of: single points with their log-ratio t = ln(p/q), and sums that one pass over a
// row gathers. V is a number or a vector of numbers, E its elementary functions.
#pragma once

#include <cmath>

#include "native/math/elementary.h"
#include "native/math/host_device.h"
#include "native/math/log_sum_exp.h"

namespace dpo::math {

/// Elementary functions of one number, as the functors of this file want them.
template <class T>
struct ScalarElementary {
  using Scalar = T;
  DPO_HD_INLINE static T exp(T x) { return std::exp(x); }
  /// e^x of a log-probability: x may be above 0 by rounding only.
  DPO_HD_INLINE static T probability(T x) { return std::exp(x); }
  /// a < b ? a : b, so b when either is NaN; max likewise.
  DPO_HD_INLINE static T min(T a, T b) { return a < b ? a : b; }
  DPO_HD_INLINE static T max(T a, T b) { return a > b ? a : b; }
  DPO_HD_INLINE static T abs(T x) { return std::fabs(x); }
  DPO_HD_INLINE static T log1p(T x) { return std::log1p(x); }
  /// a/b for b between ½ and 4.
  DPO_HD_INLINE static T quotient(T a, T b) { return a / b; }
  /// For x ≤ 0 and a little above.
  DPO_HD_INLINE static ExpParts<T> exp_parts(T x);
};

/// 1/(k+2)!, from k = Terms − 1 down to 0.
template <class T, int Terms>
struct InverseFactorials {
  T values[Terms];
  constexpr InverseFactorials() : values{} {
    double factorial = 1;
    for (int k = 0; k < Terms; ++k) {
      factorial *= k + 2;
      values[Terms - 1 - k] = static_cast<T>(1 / factorial);
    }
  }
};

/// e^v − 1 − v = v²·Σ v^k/(k+2)! for |v| ≤ 1.
template <class E, class V>
DPO_HD_INLINE V expm1_less_linear(V v) {
  using T = typename E::Scalar;
  constexpr InverseFactorials<T, sizeof(T) == 4 ? 9 : 17> inverse;
  return v * v * horner(v, inverse.values);
}

template <class T>
DPO_HD_INLINE ExpParts<T> ScalarElementary<T>::exp_parts(T x) {
  const T em1 = std::expm1(x);
  return {std::exp(x), em1, abs(x) < T(0.5) ? expm1_less_linear<ScalarElementary>(x) : em1 - x};
}

/// Log-ratios of points that have no mass on one side are cut here, so that their terms stay finite.
inline constexpr double log_ratio_limit = 1e30;

/// t between the limits; where neither side has mass (t is NaN) any number will do.
template <class E, class V>
DPO_HD_INLINE V clamped_log_ratio(V t) {
  const V most = V{} + static_cast<typename E::Scalar>(log_ratio_limit);
  return E::max(E::min(t, most), -most);
}

/// A point of two distributions: ln p, ln q and t = ln(p/q), which is known better than lp − lq is. Each with what rounding has
/// taken from it.
template <class V>
struct LogRatio {
  V lp, lq, t;
  V lp_rest, lq_rest, t_rest;
};

/// The same with t cut to the limits, and with p and q themselves.
template <class V>
struct Ratio : LogRatio<V> {
  V distance;          // |t|
  V big;               // max(p, q)
  V e, em1;            // e^−distance = min(p, q)/max(p, q), and the same less 1
  V curved;            // e^−distance − 1 + distance
  V p, q, difference;  // p, q, p − q
};

/// |t| up to the limit.
template <class E, class V>
DPO_HD_INLINE V limited_distance(V t) {
  return E::min(E::abs(t), V{} + static_cast<typename E::Scalar>(log_ratio_limit));
}

template <class E, class V>
DPO_HD_INLINE Ratio<V> ratio_of(LogRatio<V> r) {
  const auto above = r.t >= 0;
  const V distance = limited_distance<E>(r.t);
  r.t = above ? distance : -distance;
  const ExpParts<V> parts = E::exp_parts(-distance);
  const V big = E::probability(above ? r.lp : r.lq);
  const V small = big * parts.e, gap = big * parts.em1;
  return {r, distance, big, parts.e, parts.em1, parts.em1_less_x, above ? big : small, above ? small : big, above ? -gap : gap};
}

/// One point's term of the sum, and w.
template <class V>
struct PointTerms {
  V term, weight;
};

/// One point's p along with them.
template <class V>
struct WeightedTerms {
  V p;
  PointTerms<V> terms;
};

/// What a functor that asks for a Ratio says of a point, or one that asks for no more than its LogRatio.
template <class E, class Divergence, class V>
DPO_HD_INLINE WeightedTerms<V> weighted_terms(const Divergence& divergence, const LogRatio<V>& r) {
  if constexpr (requires { divergence.template distant_at<E>(r); }) {
    return divergence.template distant_at<E>(r);
  } else {
    const Ratio<V> ratio = ratio_of<E>(r);
    return {ratio.p, divergence.template at<E>(ratio)};
  }
}

/// The terms of kl with the larger or the smaller of p and q in its first argument.
template <class V>
struct KlTerms {
  V from_big, from_small;
};

template <class E, class V>
DPO_HD_INLINE KlTerms<V> kl_terms(const Ratio<V>& r) {
  const auto near = r.distance < 1;
  return {r.big * r.curved, r.big * (near ? -(r.em1 * r.distance) - r.curved : -r.em1 - r.distance * r.e)};
}

/// p·t − (p − q).
template <class E, class V>
DPO_HD_INLINE V kl_term(const Ratio<V>& r) {
  const KlTerms<V> terms = kl_terms<E>(r);
  return r.t >= 0 ? terms.from_big : terms.from_small;
}

/// −q·t + (p − q): the term of kl with p and q exchanged.
template <class E, class V>
DPO_HD_INLINE V forward_kl_term(const Ratio<V>& r) {
  const KlTerms<V> terms = kl_terms<E>(r);
  return r.t >= 0 ? terms.from_small : terms.from_big;
}

/// What one pass over a row gathers about its logits x (policy) and y (reference).
struct RowMoments {
  LogSumExp<double> x, y;
  LogSumExp<double> blend;   // of αx + (1−α)y
  double x_differences = 0;  // Σ e^(x − x.max)·(x − y)
  double y_differences = 0;  // Σ e^(y − y.max)·(x − y)

  DPO_HD_INLINE void merge(const RowMoments& other) {
    const RowMoments mine = *this;
    x.merge(other.x);
    y.merge(other.y);
    blend.merge(other.blend);
    x_differences = rescaled(mine.x_differences, mine.x, x) + rescaled(other.x_differences, other.x, x);
    y_differences = rescaled(mine.y_differences, mine.y, y) + rescaled(other.y_differences, other.y, y);
  }

  /// L(x) − L(y).
  DPO_HD double log_sum_exp_difference() const { return (x.max - y.max) + (std::log(x.sum) - std::log(y.sum)); }
  DPO_HD double kl() const { return x_differences / x.sum - log_sum_exp_difference(); }
  DPO_HD double forward_kl() const { return log_sum_exp_difference() - y_differences / y.sum; }
  /// ln Σ p^α q^(1−α).
  DPO_HD double log_affinity(double alpha) const {
    const double maxima = (blend.max - x.max) + (1 - alpha) * (x.max - y.max);
    return maxima + (std::log(blend.sum) - alpha * std::log(x.sum) - (1 - alpha) * std::log(y.sum));
  }

 private:
  DPO_HD_INLINE static double rescaled(double sum, const LogSumExp<double>& from, const LogSumExp<double>& to) {
    return sum == 0 ? 0 : sum * std::exp(from.max - to.max);
  }
};

/// The maxima of one block of a row, by which the first pass takes its exponentials.
struct BlockMaxima {
  double x, blend;
};

/// From those exponentials, in one block: dD/dx = of_blend·e^(blend − max) + of_x·e^(x − max), and p = probability·e^(x − max).
template <class T>
struct ExpWeights {
  T of_x, of_blend, probability;
};

/// What a divergence of two rows has come to.
enum class RowState {
  finite,
  infinite,       // or more than the dtype of the values can hold
  bad_policy,     // NaN, +inf, or nothing but −inf
  bad_reference,  // likewise
  not_converged,
  out_of_memory,
};

/// The moments that a one-pass divergence wants beside the log-sum-exps.
enum class Moment { none, x_differences, y_differences, both_differences, blend };

/// Below this kl (for others: what corresponds to it) the moments have lost too many digits.
inline constexpr double near_identical = 1.0 / 32;

/// Whether rows with this js are so far from identical that 1e-7 of p and q does not show in their divergence.
DPO_HD inline bool are_distant(double js) { return js > near_identical / 2; }

/// A value below this has a gradient that single precision can hold.
inline constexpr double surely_fits = 1e30;

/// All t share the error of L(x) − L(y), some 1e-7 in single precision, which the terms see in second order. Below this sum it is
/// worth finding out.
inline constexpr double refined_below = 1e-9;

}  // namespace dpo::math
