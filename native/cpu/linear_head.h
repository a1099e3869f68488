// logits = hidden·weightᵀ + bias for a block of rows at a time, and the products that take a gradient of logits back to hidden,
// weight and bias. Only blocks of logits ever exist. Rows with an ignored target are left out.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include "native/core/linear_token_log_probs.h"
#include "native/cpu/gemm.h"
#include "native/cpu/operation.h"
#include "native/cpu/scratch.h"
#include "native/cpu/softmax_row.h"

namespace dpo::cpu {

/// Columns of logits that one chunk computes. Softmax sums of these blocks are merged in order, so the results depend on it.
inline constexpr std::int64_t kVocabularyBlock = 768;

inline std::int64_t blocks_of(std::int64_t extent, std::int64_t block) { return (extent + block - 1) / block; }

/// Up to `capacity` rows of hidden states, gathered and packed, with their gradients.
template <class S>
class HeadBlock {
 public:
  using T = compute_t<S>;

  HeadBlock(dpo_job* job, const dpo_linear_head& head)
      : job_(job),
        hidden_(data<S>(head.hidden)),
        weight_(data<S>(head.weight)),
        bias_(data<S>(head.bias)),
        depth_(head.hidden.shape[1]),
        vocabulary_(head.weight.shape[0]),
        workspace_(job, static_cast<std::int64_t>(gemm_workspace<T>)) {}

  std::int64_t depth() const { return depth_; }
  std::int64_t vocabulary() const { return vocabulary_; }
  std::int64_t vocabulary_blocks() const { return blocks_of(vocabulary_, kVocabularyBlock); }
  Range vocabulary_block(std::int64_t block) const {
    return {block * kVocabularyBlock, std::min(vocabulary_, (block + 1) * kVocabularyBlock)};
  }

  /// Bytes that a block of `rows` takes for values alone, and with gradients, beside the logits.
  static std::int64_t value_bytes(std::int64_t rows, std::int64_t depth) {
    return 2 * static_cast<std::int64_t>(PackedLhs<T>::size(rows, depth) * sizeof(T));
  }
  static std::int64_t gradient_bytes(std::int64_t rows, std::int64_t depth) {
    return value_bytes(rows, depth) +
           static_cast<std::int64_t>((PackedRhs<T>::size(depth, rows) + static_cast<std::size_t>(rows * depth)) * sizeof(T));
  }

  bool allocate_values(std::int64_t capacity) {
    gathered_ = allocate<S>(job_, capacity * depth_);
    packed_ = allocate<T>(job_, static_cast<std::int64_t>(PackedLhs<T>::size(capacity, depth_)));
    return gathered_ && packed_;
  }

  bool allocate_gradients(std::int64_t capacity) {
    packed_for_weight_ = allocate<T>(job_, static_cast<std::int64_t>(PackedRhs<T>::size(depth_, capacity)));
    grad_hidden_ = allocate<T>(job_, capacity * depth_);
    return allocate_values(capacity) && packed_for_weight_ && grad_hidden_;
  }

  /// Takes these rows of hidden as the block's rows.
  dpo_status load_rows(std::span<const std::int64_t> rows) {
    rows_ = rows;
    const std::int64_t per_chunk = 8 * GemmTile<T>::rows;
    return parallel_for(job_, blocks_of(size(), per_chunk), [&](std::int64_t chunk) {
      const Range part{chunk * per_chunk, std::min(size(), (chunk + 1) * per_chunk)};
      for (std::int64_t r = part.begin; r < part.end; ++r)
        std::copy_n(hidden_ + rows_[r] * depth_, depth_, gathered_ + r * depth_);
      lhs().pack(MatrixView<S>{gathered_, depth_, 1}, part);
    });
  }

  /// The same, ready for pull-backs, with the gradient of hidden at 0.
  dpo_status load_rows_for_gradients(std::span<const std::int64_t> rows) {
    if (const dpo_status status = load_rows(rows); status != DPO_OK) return status;
    std::fill_n(grad_hidden_, size() * depth_, T(0));
    const std::int64_t per_chunk = 4 * GemmTile<T>::cols;
    return parallel_for(job_, blocks_of(depth_, per_chunk), [&](std::int64_t chunk) {
      rhs().pack(MatrixView<S>{gathered_, depth_, 1}, Range{chunk * per_chunk, std::min(depth_, (chunk + 1) * per_chunk)});
    });
  }

