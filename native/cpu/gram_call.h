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

/// Fails because of the first element of an f32 or f64 tensor that is not finite.
inline dpo_status check_finite(dpo_job* job, const char* name, const dpo_tensor& tensor) {
  constexpr std::int64_t kChunk = std::int64_t{1} << 18;
  std::int64_t count = 1;
  for (std::int32_t axis = 0; axis < tensor.rank; ++axis) count *= tensor.shape[axis];
  const std::int64_t chunks = (count + kChunk - 1) / kChunk;
  auto* bad = allocate<std::int64_t>(job, chunks);
  if (!bad) return out_of_memory(job);
  const dpo_status status = dispatch_storage(tensor.dtype, [&]<class U>() {
    const U* values = data<U>(tensor);
    return parallel_for(job, chunks, [&](std::int64_t chunk) {
      const std::int64_t begin = chunk * kChunk, end = std::min(count, begin + kChunk);
      using T = compute_t<U>;
      Vec<T> poison{};  // stays 0 while every element is finite
      std::int64_t i = begin;
      for (; i + lanes<T> <= end; i += lanes<T>) poison += load(values + i) * T(0);
      if (i < end) poison += load_partial(values + i, static_cast<int>(end - i), T(0)) * T(0);
      const bool finite = horizontal_sum(poison) == 0;
      bad[chunk] = -1;
      for (i = begin; !finite && i < end && bad[chunk] < 0; ++i) {
        if (!std::isfinite(to_compute(values[i]))) bad[chunk] = i;
      }
    });
  });
  if (status != DPO_OK) return status;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    if (bad[chunk] < 0) continue;
    const auto index = static_cast<long long>(bad[chunk]);
    return fail(job, DPO_ERR_NONFINITE, index, "%s: element %lld is not finite", name, index);
  }
  return DPO_OK;
}

template <class S>
class GramCall {
 public:
  using T = compute_t<S>;

  GramCall(dpo_job* job, const dpo_gram_rows& of) : job_(job), of_(of), workspace_(job, 2 * kGramTile * kGramTile) {}

  /// Checks and maps the rows. Without y, x serves as both. gram_at_hand: products are not needed where distances follow from K.
  dpo_status prepare(RowUses of_x, RowUses of_y, bool gram_at_hand = false) {
    if (!plan_.prepare(job_, of_)) return out_of_memory(job_);
    if (!present(of_.y)) of_x = {true, true, of_x.gradient};
    distances_known_ = gram_at_hand && plan_.distances_from_values();
    if (distances_known_) of_x.left = of_x.right = of_y.left = of_y.right = false;
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
    if (const dpo_status status = x_->map(mean, of_x); status != DPO_OK || !y_) return status;
    return y_->map(mean, of_y);
  }

  /// Whether distances are to be taken from the matrix at hand.
  bool distances_known() const { return distances_known_; }

  const GramPlan& plan() const { return plan_; }
  GramPairs<T> pairs_of_x() const { return {&plan_, &x_->mapped(), &x_->mapped(), true}; }
  GramPairs<T> pairs_of_y() const { return {&plan_, &y_->mapped(), &y_->mapped(), true}; }
  /// y against x.
  GramPairs<T> transposed_pairs() const { return y_ ? GramPairs<T>{&plan_, &y_->mapped(), &x_->mapped(), false} : pairs_of_x(); }
  GramPairs<T> pairs() const { return {&plan_, &x_->mapped(), y_ ? &y_->mapped() : &x_->mapped(), !y_}; }

  /// Room for the sums of parameter gradients, at 0; or null.
  double* zero_sums() const {
    const std::int64_t size = plan_.members.places().size;
    auto* sums = allocate<double>(job_, size);
    if (sums) std::fill_n(sums, size, 0.0);
    return sums;
  }

  /// Takes the gradients of mapped rows back and writes everything.
  dpo_status write_gradients(const dpo_gram_gradients& grads, double* sums) {
    if (const dpo_status status = host->begin_writes(job_); status != DPO_OK) return status;
    if (const dpo_status status = x_->pull_back(grads.x, sums); status != DPO_OK) return status;
    if (y_) {
      if (const dpo_status status = y_->pull_back(grads.y, sums); status != DPO_OK) return status;
    }
    plan_.members.write_gradients(sums, 0, grads.kernel);
    return DPO_OK;
  }

  /// Calls body(index, place, buffer of two tiles, their stride) for every tile, of the same rows for those on and above the
  /// diagonal.
  template <class Body>
  dpo_status for_each_tile(const GramPairs<T>& pairs, const Body& body) {
    const TileGrid grid(pairs.rows(), pairs.cols(), pairs.same);
    const dpo_status status = parallel_for(job_, grid.count(), [&](std::int64_t chunk) {
      workspace_.with_buffer([&](T* buffer) { body(chunk, grid.place(chunk), buffer, grid.side()); });
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
  bool distances_known_ = false;
  std::optional<GramRows<S>> x_, y_;
  Scratch<T> workspace_;
};

}  // namespace dpo::cpu
