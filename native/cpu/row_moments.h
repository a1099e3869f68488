// One pass over two rows of logits, x of the policy and y of the reference: what the one-pass divergences are made of.
#pragma once

#include <algorithm>
#include <cstdint>

#include "native/cpu/softmax_row.h"
#include "native/math/divergence_points.h"

namespace dpo::cpu {

/// Pairs of logits that stay in the first-level cache between max and sum, along with those that are read ahead.
inline constexpr std::int64_t kPairBlock = kSoftmaxBlock / 2;

/// Where the first pass leaves its exponentials for the gradient, as math::ExpWeights wants them: those of a row, in whole
/// vectors, and the maxima of its blocks.
template <class T>
struct LeftExps {
  T* x;
  T* blend;
  math::BlockMaxima* maxima;
};

struct NothingLeft {};

/// Moments of at most kPairBlock pairs of logits, which begin at element `begin` of what is left.
template <math::Moment moment, class S, class Map, class Left>
math::RowMoments moments_block(const S* x, const S* y, std::int64_t count, const Map& map, double alpha, const Left& left,
                               std::int64_t begin) {
  using T = compute_t<S>;
  using Block = CappedBlock<S, Map>;
  using enum math::Moment;
  constexpr bool blends = moment == blend;
  constexpr bool of_x = moment == x_differences || moment == both_differences;
  constexpr bool of_y = moment == y_differences || moment == both_differences;
  constexpr bool leaves = !std::is_same_v<Left, NothingLeft>;
  constexpr int kWays = Block::kWays;
  const Block xs(x, count, map), ys(y, count, map);
  const T a = static_cast<T>(alpha), b = static_cast<T>(1 - alpha);
  // αx + (1−α)y; for large α by the difference, so that the rounding of two large products does not count.
  const auto blend_of = [&](Vec<T> cx, Vec<T> cy) __attribute__((always_inline)) {
    return alpha > 1 ? cx - b * (cx - cy) : a * cx + b * cy;
  };

  Vec<T> x_max[kWays], y_max[kWays], blend_max[kWays];
  for (auto* largest : {x_max, y_max, blend_max}) std::fill(largest, largest + kWays, broadcast(Block::kNothing));
  xs.for_each([&](std::int64_t i, Vec<T> cx, auto way) {
    const Vec<T> cy = ys.at(i);
    x_max[way] = max(cx, x_max[way]);
    y_max[way] = max(cy, y_max[way]);
    if constexpr (blends) blend_max[way] = max(blend_of(cx, cy), blend_max[way]);
  });
  const auto largest = [](const Vec<T>(&ways)[kWays]) {
    return horizontal_max(max(max(ways[0], ways[1]), max(ways[2], ways[3])));
  };
  // With only −inf so far, subtracting the maximum would make NaN.
  const auto finite = [](T max) { return max == Block::kNothing ? T(0) : max; };
  const T x_shift = finite(largest(x_max)), y_shift = finite(largest(y_max));
  // How far the largest blend is below the blend of the largest: near enough, since it only keeps the exponentials in range.
  const double blend_of_max =
      static_cast<double>(a) * static_cast<double>(x_shift) + static_cast<double>(b) * static_cast<double>(y_shift);
  const T blend_shift =
      blends ? static_cast<T>(map.factor * (static_cast<double>(finite(largest(blend_max))) - blend_of_max)) : T(0);

  Vec<T> x_sum[kWays] = {}, y_sum[kWays] = {}, first[kWays] = {}, second[kWays] = {};
  xs.for_each([&](std::int64_t i, Vec<T> cx, auto way) {
    __builtin_prefetch(x + count + i);
    __builtin_prefetch(y + count + i);
    Vec<T> dx = map.scaled(cx - x_shift), dy = map.scaled(ys.at(i) - y_shift);
    if constexpr (std::is_same_v<decltype(way), typename Block::LastWay>) {
      // The difference of two infinite numbers is none; these are as good.
      for (Vec<T>* distance : {&dx, &dy}) *distance = first_lanes(*distance, way.filled, T(-1e30));
    }
    const Vec<T> ex = exp_no_overflow(dx), ey = exp_no_overflow(dy);
    x_sum[way] += ex;
    y_sum[way] += ey;
    if constexpr (blends) {
      const Vec<T> blend = exp_no_overflow(blend_of(dx, dy) - blend_shift);
      first[way] += blend;
      if constexpr (leaves) {
        store(left.x + begin + i, ex);
        store(left.blend + begin + i, blend);
      }
    }
    if constexpr (of_x) first[way] += ex * (dx - dy);
    if constexpr (of_y) second[way] += ey * (dx - dy);
  });
  const auto total = [](const Vec<T>(&ways)[kWays]) {
    return static_cast<double>(horizontal_sum((ways[0] + ways[1]) + (ways[2] + ways[3])));
  };
  math::RowMoments result;
  result.x = {map.factor * static_cast<double>(largest(x_max)), total(x_sum)};
  result.y = {map.factor * static_cast<double>(largest(y_max)), total(y_sum)};
  if (result.x.sum < kPeaked) result.x.sum = peaked_exp_sum(xs, map, x_shift);
  if (result.y.sum < kPeaked) result.y.sum = peaked_exp_sum(ys, map, y_shift);
  const double apart = map.factor * (static_cast<double>(x_shift) - static_cast<double>(y_shift));
  if constexpr (blends) {
    const double of_shifts = alpha * static_cast<double>(x_shift) + (1 - alpha) * static_cast<double>(y_shift);
    result.blend = {map.factor * of_shifts + static_cast<double>(blend_shift), total(first)};
  }
  if constexpr (of_x) result.x_differences = total(first) + apart * result.x.sum;
  if constexpr (of_y) result.y_differences = total(second) + apart * result.y.sum;
  if constexpr (leaves) left.maxima[begin / kPairBlock] = {result.x.max, result.blend.max};
  return result;
}

/// Moments of whole rows. Not finite, or without digits, for rows that one pass cannot do.
template <math::Moment moment, class S, class Map, class Left = NothingLeft>
math::RowMoments row_moments(const S* x, const S* y, std::int64_t count, const Map& map, double alpha, const Left& left = {}) {
  math::RowMoments total;
  for (std::int64_t begin = 0; begin < count; begin += kPairBlock) {
    total.merge(moments_block<moment>(x + begin, y + begin, std::min(kPairBlock, count - begin), map, alpha, left, begin));
  }
  return total;
}

}  // namespace dpo::cpu
