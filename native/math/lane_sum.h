// Sums of which every backend makes the same bits: term i goes to the partial sum i modulo 32, and those are merged in pairs 16,
// 8, 4, 2 and 1 apart, as the threads of a warp do.
#pragma once

#include <cstdint>

#include "native/math/host_device.h"

namespace dpo::math {

inline constexpr int kSumLanes = 32;

/// A lane's partial sum of the terms begin .. end − 1; add(sum, i) gives sum with the term i.
template <class Add>
DPO_HD double lane_part(int lane, std::int64_t begin, std::int64_t end, const Add& add) {
  double sum = 0;
  for (std::int64_t i = begin + lane; i < end; i += kSumLanes) sum = add(sum, i);
  return sum;
}

/// The whole sum, by one thread.
template <class Add>
double lane_sum(std::int64_t begin, std::int64_t end, const Add& add) {
  double sums[kSumLanes] = {};
  std::int64_t i = begin;
  for (; i + kSumLanes <= end; i += kSumLanes) {
    for (int lane = 0; lane < kSumLanes; ++lane) sums[lane] = add(sums[lane], i + lane);
  }
  for (int lane = 0; i + lane < end; ++lane) sums[lane] = add(sums[lane], i + lane);
  for (int apart = kSumLanes / 2; apart > 0; apart /= 2) {
    for (int lane = 0; lane < apart; ++lane) sums[lane] += sums[lane + apart];
  }
  return sums[0];
}

}  // namespace dpo::math
