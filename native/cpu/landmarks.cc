#include "native/core/landmarks.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "native/core/philox.h"
#include "native/cpu/operation.h"
#include "native/cpu/operations.h"

namespace dpo::cpu {
namespace {

constexpr std::int64_t kRowsPerChunk = 256;

/// Rows with the number that orders them; the smallest numbers are chosen.
struct Ranked {
  double rank;
  std::int32_t row;

  bool operator<(const Ranked& other) const { return rank < other.rank || (rank == other.rank && row < other.row); }
};

/// `count` rows without replacement, each with a chance in proportion to its weight: those of the smallest −ln(u)/weight.
/// Efraimidis & Spirakis (2006), "Weighted random sampling with a reservoir". Rows of weight 0 come last, the first of them
/// first.
template <class Weight>
void sample_weighted(const Philox& random, std::int64_t rows, std::int64_t count, Ranked* ranked, const Weight& weight,
                     std::int32_t* chosen) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const double exponential = -std::log(random.uniform(static_cast<std::uint64_t>(row)));
    const double share = weight(row);
    ranked[row] = {share > 0 ? exponential / share : std::numeric_limits<double>::infinity(), static_cast<std::int32_t>(row)};
  }
  std::partial_sort(ranked, ranked + count, ranked + rows);
  for (std::int64_t i = 0; i < count; ++i) chosen[i] = ranked[i].row;
}

/// k-means++ (Arthur & Vassilvitskii 2007): each next row with a chance in proportion to its squared distance from the rows
/// chosen so far, so a repeated row has none while others are left.
class KmeansPlusPlus {
 public:
  KmeansPlusPlus(dpo_job* job, const dpo_landmarks_args& args)
      : job_(job),
        x_(data<double>(args.x)),
        rows_(args.x.shape[0]),
        depth_(args.x.shape[1]),
        count_(args.indices.shape[0]),
        random_{static_cast<std::uint64_t>(args.seed), DPO_LANDMARKS_KMEANS} {}

  dpo_status choose(std::int32_t* chosen) {
    nearest_ = allocate<double>(job_, rows_);
    free_ = allocate<bool>(job_, rows_);
    if (!nearest_ || !free_) return out_of_memory(job_);
    std::fill_n(nearest_, rows_, std::numeric_limits<double>::infinity());
    std::fill_n(free_, rows_, true);
    auto row = std::min(rows_ - 1, static_cast<std::int64_t>(random_.uniform(0) * static_cast<double>(rows_)));
    for (std::int64_t i = 0; i < count_; ++i) {
      if (i > 0) row = next(random_.uniform(static_cast<std::uint64_t>(i)));
      chosen[i] = static_cast<std::int32_t>(row);
      free_[row] = false;
      if (const dpo_status status = come_closer(row); status != DPO_OK) return status;
    }
    return DPO_OK;
  }

 private:
  dpo_status come_closer(std::int64_t to) {
    return parallel_for(job_, (rows_ + kRowsPerChunk - 1) / kRowsPerChunk, [&](std::int64_t chunk) {
      const std::int64_t end = std::min(rows_, (chunk + 1) * kRowsPerChunk);
      for (std::int64_t row = chunk * kRowsPerChunk; row < end; ++row) nearest_[row] = std::min(nearest_[row], distance(row, to));
    });
  }

  double distance(std::int64_t a, std::int64_t b) const {
    double sum = 0;
    for (std::int64_t i = 0; i < depth_; ++i) {
      const double difference = x_[a * depth_ + i] - x_[b * depth_ + i];
      sum += difference * difference;
    }
    return sum;
  }

  std::int64_t next(double uniform) const {
    double left = uniform * std::accumulate(nearest_, nearest_ + rows_, 0.0);
    std::int64_t last = -1;
    for (std::int64_t row = 0; row < rows_; ++row) {
      if (nearest_[row] <= 0) continue;
      last = row;
      left -= nearest_[row];
      if (left < 0) return row;
    }
    // Rounding has left a little, or all rows that are free equal chosen ones.
    return last >= 0 ? last : std::find(free_, free_ + rows_, true) - free_;
  }

  dpo_job* job_;
  const double* x_;
  std::int64_t rows_, depth_, count_;
  Philox random_;
  double* nearest_ = nullptr;  // squared distance to the nearest chosen row
  bool* free_ = nullptr;
};

dpo_status choose(dpo_job* job, const dpo_landmarks_args& args, std::int32_t* chosen) {
  if (args.method == DPO_LANDMARKS_KMEANS) return KmeansPlusPlus(job, args).choose(chosen);
  const std::int64_t rows = args.x.shape[0];
  auto* ranked = allocate<Ranked>(job, rows);
  if (!ranked) return out_of_memory(job);
  const Philox random{static_cast<std::uint64_t>(args.seed), static_cast<std::uint64_t>(args.method)};
  const double* scores = data<double>(args.scores);
  sample_weighted(
      random, rows, args.indices.shape[0], ranked, [&](std::int64_t row) { return scores ? scores[row] : 1.0; }, chosen);
  return DPO_OK;
}

}  // namespace

dpo_status landmarks(dpo_job* job, const dpo_landmarks_args* args) {
  const std::int64_t count = args->indices.shape[0];
  auto* chosen = allocate<std::int32_t>(job, count);
  if (!chosen) return out_of_memory(job);
  if (const dpo_status status = choose(job, *args, chosen); status != DPO_OK) return status;
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  std::copy_n(chosen, count, data<std::int32_t>(args->indices));
  return DPO_OK;
}

}  // namespace dpo::cpu
