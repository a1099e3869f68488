// The divergences that are functions of the affinity Σ p^α q^(1−α): Rényi, Bhattacharyya, Hellinger, χ², alpha, Tsallis.
#pragma once

#include <cmath>

#include "native/math/divergence_points.h"

namespace dpo::math {

/// The divergences that are functions of the affinity S = Σ p^α q^(1−α) = e^A:
///   linear D = c·(S − 1)/k,  logarithm D = c·A/k,  root D = √(c·(S − 1)/k).
///
/// k = α−1 for α ≥ ½, else −α, and (S − 1)/k is the sum of the terms p·expm1(kt)/k − (p − q), or with p and q exchanged: of
/// second order in t, and kl or forward_kl in the limit k → 0. dA/dx = α·(softmax(αx + (1−α)y) − p).
enum class AffinityForm { linear, logarithm, root };

DPO_HD inline bool weighted_by_p(double alpha) { return alpha >= 0.5; }

struct AffinityDivergence {
  AffinityForm form;
  double alpha;
  double factor;  // c
  int passes;

  static constexpr double refined_below = math::refined_below;
  static constexpr Moment moment = Moment::blend;
  static constexpr bool may_be_infinite = true;
  bool infinite_where_q_is_0 = alpha >= 1;
  bool infinite_where_p_is_0 = alpha <= 0;

  DPO_HD double k() const { return weighted_by_p(alpha) ? alpha - 1 : -alpha; }

  DPO_HD ValueAndSlope<double> value(double sum) const {
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

  /// Whether D can exceed any exponential: k > 0, and no logarithm of the affinity.
  DPO_HD bool explodes() const { return form != AffinityForm::logarithm && k() > 0; }

  /// Whether D and its gradient are finite and within single precision.
  DPO_HD bool surely_finite(const RowMoments& row) const {
    const double affinity = row.log_affinity(alpha);
    return form == AffinityForm::logarithm ? std::isfinite(affinity) : affinity < std::log(surely_fits);
  }

  /// Whether the sum of terms is so large that it may hang on a few of them, and their exponents' last bits.
  DPO_HD bool wants_precise(double sum) const { return form != AffinityForm::logarithm && sum > 8; }

  /// An error of 1e-7 in A must not show in A/k, nor in S − 1.
  DPO_HD bool cancels(const RowMoments& row) const {
    const double affinity = std::fabs(row.log_affinity(alpha));
    return !(affinity > (std::fabs(k()) < 0.125 ? 0.25 : near_identical));
  }

  DPO_HD double value(const RowMoments& row) const {
    const double affinity = row.log_affinity(alpha);
    if (form == AffinityForm::logarithm) return factor * affinity / k();
    const double linear = factor * std::expm1(affinity) / k();
    return form == AffinityForm::linear ? linear : std::sqrt(linear);
  }

  /// dD/dA.
  DPO_HD double log_slope(const RowMoments& row) const {
    if (form == AffinityForm::logarithm) return factor / k();
    const double linear = factor * std::exp(row.log_affinity(alpha)) / k();
    return form == AffinityForm::linear ? linear : linear / (2 * value(row));
  }

  template <class T>
  struct Gradient {
    T alpha_less_1, affinity_high, affinity_low, scale;
    /// softmax(αx + (1−α)y) − p = p·e^((α−1)t − A) − p. Where that exponential is large p may have underflowed, so it goes
    /// inside.
    template <class E, class V>
    DPO_HD_INLINE V at(const LogRatio<V>& r) const {
      const V v = alpha_less_1 * r.t, distance = v - affinity_high, log_ratio = distance - affinity_low;
      const auto apart = log_ratio > 0;
      const V p = E::probability(r.lp), exponent = r.lp + log_ratio;
      const V e = E::probability(apart ? exponent : log_ratio);
      // Where they are apart |v| > |A| and |lp| > log_ratio, so these differences are what rounding took.
      const V rest = ((v - distance) - affinity_high) + ((distance - log_ratio) - affinity_low) +
                     (log_ratio - (exponent - r.lp)) + (alpha_less_1 * r.t_rest + r.lp_rest);
      const V power = e > 0 ? e + e * rest : V{};
      return scale * (apart ? power - p : p * e - p);
    }
  };
};

/// scale·(softmax(αx + (1−α)y) − p), block by block.
struct GradientOfExps {
  double scale;
  Normalizer x, blend;

