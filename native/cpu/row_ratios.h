// From two rows of logits, x of the policy and y of the reference, to the points of their distributions.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "native/cpu/logit_map.h"
#include "native/cpu/softmax_row.h"
#include "native/math/divergences.h"

namespace dpo::cpu {

/// Elementary functions of vectors, as the functors of native/math want them.
template <class T>
struct VectorElementary {
  using Scalar = T;
  [[gnu::always_inline]] static Vec<T> exp(Vec<T> x) { return cpu::exp(x); }
  [[gnu::always_inline]] static Vec<T> log1p(Vec<T> x) { return cpu::log1p(x); }
  [[gnu::always_inline]] static Vec<T> quotient(Vec<T> a, Vec<T> b) { return cpu::quotient(a, b); }
  [[gnu::always_inline]] static Vec<T> log1p_unit(Vec<T> x) { return cpu::log1p_unit(x); }
  [[gnu::always_inline]] static math::ExpPair<Vec<T>> exp_pair(Vec<T> x) { return cpu::exp_pair(x); }
};

/// The sum of two numbers of double precision, as that of two of T's: all of it that they can hold.
template <class T>
struct Split {
  T high, low;
  Split(double a, double b) : high(static_cast<T>(a + b)), low(static_cast<T>((a - static_cast<double>(high)) + b)) {}
};

/// A vector of numbers with what rounding took from them.
template <class T>
struct Exact {
  Vec<T> value, rest;
};

/// a − b. Knuth (1969), "The Art of Computer Programming", vol. 2, 4.2.2.
template <class T>
[[gnu::always_inline]] inline Exact<T> exact_difference(Vec<T> a, Vec<T> b) {
  const Vec<T> difference = a - b, minus_b = difference - a;
  return {difference, (a - (difference - minus_b)) - (b + minus_b)};
}

/// a − split. What is left over costs nothing where nobody wants it; it is NaN where a is infinite.
template <class T>
[[gnu::always_inline]] inline Exact<T> less_split(const Exact<T>& a, const Split<T>& split) {
  const Exact<T> first = exact_difference<T>(a.value, broadcast(split.high));
  const Vec<T> value = first.value - split.low;
  return {value, ((first.value - value) - split.low) + (a.rest + first.rest)};
}

/// max z' of a row and ln Σ e^(z' − max): apart, since the sum of a large maximum and a small logarithm is neither.
struct Normalizer {
  double max, log_sum;

  explicit Normalizer(const math::LogSumExp<double>& sums) : max(sums.max), log_sum(std::log(sums.sum)) {}
  double log_sum_exp() const { return max + log_sum; }
};

/// Those of the policy's row x and the reference's row y.
struct Normalizers {
  Normalizer x, y;

  explicit Normalizers(const math::RowMoments& found) : x(found.x), y(found.y) {}
};

/// Distances between the largest logits of two rows beyond which x − y is taken after subtracting both: next to such a distance
/// the rest of the difference would drown. Below it the plain difference is the more exact one.
inline constexpr double kFarApart = 4;

/// From pairs of logits to points of two distributions. t does not come from lp − lq, but from x − y less L(x) − L(y): where p ≈
/// q that keeps the digits.
template <class S, class Map>
class RowRatios {
 public:
  using T = compute_t<S>;

  /// `log_ratio_error` is what all t are too large by, if that is known.
  RowRatios(const S* x, const S* y, const Map& map, const Normalizers& sums, double log_ratio_error = 0)
      : x_(x),
        y_(y),
        map_(map),
        x_sum_(sums.x.max / map.factor, sums.x.log_sum / map.factor),
        y_sum_(sums.y.max / map.factor, sums.y.log_sum / map.factor),
        far_apart_(std::fabs(sums.x.max - sums.y.max) > kFarApart),
        x_shift_(far_apart_ ? static_cast<T>(sums.x.max / map.factor) : T(0)),
        y_shift_(far_apart_ ? static_cast<T>(sums.y.max / map.factor) : T(0)),
        sum_difference_(((sums.x.max - sums.y.max) - (scaled_shift(x_shift_) - scaled_shift(y_shift_))) / map.factor,
                        (sums.x.log_sum - sums.y.log_sum + log_ratio_error) / map.factor) {}

  /// t may be infinite, or NaN where neither side has mass.
  template <class N>
  [[gnu::always_inline]] math::LogRatio<Vec<T>> at(std::int64_t i, N n) const {
    __builtin_prefetch(x_ + i + kLookAhead / sizeof(S));
    __builtin_prefetch(y_ + i + kLookAhead / sizeof(S));
    const Vec<T> x = load_lanes(x_ + i, n), y = load_lanes(y_ + i, n);
    const Vec<T> cx = map_.capped(x), cy = map_.capped(y);
    const Exact<T> lp = less_split(Exact<T>{cx, Vec<T>{}}, x_sum_), lq = less_split(Exact<T>{cy, Vec<T>{}}, y_sum_);
    const Exact<T> t = less_split(logit_difference(x, y, cx, cy), sum_difference_);
    math::LogRatio<Vec<T>> r{map_.scaled(lp.value), map_.scaled(lq.value), map_.scaled(t.value),
                             map_.scaled(lp.rest),  map_.scaled(lq.rest),  map_.scaled(t.rest)};
    if constexpr (!std::is_same_v<N, AllLanes<T>>) clear_beyond(n, r);
    return r;
  }

 private:
  double scaled_shift(T shift) const { return static_cast<double>(shift) * map_.factor; }

  [[gnu::always_inline]] Exact<T> logit_difference(Vec<T> x, Vec<T> y, Vec<T> cx, Vec<T> cy) const {
    if constexpr (Map::caps) {
      return {map_.capped_difference(x, y, cx, cy) - (x_shift_ - y_shift_), Vec<T>{}};
    } else {
      return exact_difference<T>(x - x_shift_, y - y_shift_);
    }
  }

  /// Lanes past the end of the row have no mass.
  static void clear_beyond(int n, math::LogRatio<Vec<T>>& r) {
    for (int lane = n; lane < lanes<T>; ++lane) {
      r.lp[lane] = r.lq[lane] = -std::numeric_limits<T>::infinity();
      r.t[lane] = 0;
    }
  }

  const S* x_;
  const S* y_;
  Map map_;
  Split<T> x_sum_, y_sum_;
  bool far_apart_;
  T x_shift_, y_shift_;
  Split<T> sum_difference_;
};

/// Log-ratios of points that have no mass on one side are cut here, so that their terms stay finite.
inline constexpr double kLogRatioLimit = 1e30;

/// t between the limits; where neither side has mass (t is NaN) any number will do.
template <class T>
[[gnu::always_inline]] inline Vec<T> clamped_log_ratio(Vec<T> t) {
  return max(min(t, broadcast(static_cast<T>(kLogRatioLimit))), broadcast(static_cast<T>(-kLogRatioLimit)));
}

}  // namespace dpo::cpu
