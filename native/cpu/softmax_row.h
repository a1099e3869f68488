// One row of logits: what its softmax needs, in one pass, and the pull-back of a target's log-probability.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "native/cpu/logit_map.h"
#include "native/cpu/row_chunks.h"
#include "native/cpu/simd.h"
#include "native/math/softmax_sums.h"

namespace dpo::cpu {

using math::SoftmaxSums;

inline constexpr std::int64_t kSoftmaxBlock = 4096;  // elements that stay in the first-level cache between max and sum

/// One block of a row in vectors of capped logits; the lanes past its end are −inf.
template <class S, class Map>
class CappedBlock {
 public:
  using T = compute_t<S>;
  static constexpr std::int64_t kStep = lanes<T>;
  static constexpr T kNothing = -std::numeric_limits<T>::infinity();

  CappedBlock(const S* row, std::int64_t count, const Map& map)
      : row_(row), whole_(count / kStep * kStep), rest_(static_cast<int>(count - whole_)) {
    if constexpr (Map::caps) cap(map);
  }

  /// Vectors go round this many accumulators, so that none waits for the one before it.
  static constexpr int kWays = 4;

  /// The way of the vector that the row's end does not fill.
  struct LastWay : std::integral_constant<int, 0> {
    int filled;  // lanes
  };

  /// Calls visit(i, capped, way) for every vector; `way` is a constant of 0 .. kWays − 1, or a LastWay.
  template <class Visit>
  [[gnu::always_inline]] void for_each(const Visit& visit) const {
    walk(logits(), kNothing, visit);
  }

  /// The vector from element i on, a multiple of the vector's size.
  [[gnu::always_inline]] Vec<T> at(std::int64_t i) const {
    return i < whole_ ? load(logits() + i) : load_partial(logits() + whole_, rest_, kNothing);
  }

  /// for_each with the raw logits, and `fill` past the end.
  template <class Visit>
  [[gnu::always_inline]] void for_each_logit(T fill, const Visit& visit) const {
    walk(row_, fill, visit);
  }

 private:
  template <int way>
  using Way = std::integral_constant<int, way>;

  const auto* logits() const {
    if constexpr (Map::caps) {
      return capped_;
    } else {
      return row_;
    }
  }

  template <class Logit, class Visit>
  [[gnu::always_inline]] void walk(const Logit* from, T fill, const Visit& visit) const {
    std::int64_t i = 0;
    for (; i + kWays * kStep <= whole_; i += kWays * kStep) {
      visit(i, load(from + i), Way<0>{});
      visit(i + kStep, load(from + i + kStep), Way<1>{});
      visit(i + 2 * kStep, load(from + i + 2 * kStep), Way<2>{});
      visit(i + 3 * kStep, load(from + i + 3 * kStep), Way<3>{});
    }
    for (; i < whole_; i += kStep) visit(i, load(from + i), Way<0>{});
    if (rest_ > 0) visit(whole_, load_partial(from + whole_, rest_, fill), LastWay{{}, rest_});
  }

  void cap(const Map& map) {
    for_each_logit(T(0), [&](std::int64_t i, Vec<T> z, auto) { store(capped_ + i, map.capped(z)); });
  }

