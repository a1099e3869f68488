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
// Where that saves much, for_distant() is a functor for rows of which p ≈ q need not be thought: of most points of a second
// pass it asks for no more than the LogRatio. likely(moments) tells before that pass which rows those are, holds(Σ terms) after
// it. V is a number or a vector of numbers, E its elementary functions. A new divergence is a functor here and its line in
// with_divergence.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#include "native/math/affinity_divergences.h"
#include "native/math/divergence_points.h"

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

/// Divergences that are the sum of their terms.
struct SumOfTerms {
  static constexpr double refined_below = math::refined_below;
  static constexpr Moment moment = Moment::none;
  static constexpr bool may_be_infinite = false;
  static constexpr bool infinite_where_q_is_0 = false, infinite_where_p_is_0 = false;
  DPO_HD ValueAndSlope<double> value(double sum) const { return {sum, 1}; }
};

/// p − q, for the sum of them or to be stored.
struct Differences {
  static constexpr bool may_be_infinite = false;

  template <class E, class V>
  DPO_HD_INLINE PointTerms<V> at(const Ratio<V>& r) const {
    return {r.difference, r.difference};
  }
};

/// p at the points where t has this value, 0 elsewhere.
struct MassAt {
  static constexpr bool may_be_infinite = true;
  double t;
  template <class E, class V>
  DPO_HD_INLINE PointTerms<V> at(const Ratio<V>& r) const {
    const V p = r.t == t ? r.p : V{};
    return {p, p};
  }
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

  DPO_HD bool cancels(const RowMoments& row) const { return !(row.kl() > near_identical); }
  DPO_HD double value(const RowMoments& row) const { return row.kl(); }
  using SumOfTerms::value;

