// What every operation on Gram matrices starts from: the plan, both sides' rows mapped, and the tiles of their pairs.
#pragma once

#include <optional>

#include "native/cpu/gram_tile.h"

namespace dpo::cpu {

/// Tiles are smaller where few large ones would leave threads without work.
inline std::int64_t tile_side(std::int64_t rows, std::int64_t cols) {
  return rows * cols >= 16 * kGramTile * kGramTile ? kGramTile : kSmallGramTile;
}

/// Tiles of a matrix in rows; of a symmetric one those on and above the diagonal.
class TileGrid {
 public:
  TileGrid(std::int64_t rows, std::int64_t cols, bool symmetric)
      : rows_(rows),
        cols_(cols),
        side_(tile_side(rows, cols)),
        across_((cols + side_ - 1) / side_),
        down_((rows + side_ - 1) / side_),
        symmetric_(symmetric) {}

  std::int64_t side() const { return side_; }
  std::int64_t count() const { return symmetric_ ? down_ * (down_ + 1) / 2 : down_ * across_; }
  TilePlace place(std::int64_t index) const {
    std::int64_t i = index / across_, j = index % across_;
    if (symmetric_) {
      i = 0;
      for (j = index; j >= across_ - i; ++i) j -= across_ - i;
      j += i;
    }
    return {part(i, rows_), part(j, cols_)};
  }

 private:
  Range part(std::int64_t index, std::int64_t extent) const { return {index * side_, std::min(extent, (index + 1) * side_)}; }

  std::int64_t rows_, cols_, side_, across_, down_;
  bool symmetric_;
};

/// Copies a tile above the diagonal to its place below.
template <class T>
void mirror(T* matrix, std::int64_t stride, TilePlace at) {
  if (at.rows.begin == at.cols.begin) return;
  constexpr std::int64_t kSide = 16;
  for (std::int64_t i0 = at.rows.begin; i0 < at.rows.end; i0 += kSide) {
    const std::int64_t end = std::min(i0 + kSide, at.rows.end);
    for (std::int64_t j = at.cols.begin; j < at.cols.end; ++j) {
      for (std::int64_t i = i0; i < end; ++i) matrix[j * stride + i] = matrix[i * stride + j];
    }
  }
}

template <class S>
class GramCall {
 public:
  using T = compute_t<S>;

  GramCall(dpo_job* job, const dpo_gram_rows& of)
      : job_(job), of_(of), workspace_(job, kGramTile * kGramTile) {}

  /// Checks and maps the rows.
  dpo_status prepare(bool gradient) {
    if (!plan_.prepare(job_, of_)) return out_of_memory(job_);
    x_.emplace(job_, plan_, "x", of_.x);
    if (const dpo_status status = x_->measure(); status != DPO_OK) return status;
    if (present(of_.y)) {
      y_.emplace(job_, plan_, "y", of_.y);
      if (const dpo_status status = y_->measure(); status != DPO_OK) return status;
    }
    double* mean = nullptr;
    if (plan_.centred) {
      mean = rows_mean();
      if (!mean) return out_of_memory(job_);
    }
    if (const dpo_status status = x_->map(mean, {true, !y_, gradient}); status != DPO_OK) return status;
    return y_ ? y_->map(mean, {false, true, gradient}) : DPO_OK;
  }

  const GramPlan& plan() const { return plan_; }
  GramPairs<T> pairs() const { return {&plan_, &x_->mapped(), y_ ? &y_->mapped() : &x_->mapped(), !y_}; }

  /// Calls body(place, buffer of one tile, its stride) for every tile, of the same rows for those on and above the diagonal.
  template <class Body>
  dpo_status for_each_tile(const GramPairs<T>& pairs, const Body& body) {
    const TileGrid grid(pairs.rows(), pairs.cols(), pairs.same);
    const dpo_status status = parallel_for(job_, grid.count(), [&](std::int64_t chunk) {
      workspace_.with_buffer([&](T* buffer) { body(grid.place(chunk), buffer, grid.side()); });
    });
    return status == DPO_OK && workspace_.exhausted() ? out_of_memory(job_) : status;
  }

 private:
  double* rows_mean() {
    const std::int64_t stride = (of_.x.shape[1] + 7) / 8 * 8;
    auto* mean = allocate<double>(job_, stride);
    if (!mean) return nullptr;
    std::fill_n(mean, stride, 0.0);
    x_->add_sums(mean);
    if (y_) y_->add_sums(mean);
    const double count = static_cast<double>(x_->count() + (y_ ? y_->count() : 0));
    for (std::int64_t i = 0; i < stride; ++i) mean[i] /= count;
    return mean;
  }

  dpo_job* job_;
  const dpo_gram_rows& of_;
  GramPlan plan_;
  std::optional<GramRows<S>> x_, y_;
  Scratch<T> workspace_;
};

}  // namespace dpo::cpu
