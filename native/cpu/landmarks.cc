#include "native/core/landmarks.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "native/core/landmark_choice.h"
#include "native/cpu/operation.h"
#include "native/cpu/operations.h"

namespace dpo::cpu {
namespace {

class KmeansPlusPlus {
 public:
  KmeansPlusPlus(dpo_job* job, const dpo_landmarks_args& args)
      : job_(job),
        x_(data<double>(args.x)),
        rows_(args.x.shape[0]),
        depth_(args.x.shape[1]),
        count_(args.indices.shape[0]),
        random_(landmark_random(args)) {}

  dpo_status choose(std::int32_t* chosen) {
    nearest_ = allocate<double>(job_, rows_);
    sums_ = allocate<double>(job_, kmeans::blocks(rows_));
    free_ = allocate<bool>(job_, rows_);
    if (!nearest_ || !sums_ || !free_) return out_of_memory(job_);
    std::fill_n(nearest_, rows_, std::numeric_limits<double>::infinity());
    std::fill_n(free_, rows_, true);
    for (std::int64_t i = 0; i < count_; ++i) {
      const std::int64_t row = i == 0 ? kmeans::first_row(random_, rows_) : next(i);
      chosen[i] = static_cast<std::int32_t>(row);
      free_[row] = false;
      if (const dpo_status status = come_closer(row); status != DPO_OK) return status;
    }
    return DPO_OK;
  }

 private:
  dpo_status come_closer(std::int64_t to) {
    return parallel_for(job_, kmeans::blocks(rows_), [&](std::int64_t block) {
      const std::int64_t begin = block * kmeans::kBlockRows, end = std::min(rows_, begin + kmeans::kBlockRows);
      for (std::int64_t row = begin; row < end; ++row) nearest_[row] = std::min(nearest_[row], distance(row, to));
      sums_[block] = sum(nearest_, begin, end);
    });
  }

  double distance(std::int64_t a, std::int64_t b) const {
    const double *from = x_ + a * depth_, *to = x_ + b * depth_;
    return math::lane_sum(0, depth_,
                          [=](double sum, std::int64_t i) { return kmeans::add_squared_difference(sum, from[i], to[i]); });
  }

  static double sum(const double* weights, std::int64_t begin, std::int64_t end) {
    return math::lane_sum(begin, end, [=](double sum, std::int64_t i) { return sum + weights[i]; });
  }

  std::int64_t next(std::int64_t i) const {
    const std::int64_t blocks = kmeans::blocks(rows_);
    double left = kmeans::passed(random_, i, sum(sums_, 0, blocks));
    if (const std::int64_t block = kmeans::pass(sums_, blocks, left); block < blocks) {
      const std::int64_t begin = block * kmeans::kBlockRows, count = std::min(kmeans::kBlockRows, rows_ - begin);
      if (const std::int64_t at = kmeans::pass(nearest_ + begin, count, left); at < count) return begin + at;
    }
    // Rounding has left a little, or all rows that are free equal chosen ones.
    for (std::int64_t row = rows_ - 1; row >= 0; --row) {
      if (nearest_[row] > 0) return row;
    }
    return std::find(free_, free_ + rows_, true) - free_;
  }

  dpo_job* job_;
  const double* x_;
  std::int64_t rows_, depth_, count_;
  Philox random_;
  double* nearest_ = nullptr;  // squared distance to the nearest chosen row
  double* sums_ = nullptr;     // of blocks of them
  bool* free_ = nullptr;
};

dpo_status sample(dpo_job* job, const dpo_landmarks_args& args, std::int32_t* chosen) {
  const std::int64_t rows = args.x.shape[0], count = args.indices.shape[0];
  auto* ranked = allocate<RankedRow>(job, rows);
  if (!ranked) return out_of_memory(job);
  const Philox random = landmark_random(args);
  const double* scores = data<double>(args.scores);
  for (std::int64_t row = 0; row < rows; ++row) ranked[row] = RankedRow::of(random, row, scores ? scores[row] : 1.0);
  std::partial_sort(ranked, ranked + count, ranked + rows);
  for (std::int64_t i = 0; i < count; ++i) chosen[i] = static_cast<std::int32_t>(ranked[i].row);
  return DPO_OK;
}

}  // namespace

dpo_status landmarks(dpo_job* job, const dpo_landmarks_args* args) {
  const std::int64_t count = args->indices.shape[0];
  auto* chosen = allocate<std::int32_t>(job, count);
  if (!chosen) return out_of_memory(job);
  const dpo_status status =
      args->method == DPO_LANDMARKS_KMEANS ? KmeansPlusPlus(job, *args).choose(chosen) : sample(job, *args, chosen);
  if (status != DPO_OK) return status;
  if (const dpo_status begun = host->begin_writes(job); begun != DPO_OK) return begun;
  std::copy_n(chosen, count, data<std::int32_t>(args->indices));
  return DPO_OK;
}

}  // namespace dpo::cpu