  template <class T>
  struct Gradient {
    T mean;
    template <class E, class V>
    DPO_HD_INLINE V at(const LogRatio<V>& r) const {
      return E::probability(r.lp) * (r.t - mean);
    }
  };
  template <class T>
  DPO_HD Gradient<T> gradient(const RowMoments& row) const {
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

  DPO_HD bool cancels(const RowMoments& row) const { return !(row.forward_kl() > near_identical); }
  DPO_HD double value(const RowMoments& row) const { return row.forward_kl(); }
  using SumOfTerms::value;

  template <class T>
  struct Gradient {
    template <class E, class V>
    DPO_HD_INLINE V at(const LogRatio<V>& r) const {
      return E::probability(r.lp) - E::probability(r.lq);
    }
  };
  template <class T>
  DPO_HD Gradient<T> gradient(const RowMoments&) const {
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

  DPO_HD bool cancels(const RowMoments& row) const { return !(row.kl() > near_identical && row.forward_kl() > near_identical); }
  DPO_HD double value(const RowMoments& row) const { return row.kl() + row.forward_kl(); }
  using SumOfTerms::value;

  template <class T>
  struct Gradient {
    T mean;
    template <class E, class V>
    DPO_HD_INLINE V at(const LogRatio<V>& r) const {
      const V p = E::probability(r.lp);
      return p * (r.t - mean) + (p - E::probability(r.lq));
    }
  };
  template <class T>
  DPO_HD Gradient<T> gradient(const RowMoments& row) const {
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

  DPO_HD bool disjoint(double value) const { return value > next_to_disjoint; }
  DPO_HD TotalVariationOf<true> for_disjoint() const { return {}; }
};
using TotalVariation = TotalVariationOf<false>;

/// ln(2/(1 + e)) for 0 ≤ e ≤ 1, highest power of e − ½ first. Minimax, absolute error 2.9e-8.
struct LogTwoOverTerms {
  float odd[4] = {-0.01024388770957551f, -0.025967303792656534f, -0.0987917548316149f, -0.66666616595965445f};
  float even[5] = {0.0062999461546542133f, 0.014264106457663522f, 0.049421217227891092f, 0.22222078831246969f,
                   0.28768208129704443f};
};

/// Of a point of distant rows: |t|, e = min(p, q)/max(p, q), max(p, q) and p.
template <class V>
struct DistantPoint {
  V distance, e, big, p;
};

template <class E, class V>
DPO_HD_INLINE DistantPoint<V> distant_point(const LogRatio<V>& r) {
  const auto above = r.t >= 0;
  const V distance = limited_distance<E>(r.t), e = E::probability(-distance), big = E::probability(above ? r.lp : r.lq);
  return {distance, e, big, above ? big : big * e};
}

/// JensenShannon of distant rows in single precision: ln(big/m) = ln(2/(1 + e)).
struct DistantJensenShannon {
  static constexpr bool may_be_infinite = false;
  static constexpr Moment moment = Moment::x_differences;

  template <class E, class V>
  DPO_HD_INLINE WeightedTerms<V> distant_at(const LogRatio<V>& r) const {
    constexpr LogTwoOverTerms terms;
    const DistantPoint<V> point = distant_point<E>(r);
    // Odd and even powers apart, since one after the other they would have to wait for each other.
    const V x = point.e - 0.5f, square = x * x;
    const V log_big = horner(square, terms.odd) * x + horner(square, terms.even), log_small = log_big - point.distance;
    return {point.p, {point.big * (point.e * log_small + log_big), point.p * (r.t >= 0 ? log_big : log_small)}};
  }

  /// By half of the js that kl stands for where the rows are near, lest the pass be in vain.
  DPO_HD bool likely(const RowMoments& row) const { return are_distant(0.5 * (row.kl() / 4)); }
  DPO_HD bool holds(double sum) const { return are_distant(0.5 * sum); }
};

/// GeneralizedJensenShannon likewise.
struct DistantGeneralizedJensenShannon {
  static constexpr bool may_be_infinite = false;
  static constexpr Moment moment = Moment::x_differences;
  double beta;

  template <class E, class V>
  DPO_HD_INLINE WeightedTerms<V> distant_at(const LogRatio<V>& r) const {
    using T = typename E::Scalar;
    const DistantPoint<V> point = distant_point<E>(r);
    const auto above = r.t >= 0;
    const V of_p = V{} + static_cast<T>(beta), of_q = V{} + static_cast<T>(1 - beta);
    const V of_big = above ? of_p : of_q, of_small = above ? of_q : of_p;
    const V log_big = -E::log1p(of_small * (point.e - T(1))), log_small = log_big - point.distance;
    return {point.p,
            {point.big * (of_small * point.e * log_small + of_big * log_big), of_p * point.p * (above ? log_big : log_small)}};
  }

  DPO_HD bool likely(const RowMoments& row) const { return are_distant(0.5 * beta * (1 - beta) * row.kl()); }
  DPO_HD bool holds(double sum) const { return are_distant(sum); }
};

/// Jensen–Shannon divergence, ½ KL(p‖m) + ½ KL(q‖m) with m = (p + q)/2. The terms sum to 2D, and w = p·ln(p/m).
/// For the larger of p and q, ln(big/m) = −ln(1 + x) with x = (small/big − 1)/2; ln(small/m) is less by |t|.
template <bool kDisjoint>
struct JensenShannonOf : SumOfTerms {
  static constexpr int passes = 2;

  template <class E, class V>
  DPO_HD_INLINE PointTerms<V> at(const Ratio<V>& r) const {
    using T = typename E::Scalar;
    const V x = T(0.5) * r.em1, rest = less_log1p_unit<E>(x), log_big = rest - x;
    // big·ln(big/m) + small·ln(small/m), without what is of first order in t.
    const V term = rest * (T(2) + r.em1) + (x * r.em1 - r.e * r.curved);
    return {r.big * term, r.p * log_of_p<E>(r, log_big)};
  }

  DPO_HD ValueAndSlope<double> value(double sum) const { return {0.5 * sum, 0.5}; }
  DPO_HD bool disjoint(double sum) const { return sum > next_to_disjoint * 2 * std::numbers::ln2; }
  DPO_HD JensenShannonOf<true> for_disjoint() const { return {}; }
  DPO_HD DistantJensenShannon for_distant() const { return {}; }

 private:
  /// ln(p/m), or ln(p/2m).
  template <class E, class V>
  DPO_HD_INLINE static V log_of_p(const Ratio<V>& r, V log_big) {
    if constexpr (kDisjoint) log_big = less_log1p_unit<E>(r.e) - r.e;
    return r.t >= 0 ? log_big : log_big - r.distance;
  }
};
using JensenShannon = JensenShannonOf<false>;

/// (−1)^k/(k(k−1)), from k = Terms + 1 down to 2.
template <class T, int Terms>
struct AlternatingInverseProducts {
  T values[Terms];
  constexpr AlternatingInverseProducts() : values{} {
    for (int k = 2; k < Terms + 2; ++k) values[Terms + 1 - k] = static_cast<T>((k % 2 == 0 ? 1.0 : -1.0) / (k * (k - 1)));
  }
};

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

  DPO_HD explicit GeneralizedJensenShannonOf(double beta) : beta_(beta) {}

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

  DPO_HD bool disjoint(double value) const {
    return value > -next_to_disjoint * (beta_ * std::log(beta_) + (1 - beta_) * std::log1p(-beta_));
  }
  DPO_HD GeneralizedJensenShannonOf<true> for_disjoint() const { return GeneralizedJensenShannonOf<true>(beta_); }
  DPO_HD DistantGeneralizedJensenShannon for_distant() const { return {beta_}; }

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

/// For 0 < α < 1 the affinity is at most 1, and one pass gives all its digits that matter.
inline int passes_of_power(double alpha) { return alpha > 0 && alpha < 1 ? 1 : 2; }

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
      return with_affinity(logarithm, alpha, weighted_by_p(alpha) ? 1 : alpha / (1 - alpha), 1, f);
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
      return with_affinity(linear, alpha, weighted_by_p(alpha) ? 1 / alpha : 1 / (1 - alpha), passes_of_power(alpha), f);
    case Divergence::tsallis:
      return with_affinity(linear, alpha, weighted_by_p(alpha) ? 1 : alpha / (1 - alpha), passes_of_power(alpha), f);
    default:
      return {};
  }
}

}  // namespace dpo::math
