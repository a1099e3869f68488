// One pass over two rows of logits, x of the policy and y of the reference: what the one-pass divergences are made of.
#pragma once

#include <cmath>
#include <limits>

#include "native/cuda/row_packs.h"
#include "native/math/divergence_points.h"

namespace dpo::cuda {

/// Two rows of logits, of which elements begin .. end are shared out among the threads of a block. S is what they are stored as, C
/// what is computed in.
template <class S, class C>
struct LogitRows {
  const S *x, *y;
  std::int64_t columns, begin, end;

  __device__ C policy(std::int64_t i) const { return static_cast<C>(to_compute(x[i])); }
  __device__ C reference(std::int64_t i) const { return static_cast<C>(to_compute(y[i])); }

  __device__ __forceinline__ RowPacks<S> packs() const { return RowPacks<S>(x, begin, end); }

  /// Calls body(i, x, y) for all elements of this thread.
  template <class Body>
  __device__ __forceinline__ void for_each(const Body& body) const {
    const RowPacks<S> packs = this->packs();
    const bool whole = packs.holds_packs_at(y);
    packs.for_each_part([&](std::int64_t i, int count, const Pack<S>& xs) {
      visit_words(count, xs, load_part(y + i, count, whole), [&](int k, S one, S other) {
        body(i + k, static_cast<C>(to_compute(one)), static_cast<C>(to_compute(other)));
      });
    });
  }

  /// to[i] = make(i, x, y) for all elements of this thread; `to` may be x.
  template <class Make>
  __device__ __forceinline__ void transform(S* to, const Make& make) const {
    const RowPacks<S> packs = this->packs();
    const bool whole_y = packs.holds_packs_at(y), whole_to = packs.holds_packs_at(to);
    packs.for_each_part([&](std::int64_t i, int count, const Pack<S>& xs) {
      const auto stored = [&](int k, S one, S other) {
        return to_storage<S>(make(i + k, static_cast<C>(to_compute(one)), static_cast<C>(to_compute(other))));
      };
      store_part(to + i, count, transform_words(count, xs, load_part(y + i, count, whole_y), stored), whole_to);
    });
  }
};

/// ln Σ e^x that takes one number after another, with a sum that goes along; both in double precision.
template <class C>
struct RunningSum {
  double max = -std::numeric_limits<double>::infinity(), sum = 0, weighted = 0;

  /// Returns e^(x − max). With only −inf so far the difference is NaN for NaN and +inf, which is what finds them out.
  __device__ __forceinline__ double add(double x) {
    if (x > max) {
      const double scale = sum == 0 ? 0 : std::exp(max - x);
      sum *= scale;
      weighted = weighted == 0 ? 0 : weighted * scale;
      max = x;
    }
    const double shift = max == -std::numeric_limits<double>::infinity() ? 0 : max;
    const auto e = static_cast<double>(std::exp(static_cast<C>(x - shift)));
    sum += e;
    return e;
  }
};

/// Moments of both rows, as far as this thread has them.
template <math::Moment moment, class S, class C, class Map>
__device__ __forceinline__ math::RowMoments row_moments(const LogitRows<S, C>& rows, const Map& map, double alpha) {
  using enum math::Moment;
  RunningSum<C> x, y, blended;
  rows.for_each([&](std::int64_t, C zx, C zy) {
    const double cx = map.mapped(zx), cy = map.mapped(zy);
    const double ex = x.add(cx), ey = y.add(cy);
    if constexpr (moment == x_differences || moment == both_differences) x.weighted += ex * (cx - cy);
    if constexpr (moment == y_differences || moment == both_differences) y.weighted += ey * (cx - cy);
    // For large α by the difference, so that the rounding of two large products does not count.
    if constexpr (moment == blend) blended.add(alpha > 1 ? cx - (1 - alpha) * (cx - cy) : alpha * cx + (1 - alpha) * cy);
  });
  math::RowMoments mine;
  mine.x = {x.max, x.sum};
  mine.y = {y.max, y.sum};
  mine.blend = {blended.max, blended.sum};
  mine.x_differences = x.weighted;
  mine.y_differences = y.weighted;
  return mine;
}

}  // namespace dpo::cuda
