// What one block gathers of its part of a row of logits.
#pragma once

#include <cmath>
#include <limits>

#include "native/cuda/reduce.h"
#include "native/cuda/row_packs.h"
#include "native/math/softmax_sums.h"

namespace dpo::cuda {

/// Sums of one thread: the maximum in T, which it has exactly; the rest in double, so that what stands beside a maximum that is
/// nearly all of the row is not lost.
template <class T, class Map>
class ThreadSums {
 public:
  __device__ explicit ThreadSums(const Map& map) : map_(map) {}

  template <int kCount>
  __device__ __forceinline__ void add(const T (&logits)[kCount]) {
    T capped[kCount];
    T largest = max_;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      capped[i] = map_.capped(logits[i]);
      if (capped[i] > largest) largest = capped[i];
      logit_sum_ += static_cast<double>(logits[i]);
    }
    if (largest > max_) move_to(largest);
    // With only −inf so far, subtracting the maximum would make NaN; NaN and +inf are left to do just that.
    const T shift = max_ == -std::numeric_limits<T>::infinity() ? T(0) : max_;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const T distance = map_.scaled(capped[i] - shift);
      const T e = std::exp(distance);
      sum_ += static_cast<double>(e);
      // Where e is 0 the distance may be −inf, and their product NaN.
      weighted_sum_ += static_cast<double>(distance > T(-1000) ? e * distance : e * T(-1000));
    }
  }

  __device__ math::SoftmaxSums sums() const {
    math::SoftmaxSums sums;
    sums.exps.max = static_cast<double>(max_) * map_.factor;
    sums.exps.sum = sum_;
    sums.weighted_sum = weighted_sum_;
    sums.logit_sum = logit_sum_;
    return sums;
  }

 private:
  /// Takes distances from another maximum.
  __device__ void move_to(T largest) {
    if (sum_ != 0) {
      const auto shift = static_cast<double>(map_.scaled(max_ - largest));
      const double scale = std::exp(shift);
      weighted_sum_ = scale > 0 ? scale * (weighted_sum_ + shift * sum_) : 0;
      sum_ *= scale;
    }
    max_ = largest;
  }

  const Map& map_;
  T max_ = -std::numeric_limits<T>::infinity();
  double sum_ = 0, weighted_sum_ = 0, logit_sum_ = 0;
};

/// The sums of elements begin .. end of a row; thread 0 gets them.
template <class S, class Map>
__device__ math::SoftmaxSums softmax_part(const S* row, std::int64_t begin, std::int64_t end, const Map& map) {
  using T = compute_t<S>;
  constexpr int kPack = RowPacks<S>::kPack;
  ThreadSums<T, Map> sums(map);
  RowPacks<S>(row, begin, end)
      .for_each(
          [&](std::int64_t, const Pack<S>& pack) {
            T logits[kPack];
#pragma unroll
            for (int i = 0; i < kPack; ++i) logits[i] = to_compute(pack.values[i]);
            sums.add(logits);
          },
          [&](std::int64_t, S value) {
            const T logits[1] = {to_compute(value)};
            sums.add(logits);
          });
  return merge_block(sums.sums());
}

/// softmax(z') = e^(z' − L) from capped logits.
template <class T, class Map>
class Softmax {
 public:
  __device__ Softmax(const Map& map, double log_sum_exp) : map_(map), log_sum_(log_sum_exp, map.factor) {}
  __device__ __forceinline__ T operator()(T capped) const { return std::exp(map_.scaled(log_sum_.below(capped))); }

 private:
  const Map& map_;
  math::SplitLogSumExp<T> log_sum_;
};

/// The gradient of upstream·log_prob(target) in a row's logits: −g·softmax(z')·dz'/dz; at the target g·(1 − softmax(z'))·dz'/dz.
template <class T, class Map>
class LogProbGradient {
 public:
  __device__ LogProbGradient(const Map& map, double log_sum_exp, double upstream, std::int64_t target)
      : map_(map), softmax_(map, log_sum_exp), log_sum_exp_(log_sum_exp), upstream_(upstream), target_(target) {}

  __device__ __forceinline__ T operator()(std::int64_t i, T z) const {
    const T capped = map_.capped(z), slope = map_.slope(capped);
    if (i == target_)
      return static_cast<T>(upstream_ * math::own_log_prob_slope(map_.mapped(z), log_sum_exp_) * static_cast<double>(slope));
    return softmax_(capped) * slope * static_cast<T>(-upstream_);
  }

 private:
  const Map& map_;
  Softmax<T, Map> softmax_;
  double log_sum_exp_, upstream_;
  std::int64_t target_;
};

/// to[i] = make(i, from[i]) for a part of a row; `to` may be the row itself.
template <class S, class Make>
__device__ __forceinline__ void write_part(const RowPacks<S>& part, S* to, const Make& make) {
  const bool whole = part.holds_packs_at(to);
  part.for_each(
      [&](std::int64_t i, const Pack<S>& pack) {
        Pack<S> made;
#pragma unroll
        for (int k = 0; k < Pack<S>::size; ++k) made.values[k] = to_storage<S>(make(i + k, to_compute(pack.values[k])));
        store_pack(to + i, made, whole);
      },
      [&](std::int64_t i, S value) { to[i] = to_storage<S>(make(i, to_compute(value))); });
}

}  // namespace dpo::cuda
