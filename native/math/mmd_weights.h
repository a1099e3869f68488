// The squared maximum mean discrepancy (Gretton et al. 2012) as weighted sums of three matrices.
#pragma once

#include <cstdint>

namespace dpo::math {

/// The weight of every pair of one of the three matrices.
struct PairWeight {
  double weight;
  bool skips_self;  // pairs of a row with itself do not count
};

/// Of the rows of one sample among themselves.
inline PairWeight within_sample(std::int64_t count, bool unbiased) {
  const auto n = static_cast<double>(count);
  return unbiased ? PairWeight{1 / (n * (n - 1)), true} : PairWeight{1 / (n * n), false};
}

/// Of the rows of one sample against those of the other.
inline PairWeight between_samples(std::int64_t n, std::int64_t m) {
  return {-2 / (static_cast<double>(n) * static_cast<double>(m)), false};
}

}  // namespace dpo::math
