// From two rows of logits, x of the policy and y of the reference, to the points of their distributions. V is a number or a
// vector of numbers of type T; a map is as described in the backends' logit_map.h.
#pragma once

#include <cmath>
#include <limits>

#include "native/math/divergence_points.h"
#include "native/math/host_device.h"

namespace dpo::math {

/// The sum of two numbers of double precision, as that of two of T's: all of it that they can hold.
template <class T>
struct Split {
  T high, low;
  DPO_HD Split(double a, double b) : high(static_cast<T>(a + b)), low(static_cast<T>((a - static_cast<double>(high)) + b)) {}
};

/// A number with what rounding took from it.
template <class V>
struct Exact {
  V value, rest;
};

/// a − b. Knuth (1969), "The Art of Computer Programming", vol. 2, 4.2.2.
template <class V>
DPO_HD_INLINE Exact<V> exact_difference(V a, V b) {
  const V difference = a - b, minus_b = difference - a;
  return {difference, (a - (difference - minus_b)) - (b + minus_b)};
}

/// a − split. What is left over costs nothing where nobody wants it; it is NaN where a is infinite.
template <class V, class T>
DPO_HD_INLINE Exact<V> less_split(const Exact<V>& a, const Split<T>& split) {
  const Exact<V> first = exact_difference<V>(a.value, V{} + split.high);
  const V value = first.value - split.low;
  return {value, ((first.value - value) - split.low) + (a.rest + first.rest)};
}

/// Those of the policy's row x and the reference's row y.
struct Normalizers {
  Normalizer x, y;

  DPO_HD explicit Normalizers(const RowMoments& found) : x(found.x), y(found.y) {}
};

/// Distances between the largest logits of two rows beyond which x − y is taken after subtracting both: next to such a distance
/// the rest of the difference would drown. Below it the plain difference is the more exact one.
inline constexpr double far_apart = 4;

DPO_HD inline bool are_far_apart(const Normalizers& sums) { return std::fabs(sums.x.max - sums.y.max) > far_apart; }

/// From pairs of logits to points of two distributions. t does not come from lp − lq, but from x − y less L(x) − L(y): where p ≈
/// q that keeps the digits.
template <class T, class Map>
class SoftmaxRatios {
 public:
  /// `log_ratio_error` is what all t are too large by, if that is known.
  DPO_HD SoftmaxRatios(const Map& map, const Normalizers& sums, double log_ratio_error = 0)
      : map_(map),
        x_sum_(sums.x.max / map.factor, sums.x.log_sum / map.factor),
        y_sum_(sums.y.max / map.factor, sums.y.log_sum / map.factor),
        far_apart_(are_far_apart(sums)),
        x_shift_(far_apart_ ? static_cast<T>(sums.x.max / map.factor) : T(0)),
        y_shift_(far_apart_ ? static_cast<T>(sums.y.max / map.factor) : T(0)),
        sum_difference_(((sums.x.max - sums.y.max) - (scaled_shift(x_shift_) - scaled_shift(y_shift_))) / map.factor,
                        (sums.x.log_sum - sums.y.log_sum + log_ratio_error) / map.factor) {}

  /// t may be infinite, or NaN where neither side has mass.
  template <class V>
  DPO_HD_INLINE LogRatio<V> at(V x, V y) const {
    const V cx = map_.capped(x), cy = map_.capped(y);
    const Exact<V> lp = less_split(Exact<V>{cx, V{}}, x_sum_), lq = less_split(Exact<V>{cy, V{}}, y_sum_);
    const Exact<V> t = less_split(logit_difference(x, y, cx, cy), sum_difference_);
    return {map_.scaled(lp.value), map_.scaled(lq.value), map_.scaled(t.value),
            map_.scaled(lp.rest),  map_.scaled(lq.rest),  map_.scaled(t.rest)};
  }

 private:
  DPO_HD double scaled_shift(T shift) const { return static_cast<double>(shift) * map_.factor; }

  template <class V>
  DPO_HD_INLINE Exact<V> logit_difference(V x, V y, V cx, V cy) const {
    if constexpr (requires { map_.capped_difference(x, y, cx, cy); }) {
      if (map_.caps) return {map_.capped_difference(x, y, cx, cy) - (x_shift_ - y_shift_), V{}};
    }
    return exact_difference<V>(x - x_shift_, y - y_shift_);
  }

  Map map_;
  Split<T> x_sum_, y_sum_;
  bool far_apart_;
  T x_shift_, y_shift_;
  Split<T> sum_difference_;
};

/// The same for distant rows whose maxima are not far apart and that no map caps: t is rounded once more, and lq comes from it,
/// so that it is NaN where the policy has no mass.
template <class T, class Map>
class DistantRatios {
 public:
  DPO_HD DistantRatios(const Map& map, const Normalizers& sums)
      : map_(map),
        x_sum_(sums.x.max / map.factor, sums.x.log_sum / map.factor),
        sum_difference_(static_cast<T>((sums.x.log_sum_exp() - sums.y.log_sum_exp()) / map.factor)) {}

  template <class V>
  DPO_HD_INLINE LogRatio<V> at(V x, V y) const {
    const V lp = map_.scaled(less_split(Exact<V>{x, V{}}, x_sum_).value), t = map_.scaled((x - y) - sum_difference_);
    return {lp, lp - t, t, V{}, V{}, V{}};
  }

 private:
  Map map_;
  Split<T> x_sum_;
  T sum_difference_;
};

}  // namespace dpo::math