  const S* row_;
  std::int64_t whole_;
  int rest_;
  alignas(64) T capped_[Map::caps ? kSoftmaxBlock + kStep : 1];
};

/// What is asked of a row beside its log-sum-exp.
enum class Detail { none, mean_logit, all };

/// Below this Σ e^(z' − max) is mostly the maximum's own 1, in which what is left of the row would drown.
inline constexpr double kPeaked = 1.5;

/// Σ e^(z' − max) with the maximum counted apart from the rest.
template <class S, class Map>
double peaked_exp_sum(const CappedBlock<S, Map>& block, const Map& map, compute_t<S> shift) {
  using T = compute_t<S>;
  Vec<T> peaks = {}, rest = {};
  block.for_each([&](std::int64_t, Vec<T> capped, auto) {
    const Vec<T> distance = map.scaled(capped - shift);
    const auto at_peak = distance == T(0);
    peaks += select(at_peak, broadcast(T(1)), Vec<T>{});
    rest += select(at_peak, Vec<T>{}, exp_no_overflow(distance));
  });
  return static_cast<double>(horizontal_sum(peaks)) + static_cast<double>(horizontal_sum(rest));
}

/// Sums of at most kSoftmaxBlock logits: logit_sum unless `detail` is none, weighted_sum if it is all.
template <Detail detail, class S, class Map>
SoftmaxSums softmax_block(const S* row, std::int64_t count, const Map& map) {
  using T = compute_t<S>;
  using Block = CappedBlock<S, Map>;
  const Block block(row, count, map);
  constexpr int kWays = Block::kWays;
  Vec<T> largest[kWays], logits[kWays] = {}, sums[kWays] = {}, weighted[kWays] = {};
  std::fill(largest, largest + kWays, broadcast(Block::kNothing));
  block.for_each([&](std::int64_t, Vec<T> capped, auto way) { largest[way] = max(capped, largest[way]); });
  if constexpr (detail != Detail::none) block.for_each_logit(T(0), [&](std::int64_t, Vec<T> z, auto way) { logits[way] += z; });

  const T block_max = horizontal_max(max(max(largest[0], largest[1]), max(largest[2], largest[3])));
  // With only −inf so far, subtracting the maximum would make NaN; NaN and +inf are left to do just that.
  const T shift = block_max == Block::kNothing ? T(0) : block_max;
  block.for_each([&](std::int64_t i, Vec<T> capped, auto way) {
    __builtin_prefetch(row + count +
                       i);  // the block after this one, most often: memory works while the exponentials are computed
    const Vec<T> distance = map.scaled(capped - shift);
    const Vec<T> e = exp_no_overflow(distance);
    sums[way] += e;
    // Where e is 0 the distance may be −inf, and their product NaN.
    if constexpr (detail == Detail::all) weighted[way] += e * max(broadcast(T(-1000)), distance);
  });
  const auto total = [](const Vec<T>(&ways)[kWays]) {
    return static_cast<double>(horizontal_sum((ways[0] + ways[1]) + (ways[2] + ways[3])));
  };
  SoftmaxSums result;
  result.exps.max = static_cast<double>(block_max) * map.factor;
  result.exps.sum = total(sums);
  if (result.exps.sum < kPeaked) result.exps.sum = peaked_exp_sum(block, map, shift);
  if constexpr (detail == Detail::all) result.weighted_sum = total(weighted);
  if constexpr (detail != Detail::none) result.logit_sum = total(logits);
  return result;
}

template <Detail detail, class S, class Map>
SoftmaxSums softmax_sums(const S* row, std::int64_t count, const Map& map) {
  SoftmaxSums total;
  for (std::int64_t begin = 0; begin < count; begin += kSoftmaxBlock) {
    total.merge(softmax_block<detail>(row + begin, std::min(kSoftmaxBlock, count - begin), map));
  }
  return total;
}

/// The first element that is NaN or +inf; −1 if none is, and then the row is all −inf.
template <class S>
std::int64_t first_bad_logit(const S* row, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const auto z = to_compute(row[i]);
    if (!(z < std::numeric_limits<decltype(z)>::infinity())) return i;
  }
  return -1;
}

/// Bytes that a pass asks for ahead of where it is: across a page, where the processor's own look-ahead ends.
inline constexpr std::int64_t kLookAhead = 4096;