  template <class T>
  ExpWeights<T> of_block(const BlockMaxima& block) const {
    const double p = std::exp(x.log_prob(block.x));
    const double of_blend = scale == 0 ? 0 : scale * std::exp(blend.log_prob(block.blend));  // 0: without overlap
    return {static_cast<T>(-scale * p), static_cast<T>(of_blend), static_cast<T>(p)};
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

/// AffinityOf distant rows in single precision: terms (blend − base)/k with blend = p^α q^(1−α), and w less a multiple of p.
template <bool kByP>
struct DistantAffinity : AffinityDivergence {
  template <class E, class V>
  DPO_HD_INLINE WeightedTerms<V> distant_at(const LogRatio<V>& r) const {
    using T = typename E::Scalar;
    const T of_k = static_cast<T>(k()), inverse = static_cast<T>(1 / k());
    const V t = clamped_log_ratio<E>(r.t), p = E::probability(r.lp);
    const V blend = kByP ? E::exp(r.lp + of_k * t) : E::exp(r.lq - of_k * t);
    const V base = kByP ? p : E::probability(r.lq);
    return {p, {(blend - base) * inverse, static_cast<T>(kByP ? alpha / k() : -1) * blend}};
  }

  DPO_HD bool likely(const RowMoments& row) const { return std::fabs(k()) >= 0.5 && !cancels(row); }
  DPO_HD bool holds(double) const { return true; }
};

/// kByP (α ≥ ½): powers of q/p, weighted by p; w = α·power. Else powers of p/q, weighted by q; w = α·power + (p − q).
template <bool kByP, bool kPrecise>
struct AffinityOf : AffinityDivergence {
  static constexpr bool is_precise = kPrecise;
  DPO_HD AffinityOf<kByP, true> precise() const { return {*this}; }
  DPO_HD DistantAffinity<kByP> for_distant() const
    requires(!kPrecise)
  {
    return {*this};
  }

  /// The products that make up a large A lose in rounding what the second pass makes up for.
  DPO_HD bool cancels(const RowMoments& row) const {
    constexpr double large = 16;
    return AffinityDivergence::cancels(row) || (kPrecise && std::fabs(row.log_affinity(alpha)) > large);
  }

  template <class E, class V>
  DPO_HD_INLINE PointTerms<V> at(const Ratio<V>& r) const {
    using T = typename E::Scalar;
    const T of_alpha = static_cast<T>(alpha), of_k = static_cast<T>(k());
    if constexpr (kByP) {
      const auto terms = power_terms<E, kPrecise>(r.p, r.lp, r.lp_rest, r.t, r.t_rest, kl_term<E>(r), r.difference, of_k);
      return {terms.term, of_alpha * terms.power};
    } else {
      const auto terms =
          power_terms<E, kPrecise>(r.q, r.lq, r.lq_rest, -r.t, -r.t_rest, forward_kl_term<E>(r), -r.difference, of_k);
      return {terms.term, of_alpha * terms.power + r.difference};
    }
  }

  /// The gradient from the exponentials of the first pass: their rounding shows in high powers only.
  GradientOfExps gradient_of_exps(const RowMoments& row) const
    requires(!kPrecise)
  {
    return {alpha * log_slope(row), Normalizer(row.x), Normalizer(row.blend)};
  }

  template <class T>
  DPO_HD Gradient<T> gradient(const RowMoments& row) const
    requires kPrecise
  {
    const double found = row.log_affinity(alpha);
    const double affinity = std::isfinite(found) ? found : 0;  // without overlap the scale is 0
    const auto high = static_cast<T>(affinity);
    return {static_cast<T>(alpha - 1), high, static_cast<T>(affinity - static_cast<double>(high)),
            static_cast<T>(alpha * log_slope(row))};
  }
};
using AffinityByP = AffinityOf<true, false>;
using AffinityByQ = AffinityOf<false, false>;

/// Calls f(functor) with the functor of an affinity divergence.
template <class F>
auto with_affinity(AffinityForm form, double alpha, double factor, int passes, const F& f) {
  const AffinityDivergence divergence{form, alpha, factor, passes};
  // High powers hang on few points from the start.
  if (alpha > 2) return f(AffinityOf<true, true>{divergence});
  return weighted_by_p(alpha) ? f(AffinityByP{divergence}) : f(AffinityByQ{divergence});
}

}  // namespace dpo::math