  std::int64_t size() const { return static_cast<std::int64_t>(rows_.size()); }
  std::int64_t row(std::int64_t i) const { return rows_[static_cast<std::size_t>(i)]; }

  /// Logits of all rows for a range of the vocabulary; to[i * stride + j] for row i and column columns.begin + j. For use inside
  /// a chunk.
  void logits(Range columns, T* to, std::int64_t stride, T* workspace) const {
    const MatrixView<S> weight{weight_ + columns.begin * depth_, 1, depth_};
    gemm(lhs(), Range{0, size()}, weight, columns.size(), to, stride, Update::overwrite,
         std::span<T>(workspace, gemm_workspace<T>));
    if (!bias_) return;
    for (std::int64_t i = 0; i < size(); ++i) add_bias(columns, to + i * stride);
  }

  /// grad_weight and grad_bias = or += grad_logitsᵀ·hidden, grad_hidden += grad_logits·weight, for a range of the vocabulary.
  /// make_tile(part, tile, workspace) fills tile[i * stride + j] with the gradient of row i and column part.begin + j, for one
  /// vocabulary block at a time, so that the product with hidden finds it in the cache; `grad_logits` keeps all of it for the
  /// product with weight.
  template <class MakeTile>
  dpo_status pull_back(Range columns, T* grad_logits, std::int64_t stride, const dpo_linear_head_gradients& grads, Update update,
                       const MakeTile& make_tile) {
    const dpo_status status = parallel_for(job_, blocks_of(columns.size(), kVocabularyBlock), [&](std::int64_t chunk) {
      const std::int64_t begin = columns.begin + chunk * kVocabularyBlock;
      const Range part{begin, std::min(columns.end, begin + kVocabularyBlock)};
      T* tile = grad_logits + (part.begin - columns.begin);
      workspace_.with_buffer([&](T* workspace) {
        make_tile(part, tile, workspace);
        pull_back_weight(part, tile, stride, grads, update, workspace);
      });
    });
    return finished(status) == DPO_OK ? pull_back_hidden(columns, grad_logits, stride) : finished(status);
  }

  /// Writes the gradient of the block's rows to their places in the gradient of hidden.
  void write_hidden_gradient(const dpo_tensor& grad_hidden) const {
    for (std::int64_t i = 0; i < size(); ++i) {
      S* to = data<S>(grad_hidden) + row(i) * depth_;
      const T* from = grad_hidden_ + i * depth_;
      for (std::int64_t k = 0; k < depth_; ++k) to[k] = to_storage<S>(from[k]);
    }
  }

  Scratch<T>& workspace() { return workspace_; }

 private:
  // One chunk of grad_hidden. A chunk packs its own operands, which pays from a hundred rows on; a block of few rows is still cut
  // in two.
  static constexpr std::int64_t kHiddenRows = 256, kHiddenColumns = 768;

  PackedLhs<T> lhs() const { return {std::span<T>(packed_, PackedLhs<T>::size(size(), depth_)), size(), depth_}; }
  PackedRhs<T> rhs() const { return {std::span<T>(packed_for_weight_, PackedRhs<T>::size(depth_, size())), depth_, size()}; }

  void add_bias(Range columns, T* row) const {
    const S* bias = bias_ + columns.begin;
    for (std::int64_t j = 0; j < columns.size(); ++j) row[j] += to_compute(bias[j]);
  }

