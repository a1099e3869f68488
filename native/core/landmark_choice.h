// How rows are chosen as landmarks, by chance: the same rows for the same seed on every backend, so that all sums that a choice
// hangs on are made in one order, of numbers that are rounded in one way. Where it is compiled for a host, products must not be
// fused with sums (-ffp-contract=off).
#pragma once

#include <limits>

#include "native/core/landmarks.h"
#include "native/core/philox.h"
#include "native/math/lane_sum.h"

namespace dpo {

inline Philox landmark_random(const dpo_landmarks_args& args) {
  return {static_cast<std::uint64_t>(args.seed), static_cast<std::uint64_t>(args.method)};
}

/// A row with the number that orders it; of a sample without replacement, in which each row has a chance in proportion to its
/// weight, those of the smallest −ln(u)/weight. Efraimidis & Spirakis (2006), "Weighted random sampling with a reservoir". Rows
/// of weight 0 come last, the first of them first.
struct RankedRow {
  double rank;
  std::int64_t row;

  DPO_HD static RankedRow of(const Philox& random, std::int64_t row, double weight) {
    const double exponential = -math::natural_log(random.uniform(static_cast<std::uint64_t>(row)));
    return {weight > 0 ? exponential / weight : std::numeric_limits<double>::infinity(), row};
  }
  DPO_HD bool operator<(const RankedRow& other) const { return rank < other.rank || (rank == other.rank && row < other.row); }
};

/// k-means++ (Arthur & Vassilvitskii 2007): each next row with a chance in proportion to its squared distance from the rows
/// chosen so far, its weight, so that a repeated row has none while others are left. Weights are summed by blocks of rows.
namespace kmeans {

inline constexpr std::int64_t kBlockRows = 256;

DPO_HD inline std::int64_t blocks(std::int64_t rows) { return (rows + kBlockRows - 1) / kBlockRows; }

DPO_HD inline std::int64_t first_row(const Philox& random, std::int64_t rows) {
  const auto row = static_cast<std::int64_t>(random.uniform(0) * static_cast<double>(rows));
  return row < rows ? row : rows - 1;
}

/// sum + (a − b)².
DPO_HD inline double add_squared_difference(double sum, double a, double b) {
  const double difference = a - b;
#ifdef __CUDA_ARCH__
  return __dadd_rn(sum, __dmul_rn(difference, difference));
#else
  return sum + difference * difference;
#endif
}

/// How much of the total is passed before the row that is chosen at the place `i`.
DPO_HD inline double passed(const Philox& random, std::int64_t i, double total) {
  return std::fma(random.uniform(static_cast<std::uint64_t>(i)), total, 0.0);
}

/// The first of `count` weights, or sums of weights, that is more than what is left to pass, or `count`.
DPO_HD inline std::int64_t pass(const double* weights, std::int64_t count, double& left) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (left < weights[i]) return i;
    left -= weights[i];
  }
  return count;
}

}  // namespace kmeans

}  // namespace dpo
