// Divergences D(p‖q) of two softmax rows (SPEC 4), point by point, written so that nothing cancels where p ≈ q.
//
// Everything is a function of the log-ratio t = ln(p/q) and a weight. Since Σp = Σq = 1, any multiple of p − q may be added to
// the terms of a sum over the row; each functor adds the one that makes its terms of second order in t, so that D(p, p) = 0
// exactly and near-identical rows keep their digits. Likewise the gradient in the logits, dD/dx_j = w_j − p_j·Σw with w =
// p·∂D/∂p, stays the same when a multiple of p is added to w, and w is written without its constant part.
//
// A functor says how often it reads a row:
//   passes = 2: after the two log-sum-exps, at(ratio) gives the term and w of every point, and value(Σ terms) gives D.
//   passes = 1: RowMoments, gathered along with the log-sum-exps, give the value, and then the gradient, of most rows. They
//   cancel where p ≈ q: cancels(moments) tells, and such a row takes the second pass.
// V is a number or a vector of numbers, E its elementary functions. A new divergence is a functor here and its line in
// with_divergence.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "native/math/elementary.h"
#include "native/math/host_device.h"
#include "native/math/log_sum_exp.h"

namespace dpo::math {

enum class Divergence : std::int32_t {
  kl,
  forward_kl,
  jeffreys,
  renyi,
  bhattacharyya,
  hellinger,
  hellinger_root,
  js,
  tv,
  chi2,
  neyman_chi2,
  alpha,
  tsallis,
  f,
  wasserstein,
  transport,
};

/// e^x and e^x − 1.
template <class V>
struct ExpPair {
  V e, em1;
};

/// Elementary functions of one number, as the functors of this file want them.
template <class T>
struct ScalarElementary {
  using Scalar = T;
  DPO_HD_INLINE static T exp(T x) { return std::exp(x); }
  DPO_HD_INLINE static T log1p(T x) { return std::log1p(x); }
  /// a/b for b between ½ and 4.
  DPO_HD_INLINE static T quotient(T a, T b) { return a / b; }
  /// For −½ ≤ x ≤ 1.
  DPO_HD_INLINE static T log1p_unit(T x) { return std::log1p(x); }
  /// For x ≤ 0.
  DPO_HD_INLINE static ExpPair<T> exp_pair(T x) { return {std::exp(x), std::expm1(x)}; }
};

/// Σ c_k x^k, the highest power first.
template <class V, class T, int N>
DPO_HD_INLINE V horner(V x, const T (&coefficients)[N]) {
  V sum = V{} + coefficients[0];
  for (int i = 1; i < N; ++i) sum = sum * x + coefficients[i];
  return sum;
}

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

/// (−1)^k/(k(k−1)), from k = Terms + 1 down to 2.
template <class T, int Terms>
struct AlternatingInverseProducts {
  T values[Terms];
  constexpr AlternatingInverseProducts() : values{} {
    for (int k = 2; k < Terms + 2; ++k) values[Terms + 1 - k] = static_cast<T>((k % 2 == 0 ? 1.0 : -1.0) / (k * (k - 1)));
  }
};

/// e^v − 1 − v = v²·Σ v^k/(k+2)! for |v| ≤ 1.
template <class E, class V>
DPO_HD_INLINE V expm1_less_linear(V v) {
  using T = typename E::Scalar;
  constexpr InverseFactorials<T, sizeof(T) == 4 ? 9 : 17> inverse;
  return v * v * horner(v, inverse.values);
}

/// A point of two distributions: ln p, ln q and t = ln(p/q), which is known better than lp − lq is. Each with what rounding has
/// taken from it.
template <class V>
struct LogRatio {
  V lp, lq, t;
  V lp_rest, lq_rest, t_rest;
};

/// The same with p and q themselves.
template <class V>
struct Ratio : LogRatio<V> {
  V distance;          // |t|
  V big;               // max(p, q)
  V e, em1;            // e^−distance = min(p, q)/max(p, q), and the same less 1
  V p, q, difference;  // p, q, p − q
};

template <class E, class V>
DPO_HD_INLINE Ratio<V> ratio_of(const LogRatio<V>& r) {
  const auto above = r.t >= 0;
  const V distance = above ? r.t : -r.t;
  const ExpPair<V> pair = E::exp_pair(-distance);
  const V big = E::exp(above ? r.lp : r.lq);
  const V small = big * pair.e, gap = big * pair.em1;
  return {r, distance, big, pair.e, pair.em1, above ? big : small, above ? small : big, above ? -gap : gap};
}

/// One point's term of the sum, and w.
template <class V>
struct PointTerms {
  V term, weight;
};

/// What one pass over a row gathers about its logits x (policy) and y (reference).
struct RowMoments {
  LogSumExp<double> x, y;
  LogSumExp<double> blend;   // of αx + (1−α)y
  double x_differences = 0;  // Σ e^(x − x.max)·(x − y)
  double y_differences = 0;  // Σ e^(y − y.max)·(x − y)