/// Whether no element is NaN or +inf; the same question as first_bad_logit at the speed of memory.
template <class S>
bool all_below_infinity(const S* row, std::int64_t count) {
  using T = compute_t<S>;
  const Vec<T> infinity = broadcast(std::numeric_limits<T>::infinity());
  constexpr std::int64_t kStep = lanes<T>;
  Vec<T> excess = {};  // stays 0 while every element is below infinity
  std::int64_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    __builtin_prefetch(row + i + kLookAhead / sizeof(S));
    excess += select(load(row + i) < infinity, Vec<T>{}, infinity);
  }
  if (i < count) excess += select(load_partial(row + i, static_cast<int>(count - i), T(0)) < infinity, Vec<T>{}, infinity);
  return horizontal_sum(excess) == 0;
}

/// softmax(z') = e^(z' − L) from capped logits.
template <class T, class Map>
class Softmax {
 public:
  Softmax(const Map& map, double log_sum_exp) : map_(map), log_sum_(log_sum_exp, map.factor) {}
  Vec<T> operator()(Vec<T> capped) const { return exp_no_overflow(map_.scaled(log_sum_.below(capped))); }

 private:
  Map map_;
  math::SplitLogSumExp<T> log_sum_;
};

/// A full vector's count of elements, as opposed to one that is only known when the end of a row is reached.
template <class T>
using AllLanes = std::integral_constant<int, lanes<T>>;

template <Storage S>
[[gnu::always_inline]] inline Vec<compute_t<S>> load_lanes(const S* from, AllLanes<compute_t<S>>) {
  return load(from);
}
template <Storage S>
[[gnu::always_inline]] inline Vec<compute_t<S>> load_lanes(const S* from, int n) {
  return load_partial(from, n, compute_t<S>(0));
}

/// to[0, count) = make(i, n), n elements at a time; n is AllLanes but for the ends of the row.
template <Write write, class S, class Make>
[[gnu::always_inline]] inline void write_row(S* to, std::int64_t count, const Make& make) {
  using T = compute_t<S>;
  constexpr std::int64_t kStep = lanes<T>;
  const auto partial = [&](std::int64_t i, std::int64_t n) {
    store_partial(to + i, static_cast<int>(n), make(i, static_cast<int>(n)));
  };
  std::int64_t i = 0;
  if constexpr (write == Write::streamed) {
    constexpr std::uintptr_t kAlign = kStep * sizeof(S);
    const auto misaligned = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to) % kAlign / sizeof(S));
    if (misaligned != 0) {
      i = std::min(count, kStep - misaligned);
      partial(0, i);
    }
  }
  for (; i + kStep <= count; i += kStep) {
    if constexpr (write == Write::streamed) {
      stream(to + i, make(i, AllLanes<T>{}));
    } else {
      store(to + i, make(i, AllLanes<T>{}));
    }
  }
  if (i < count) partial(i, count - i);
}

/// dz = −g·softmax(z')·dz'/dz for every element of a row, or of a part of it; for the target see target_vjp.
template <Write write, class S, class Map>
void softmax_row_vjp(const S* row, std::int64_t count, const Map& map, double log_sum_exp, double upstream, S* grad) {
  using T = compute_t<S>;
  const Softmax<T, Map> softmax(map, log_sum_exp);
  const T scale = static_cast<T>(-upstream);
  write_row<write>(
      grad, count, [&](std::int64_t i, auto n) __attribute__((always_inline)) {
        __builtin_prefetch(row + i + kLookAhead / sizeof(S));
        const Vec<T> capped = map.capped(load_lanes(row + i, n));
        return softmax(capped) * map.slope(capped) * scale;
      });
}

/// dz = g·(1 − softmax(z'))·dz'/dz at the target.
template <class S, class Map>
S target_vjp(S target_logit, const Map& map, double log_sum_exp, double upstream) {
  using T = compute_t<S>;
  const T z = to_compute(target_logit);
  const double slope = static_cast<double>(map.slope(map.capped(broadcast(z)))[0]);
  return to_storage<S>(static_cast<T>(upstream * math::own_log_prob_slope(map_logit(map, z), log_sum_exp) * slope));
}

}  // namespace dpo::cpu