  dpo_status pull_back_hidden(Range columns, const T* grad_logits, std::int64_t stride) {
    const std::int64_t across = blocks_of(depth_, kHiddenColumns);
    const std::int64_t rows = std::min(kHiddenRows, blocks_of(blocks_of(size(), 2), GemmTile<T>::rows) * GemmTile<T>::rows);
    const dpo_status status = parallel_for(job_, blocks_of(size(), rows) * across, [&](std::int64_t chunk) {
      const std::int64_t i = chunk / across * rows, k = chunk % across * kHiddenColumns;
      const MatrixView<T> left{grad_logits + i * stride, stride, 1};
      const MatrixView<S> right{weight_ + columns.begin * depth_ + k, depth_, 1};
      workspace_.with_buffer([&](T* buffer) {
        gemm(left, right, std::min(rows, size() - i), std::min(kHiddenColumns, depth_ - k), columns.size(),
             grad_hidden_ + i * depth_ + k, depth_, Update::accumulate, std::span<T>(buffer, gemm_workspace<T>));
      });
    });
    return finished(status);
  }

  void pull_back_weight(Range part, const T* tile, std::int64_t stride, const dpo_linear_head_gradients& grads, Update update,
                        T* workspace) const {
    const MatrixView<T> left{tile, 1, stride};
    gemm(left, part.size(), rhs(), Range{0, depth_}, data<T>(grads.weight) + part.begin * depth_, depth_, update,
         std::span<T>(workspace, gemm_workspace<T>));
    if (bias_) sum_columns(part.size(), tile, stride, data<T>(grads.bias) + part.begin, update);
  }

  void sum_columns(std::int64_t count, const T* tile, std::int64_t stride, T* sums, Update update) const {
    if (update == Update::overwrite) std::fill_n(sums, count, T(0));
    for (std::int64_t i = 0; i < size(); ++i) {
      const T* row = tile + i * stride;
      for (std::int64_t j = 0; j < count; ++j) sums[j] += row[j];
    }
  }

  dpo_status finished(dpo_status status) { return status == DPO_OK && workspace_.exhausted() ? out_of_memory(job_) : status; }

  dpo_job* job_;
  const S* hidden_;
  const S* weight_;
  const S* bias_;
  std::int64_t depth_, vocabulary_;
  std::span<const std::int64_t> rows_;
  S* gathered_ = nullptr;
  T* packed_ = nullptr;
  T* packed_for_weight_ = nullptr;
  T* grad_hidden_ = nullptr;
  Scratch<T> workspace_;
};

/// Numbers of the rows that are not ignored, in order.
template <class Ignored>
std::span<const std::int64_t> rows_except(dpo_job* job, std::int64_t row_count, const Ignored& ignored) {
  auto* rows = allocate<std::int64_t>(job, row_count);
  if (!rows) return {};
  std::int64_t count = 0;
  for (std::int64_t row = 0; row < row_count; ++row) {
    if (!ignored(row)) rows[count++] = row;
  }
  return {rows, static_cast<std::size_t>(count)};
}

/// Numbers of the rows with a target, in order.
inline std::span<const std::int64_t> counted_rows(dpo_job* job, const dpo_tensor& targets) {
  const std::int32_t* target = data<std::int32_t>(targets);
  return rows_except(job, targets.shape[0], [&](std::int64_t row) { return target[row] == DPO_IGNORED_TARGET; });
}

/// The largest block of rows, by halving down to `least`, whose `bytes(rows)` stay within the limit.
template <class Bytes>
std::int64_t rows_within(std::int64_t rows, std::int64_t most, std::int64_t least, std::int64_t limit, const Bytes& bytes) {
  std::int64_t capacity = std::min(rows, most);
  while (capacity > least && bytes(capacity) > limit) capacity /= 2;
  return capacity;
}

/// Fails when hidden, weight or bias holds a number that is not finite, or numbers so large that logits could overflow.
/// `prefix` goes before their names in messages; no logit is larger than `bound`, if it is wanted.
dpo_status check_head_contents(dpo_job* job, const dpo_linear_head& head, const char* prefix = "", double* bound = nullptr);

/// Sets the whole gradient to zero: what it is when no row has a target.
void clear_gradients(const dpo_linear_head_gradients& grads);

/// Sets the gradient of the rows without a target to zero. Without targets all rows count.
void clear_ignored_rows(const dpo_tensor& targets, const dpo_tensor& grad_hidden);

}  // namespace dpo::cpu