  void merge(const RowMoments& other) {
    const RowMoments mine = *this;
    x.merge(other.x);
    y.merge(other.y);
    blend.merge(other.blend);
    x_differences = rescaled(mine.x_differences, mine.x, x) + rescaled(other.x_differences, other.x, x);
    y_differences = rescaled(mine.y_differences, mine.y, y) + rescaled(other.y_differences, other.y, y);
  }

  /// L(x) − L(y).
  double log_sum_exp_difference() const { return (x.max - y.max) + (std::log(x.sum) - std::log(y.sum)); }
  double kl() const { return x_differences / x.sum - log_sum_exp_difference(); }
  double forward_kl() const { return log_sum_exp_difference() - y_differences / y.sum; }
  /// ln Σ p^α q^(1−α).
  double log_affinity(double alpha) const {
    const double maxima = (blend.max - x.max) + (1 - alpha) * (x.max - y.max);
    return maxima + (std::log(blend.sum) - alpha * std::log(x.sum) - (1 - alpha) * std::log(y.sum));
  }

 private:
  static double rescaled(double sum, const LogSumExp<double>& from, const LogSumExp<double>& to) {
    return sum == 0 ? 0 : sum * std::exp(from.max - to.max);
  }
};

/// The moments that a one-pass divergence wants beside the log-sum-exps.
enum class Moment { none, x_differences, y_differences, both_differences, blend };

/// Below this kl (for others: what corresponds to it) the moments have lost too many digits.
inline constexpr double near_identical = 1.0 / 32;

/// The terms of kl with the larger or the smaller of p and q in its first argument.
template <class V>
struct KlTerms {
  V from_big, from_small;
};

template <class E, class V>
DPO_HD_INLINE KlTerms<V> kl_terms(const Ratio<V>& r) {
  const auto near = r.distance < 1;
  const V rest = expm1_less_linear<E>(-r.distance);
  return {r.big * (near ? rest : r.em1 + r.distance), r.big * (near ? -(r.em1 * r.distance) - rest : -r.em1 - r.distance * r.e)};
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

/// All t share the error of L(x) − L(y), some 1e-7 in single precision, which the terms see in second order. Below this sum it is
/// worth finding out.
inline constexpr double refined_below = 1e-9;

/// Divergences that are the sum of their terms.
struct SumOfTerms {
  static constexpr double refined_below = math::refined_below;
  static constexpr Moment moment = Moment::none;
  static constexpr bool may_be_infinite = false;
  static constexpr bool infinite_where_q_is_0 = false, infinite_where_p_is_0 = false;
  ValueAndSlope<double> value(double sum) const { return {sum, 1}; }
};

/// Σ p ln(p/q); w = p·t.
struct KullbackLeibler : SumOfTerms {
  static constexpr int passes = 1;
  static constexpr Moment moment = Moment::x_differences;
  static constexpr bool may_be_infinite = true;
  static constexpr bool infinite_where_q_is_0 = true, infinite_where_p_is_0 = false;

  template <class E, class V>
  DPO_HD_INLINE PointTerms<V> at(const Ratio<V>& r) const {
    return {kl_term<E>(r), r.p * r.t};
  }

  bool cancels(const RowMoments& row) const { return !(row.kl() > near_identical); }
  double value(const RowMoments& row) const { return row.kl(); }
  using SumOfTerms::value;

  template <class T>
  struct Gradient {
    T mean;
    template <class E, class V>
    DPO_HD_INLINE V at(const LogRatio<V>& r) const {
      return E::exp(r.lp) * (r.t - mean);
    }
  };
  template <class T>
  Gradient<T> gradient(const RowMoments& row) const {
    return {static_cast<T>(row.kl())};
  }
};

/// Σ q ln(q/p); w = p − q.
struct ForwardKullbackLeibler : SumOfTerms {
  static constexpr int passes = 1;
  static constexpr Moment moment = Moment::y_differences;
  static constexpr bool may_be_infinite = true;
  static constexpr bool infinite_where_q_is_0 = false, infinite_where_p_is_0 = true;

  template <class E, class V>
  DPO_HD_INLINE PointTerms<V> at(const Ratio<V>& r) const {
    return {forward_kl_term<E>(r), r.difference};
  }

  bool cancels(const RowMoments& row) const { return !(row.forward_kl() > near_identical); }
  double value(const RowMoments& row) const { return row.forward_kl(); }
  using SumOfTerms::value;

  template <class T>
  struct Gradient {
    template <class E, class V>
    DPO_HD_INLINE V at(const LogRatio<V>& r) const {
      return E::exp(r.lp) - E::exp(r.lq);
    }
  };
  template <class T>
  Gradient<T> gradient(const RowMoments&) const {
    return {};
  }
};

/// kl + forward_kl = Σ (p − q)·t; w = p·t + p − q.
struct Jeffreys : SumOfTerms {
  static constexpr int passes = 1;
  static constexpr Moment moment = Moment::both_differences;
  static constexpr bool may_be_infinite = true;
  static constexpr bool infinite_where_q_is_0 = true, infinite_where_p_is_0 = true;

  template <class E, class V>
  DPO_HD_INLINE PointTerms<V> at(const Ratio<V>& r) const {
    return {r.difference * r.t, r.p * r.t + r.difference};
  }

  bool cancels(const RowMoments& row) const { return !(row.kl() > near_identical && row.forward_kl() > near_identical); }
  double value(const RowMoments& row) const { return row.kl() + row.forward_kl(); }
  using SumOfTerms::value;

  template <class T>
  struct Gradient {
    T mean;
    template <class E, class V>
    DPO_HD_INLINE V at(const LogRatio<V>& r) const {
      const V p = E::exp(r.lp);
      return p * (r.t - mean) + (p - E::exp(r.lq));
    }
  };
  template <class T>
  Gradient<T> gradient(const RowMoments& row) const {
    return {static_cast<T>(row.kl())};
  }
};

/// Of two rows next to disjoint, p·∂D/∂p is next to a multiple of p, which the gradient takes off again. Their functor, with w
/// less that multiple, is for_disjoint(); disjoint(D) tells which they are, by a D of nine tenths of the most.
inline constexpr double next_to_disjoint = 0.9;

/// Total variation, ½ Σ |p − q|; w = ½ p·sign(t).
template <bool kDisjoint>
struct TotalVariationOf : SumOfTerms {
  static constexpr int passes = 2;
  static constexpr double refined_below = near_identical;  // w hangs on the sign of t

  template <class E, class V>
  DPO_HD_INLINE PointTerms<V> at(const Ratio<V>& r) const {
    using T = typename E::Scalar;
    const V half = r.p * T(0.5);
    const V weight = r.t > 0 ? half : (r.t < 0 ? -half : V{});
    return {r.big * r.em1 * T(-0.5), kDisjoint ? weight - half : weight};
  }

  bool disjoint(double value) const { return value > next_to_disjoint; }
  TotalVariationOf<true> for_disjoint() const { return {}; }
};
using TotalVariation = TotalVariationOf<false>;

/// Jensen–Shannon divergence, ½ KL(p‖m) + ½ KL(q‖m) with m = (p + q)/2; w = ½ p·ln(p/m).
/// With z = |p − q|/(p + q) = tanh(|t|/2) a point's term is ½m·(z|t| + ln(1 − z²)).
template <bool kDisjoint>
struct JensenShannonOf : SumOfTerms {
  static constexpr int passes = 2;

  template <class E, class V>
  DPO_HD_INLINE PointTerms<V> at(const Ratio<V>& r) const {
    using T = typename E::Scalar;
    const V z = E::quotient(-r.em1, T(2) + r.em1);
    const V m = r.big + T(0.5) * (r.big * r.em1);
    // ln(1 − z²) = 2 ln(1 + z) − |t|, of which one is next to 1 − z² = 0 and the other cancels next to z = 0.
    const auto near = z < T(0.7);
    const V log = E::log1p_unit(near ? -z * z : z);
    const V log_big = near ? T(0.5) * (log + r.distance) : log;  // ln(big/m); for the small one of p and q it is less by |t|
    const V near_term = T(0.5) * m * (z * r.distance + log), far_term = m * log - T(0.5) * (r.big * r.e) * r.distance;
    return {near ? near_term : far_term, T(0.5) * r.p * log_of_p<E>(r, log_big)};
  }

  bool disjoint(double value) const { return value > next_to_disjoint * 0.6931471805599453; }
  JensenShannonOf<true> for_disjoint() const { return {}; }

 private:
  /// ln(p/m), or ln(p/2m).
  template <class E, class V>
  DPO_HD_INLINE static V log_of_p(const Ratio<V>& r, V log_big) {
    if constexpr (kDisjoint) log_big = -E::log1p_unit(r.e);
    return r.t >= 0 ? log_big : log_big - r.distance;
  }
};
using JensenShannon = JensenShannonOf<false>;

/// (1+z)·ln(1+z) − z = Σ (−1)^k z^k/(k(k−1)) for |z| < 0.15.
template <class E, class V>
DPO_HD_INLINE V entropy_less_linear(V z) {
  using T = typename E::Scalar;
  constexpr int count = sizeof(T) == 4 ? 8 : 17;
  constexpr AlternatingInverseProducts<T, count> inverse;
  return z * z * horner(z, inverse.values);
}

/// Generalised Jensen–Shannon divergence, β KL(p‖m) + (1−β) KL(q‖m) with m = βp + (1−β)q; w = β p·ln(p/m).
template <bool kDisjoint>
class GeneralizedJensenShannonOf : public SumOfTerms {
 public:
  static constexpr int passes = 2;

  explicit GeneralizedJensenShannonOf(double beta) : beta_(beta) {}

  template <class E, class V>
  DPO_HD_INLINE PointTerms<V> at(const Ratio<V>& r) const {
    using T = typename E::Scalar;
    const V beta = V{} + static_cast<T>(beta_), rest = V{} + static_cast<T>(1 - beta_);
    const V of_big = r.t >= 0 ? beta : rest, of_small = r.t >= 0 ? rest : beta;
    const V shrunk = of_small * r.em1, m = T(1) + shrunk;  // m in units of big
    const V log_big = -E::log1p(shrunk), log_small = log_big - r.distance;
    // Both arguments of the entropies, big/m − 1 and small/m − 1, are below 0.15 there.
    const V inverse = T(1) / m;
    const V near =
        m * (of_big * entropy_less_linear<E>(-shrunk * inverse) + of_small * entropy_less_linear<E>(of_big * r.em1 * inverse));
    const V far = of_big * log_big + of_small * r.e * log_small;
    const V term = r.big * (r.distance < T(0.125) ? near : far);
    return {term, beta * r.p * log_of_p<E>(r, log_big)};
  }

  bool disjoint(double value) const {
    return value > -next_to_disjoint * (beta_ * std::log(beta_) + (1 - beta_) * std::log1p(-beta_));
  }
  GeneralizedJensenShannonOf<true> for_disjoint() const { return GeneralizedJensenShannonOf<true>(beta_); }

 private:
  /// ln(p/m), or ln(βp/m).
  template <class E, class V>
  DPO_HD_INLINE V log_of_p(const Ratio<V>& r, V log_big) const {
    using T = typename E::Scalar;
    if constexpr (kDisjoint) {
      const V above = -E::log1p(r.e * static_cast<T>((1 - beta_) / beta_));
      return r.t >= 0 ? above : log_big - r.distance + static_cast<T>(std::log(beta_));
    }
    return r.t >= 0 ? log_big : log_big - r.distance;
  }

  double beta_;
};
using GeneralizedJensenShannon = GeneralizedJensenShannonOf<false>;

/// The divergences that are functions of the affinity S = Σ p^α q^(1−α) = e^A:
///   linear D = c·(S − 1)/k,  logarithm D = c·A/k,  root D = √(c·(S − 1)/k).
///
/// k = α−1 for α ≥ ½, else −α, and (S − 1)/k is the sum of the terms p·expm1(kt)/k − (p − q), or with p and q exchanged: of
/// second order in t, and kl or forward_kl in the limit k → 0. dA/dx = α·(softmax(αx + (1−α)y) − p).
enum class AffinityForm { linear, logarithm, root };

struct AffinityDivergence {
  AffinityForm form;
  double alpha;
  double factor;  // c
  int passes;

  bool by_p() const { return alpha >= 0.5; }
  double k() const { return by_p() ? alpha - 1 : -alpha; }
  static constexpr double refined_below = math::refined_below;
  bool infinite_where_q_is_0 = alpha >= 1;
  bool infinite_where_p_is_0 = alpha <= 0;

  ValueAndSlope<double> value(double sum) const {
    const double scaled = k() * sum;
    // Without any overlap nothing changes with p.
    if (form != AffinityForm::logarithm && scaled <= -1)
      return {form == AffinityForm::root ? std::sqrt(factor * sum) : factor * sum, 0};
    switch (form) {
      case AffinityForm::linear:
        return {factor * sum, factor};
      case AffinityForm::logarithm:
        return {factor * (std::fabs(scaled) < 1e-300 ? sum : std::log1p(scaled) * (sum / scaled)), factor / (1 + scaled)};
      case AffinityForm::root: {
        const double root = std::sqrt(factor * sum);
        return {root, root > 0 ? factor / (2 * root) : 0};
      }
    }
    return {0, 0};
  }

  static constexpr Moment moment = Moment::blend;
  static constexpr bool may_be_infinite = true;

  /// Whether D can exceed any exponential: k > 0, and no logarithm of the affinity.
  bool explodes() const { return form != AffinityForm::logarithm && k() > 0; }

  /// Whether D and its gradient are finite and within single precision.
  bool surely_finite(const RowMoments& row) const {
    constexpr double largest_log = 69;
    const double affinity = row.log_affinity(alpha);
    return form == AffinityForm::logarithm ? std::isfinite(affinity) : affinity < largest_log;
  }

  /// Whether the sum of terms is so large that it may hang on a few of them, and their exponents' last bits.
  bool wants_precise(double sum) const { return form != AffinityForm::logarithm && sum > 8; }

  /// An error of 1e-7 in A must not show in A/k, nor in S − 1.
  bool cancels(const RowMoments& row) const {
    const double affinity = std::fabs(row.log_affinity(alpha));
    return !(affinity > (std::fabs(k()) < 0.125 ? 0.25 : near_identical));
  }

  double value(const RowMoments& row) const {
    const double affinity = row.log_affinity(alpha);
    if (form == AffinityForm::logarithm) return factor * affinity / k();
    const double linear = factor * std::expm1(affinity) / k();
    return form == AffinityForm::linear ? linear : std::sqrt(linear);
  }

  /// dD/dA.
  double log_slope(const RowMoments& row) const {
    if (form == AffinityForm::logarithm) return factor / k();
    const double linear = factor * std::exp(row.log_affinity(alpha)) / k();
    return form == AffinityForm::linear ? linear : linear / (2 * value(row));
  }

  template <class T, bool kPrecise>
  struct Gradient {
    T alpha_less_1, affinity_high, affinity_low, scale;
    /// softmax(αx + (1−α)y) − p = p·expm1((α−1)t − A). Where that exponential is large p may have underflowed, so it goes inside.
    template <class E, class V>
    DPO_HD_INLINE V at(const LogRatio<V>& r) const {
      const V v = alpha_less_1 * r.t, distance = v - affinity_high, log_ratio = distance - affinity_low;
      const auto apart = log_ratio > 0;
      const V p = E::exp(r.lp), exponent = r.lp + log_ratio;
      const ExpPair<V> pair = E::exp_pair(apart ? exponent : log_ratio);
      V power = pair.e;
      if constexpr (kPrecise) {
        // |v| > |A| and |lp| > log_ratio here, so these differences are what rounding took.
        const V rest = ((v - distance) - affinity_high) + ((distance - log_ratio) - affinity_low) +
                       (log_ratio - (exponent - r.lp)) + (alpha_less_1 * r.t_rest + r.lp_rest);
        power = power > 0 ? power + power * rest : V{};
      }
      return scale * (apart ? power - p : p * pair.em1);
    }
  };
  template <class T, bool kPrecise>
  Gradient<T, kPrecise> gradient_of(const RowMoments& row) const {
    const double found = row.log_affinity(alpha);
    const double affinity = std::isfinite(found) ? found : 0;  // without overlap the scale is 0
    const auto high = static_cast<T>(affinity);
    return {static_cast<T>(alpha - 1), high, static_cast<T>(affinity - static_cast<double>(high)),
            static_cast<T>(alpha * log_slope(row))};
  }
};

template <class V>
struct PowerTerms {
  V power, term;  // base·expm1(kt)/k, and what is left of it without its linear part, base − other
};

/// `base` is p or q, t the log-ratio of base to the other, `kl` = base·t − excess with excess = base − other.
/// `precise` loses nothing of exponents, for sums that hang on a few large powers.
template <class E, bool precise, class V, class T>
DPO_HD_INLINE PowerTerms<V> power_terms(V base, V log_base, V log_base_rest, V t, V t_rest, V kl, V excess, T k) {
  const V v = k * t;
  const T inverse = (k < 0 ? -k : k) < T(1e-12) ? T(0) : 1 / k;
  const auto near = (v < 0 ? -v : v) < 1;
  const V curved = base * expm1_less_linear<E>(v) * inverse;
  // Not base·e^v, since base may have underflowed where e^v is large.
  const V exponent = log_base + v;
  V exponential = E::exp(exponent);
  if constexpr (precise) {
    const V rest = (log_base - (exponent - v)) + (log_base_rest + k * t_rest);
    exponential = exponential > 0 ? exponential + exponential * rest : V{};
  }
  const V far = (exponential - base) * inverse;
  return {near ? base * t + curved : far, near ? kl + curved : far - excess};
}

/// α ≥ ½: powers of q/p, weighted by p. w = α·power.
template <bool kPrecise>
struct AffinityByPOf : AffinityDivergence {
  static constexpr bool is_precise = kPrecise;
  AffinityByPOf<true> precise() const { return {*this}; }

  template <class T>
  auto gradient(const RowMoments& row) const {
    return gradient_of<T, kPrecise>(row);
  }

  template <class E, class V>
  DPO_HD_INLINE PointTerms<V> at(const Ratio<V>& r) const {
    using T = typename E::Scalar;
    const PowerTerms<V> terms =
        power_terms<E, kPrecise>(r.p, r.lp, r.lp_rest, r.t, r.t_rest, kl_term<E>(r), r.difference, static_cast<T>(alpha - 1));
    return {terms.term, terms.power * static_cast<T>(alpha)};
  }
};

using AffinityByP = AffinityByPOf<false>;

/// α < ½: powers of p/q, weighted by q. w = α·power + (p − q).
template <bool kPrecise>
struct AffinityByQOf : AffinityDivergence {
  static constexpr bool is_precise = kPrecise;
  AffinityByQOf<true> precise() const { return {*this}; }

  template <class T>
  auto gradient(const RowMoments& row) const {
    return gradient_of<T, kPrecise>(row);
  }

  template <class E, class V>
  DPO_HD_INLINE PointTerms<V> at(const Ratio<V>& r) const {
    using T = typename E::Scalar;
    const PowerTerms<V> terms = power_terms<E, kPrecise>(r.q, r.lq, r.lq_rest, -r.t, -r.t_rest, forward_kl_term<E>(r),
                                                         -r.difference, static_cast<T>(-alpha));
    return {terms.term, terms.power * static_cast<T>(alpha) + r.difference};
  }
};

using AffinityByQ = AffinityByQOf<false>;

/// For 0 < α < 1 the affinity is at most 1, and one pass gives all its digits that matter.
inline int passes_of_power(double alpha) { return alpha > 0 && alpha < 1 ? 1 : 2; }

/// The functors of an affinity divergence: AffinityByP or AffinityByQ.
template <class F>
auto with_affinity(AffinityForm form, double alpha, double factor, int passes, const F& f) {
  const AffinityDivergence divergence{form, alpha, factor, passes};
  // High powers hang on few points from the start.
  if (alpha > 2) return f(AffinityByPOf<true>{divergence});
  return alpha >= 0.5 ? f(AffinityByP{divergence}) : f(AffinityByQ{divergence});
}

/// Calls f(functor) with the functor of a divergence whose points are independent of each other, and returns its result; an empty
/// one for renyi(∞) and the kinds that are no sum over points.
template <class F>
auto with_divergence(Divergence kind, double parameter, const F& f) -> decltype(f(KullbackLeibler{})) {
  using enum AffinityForm;
  const double alpha = parameter;
  switch (kind) {
    case Divergence::kl:
      return f(KullbackLeibler{});
    case Divergence::forward_kl:
      return f(ForwardKullbackLeibler{});
    case Divergence::jeffreys:
      return f(Jeffreys{});
    case Divergence::js:
      return parameter == 0.5 ? f(JensenShannon{}) : f(GeneralizedJensenShannon(parameter));
    case Divergence::tv:
      return f(TotalVariation{});
    case Divergence::renyi:
      if (std::isinf(alpha)) return {};
      return with_affinity(logarithm, alpha, alpha >= 0.5 ? 1 : alpha / (1 - alpha), 1, f);
    case Divergence::bhattacharyya:
      return with_affinity(logarithm, 0.5, 0.5, 1, f);
    case Divergence::hellinger:
      return with_affinity(linear, 0.5, 0.5, 1, f);
    case Divergence::hellinger_root:
      return with_affinity(root, 0.5, 0.5, 1, f);
    case Divergence::chi2:
      return with_affinity(linear, 2, 1, 2, f);
    case Divergence::neyman_chi2:
      return with_affinity(linear, -1, 1, 2, f);
    case Divergence::alpha:
      return with_affinity(linear, alpha, alpha >= 0.5 ? 1 / alpha : 1 / (1 - alpha), passes_of_power(alpha), f);
    case Divergence::tsallis:
      return with_affinity(linear, alpha, alpha >= 0.5 ? 1 : alpha / (1 - alpha), passes_of_power(alpha), f);
    default:
      return {};
  }
}

}  // namespace dpo::math
