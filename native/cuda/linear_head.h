// logits = hidden·weightᵀ + bias for a block of rows and of the vocabulary at a time, and the products that take a gradient of
// logits back to hidden, weight and bias. Rows with an ignored target are left out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "native/core/linear_token_log_probs.h"
#include "native/cuda/grid.h"
#include "native/cuda/matrix_product.h"
#include "native/cuda/reduce.h"

namespace dpo::cuda {

/// Columns of logits whose sums are merged in order: results depend on it, so it is never cut.
inline constexpr std::int64_t kVocabularyBlock = 4096;

inline std::int64_t vocabulary_blocks(std::int64_t columns) { return (columns + kVocabularyBlock - 1) / kVocabularyBlock; }

/// to[i] = from[rows[i]], of `depth` elements each.
template <class S, class T>
__global__ void gather_rows(const S* from, const std::int64_t* rows, std::int64_t count, std::int64_t depth, S* to, T* wide) {
  for_each_index(count * depth, [=](std::int64_t i) {
    const S value = from[rows[i / depth] * depth + i % depth];
    to[i] = value;
    if (wide) wide[i] = to_compute(value);
  });
}

template <class S>
__global__ void scatter_rows(const compute_t<S>* from, const std::int64_t* rows, std::int64_t count, std::int64_t depth, S* to) {
  for_each_index(count * depth, [=](std::int64_t i) { to[rows[i / depth] * depth + i % depth] = to_storage<S>(from[i]); });
}

template <class S>
__global__ void widen(const S* from, std::int64_t count, compute_t<S>* to) {
  for_each_index(count, [=](std::int64_t i) { to[i] = to_compute(from[i]); });
}

/// logits[i, j] += bias[j].
template <class S>
__global__ void add_bias(compute_t<S>* logits, std::int64_t rows, std::int64_t columns, const S* bias) {
  for_each_index(rows * columns, [=](std::int64_t i) { logits[i] += to_compute(bias[i % columns]); });
}

/// to[j] = or += Σ_i grads[i, j], one thread a column.
template <class T>
__global__ void sum_columns(const T* grads, std::int64_t rows, std::int64_t columns, T* to, bool accumulate) {
  for_each_index(columns, [=](std::int64_t j) {
    double sum = 0;
    for (std::int64_t i = 0; i < rows; ++i) sum += static_cast<double>(grads[i * columns + j]);
    to[j] = static_cast<T>(accumulate ? static_cast<double>(to[j]) + sum : sum);
  });
}

/// The largest magnitude of an array on the device, 0 of none; the call fails because of an element that is not finite. `prefix`
/// goes before the name in messages.
template <class S>
double largest_magnitude(Call& call, const char* prefix, const char* name, const S* values, std::int64_t count);

/// The rows that have a target; all rows where there are no targets.
inline std::vector<std::int64_t> counted_rows(const dpo_tensor& targets, std::int64_t count) {
  std::vector<std::int64_t> rows;
  for (std::int64_t row = 0; row < count; ++row) {
    if (!targets.data || static_cast<const std::int32_t*>(targets.data)[row] != DPO_IGNORED_TARGET) rows.push_back(row);
  }
  return rows;
}

/// How many rows and columns of logits there are at a time.
struct HeadBlocks {
  std::int64_t rows, columns;  // columns: a multiple of kVocabularyBlock
};

/// One model's head on the device.
template <class S>
class Head {
 public:
  using T = compute_t<S>;
  static constexpr bool kNarrow = !std::is_same_v<S, T>;

  Head(Call& call, const dpo_linear_head& head)
      : call_(call),
        depth_(head.hidden.shape[1]),
        vocabulary_(head.weight.shape[0]),
        hidden_(call.input<S>(head.hidden)),
        weight_(call.input<S>(head.weight)),
        bias_(call.input<S>(head.bias)) {}

  std::int64_t depth() const { return depth_; }
  std::int64_t vocabulary() const { return vocabulary_; }

  /// Fails when hidden, weight or bias holds a number that is not finite, or numbers so large that logits could overflow.
  void check_contents(std::int64_t rows, const char* prefix = "") {
    const double hidden = largest_magnitude(call_, prefix, "hidden", hidden_, rows * depth_);
    const double weight = largest_magnitude(call_, prefix, "weight", weight_, vocabulary_ * depth_);
    const double largest =
        hidden * weight * static_cast<double>(depth_) + largest_magnitude(call_, prefix, "bias", bias_, vocabulary_);
    if (!(largest < static_cast<double>(std::numeric_limits<T>::max())))
      call_.fail(DPO_ERR_NONFINITE, "%shidden, %sweight: elements of up to %g and %g may make logits that overflow", prefix,
                 prefix, hidden, weight);
  }

  /// Bytes of working memory beside the logits themselves.
  std::int64_t row_bytes() const {
    constexpr std::int64_t kElement = sizeof(S) + (1 + (kNarrow ? 1 : 0)) * sizeof(T);
    return depth_ * kElement;
  }
  std::int64_t fixed_bytes() const { return kNarrow ? kVocabularyBlock * depth_ * static_cast<std::int64_t>(sizeof(T)) : 0; }

  /// Blocks of `row_bytes` beside each row's logits that keep to a limit; at least 16 rows of one block of words.
  HeadBlocks blocks_within(std::int64_t rows, std::int64_t memory_limit) const {
    constexpr std::int64_t kMostRows = 4096, kLeastRows = 16, kBlockBytes = kVocabularyBlock * sizeof(T);
    const std::int64_t memory = memory_limit - fixed_bytes();
    const std::int64_t at_once =
        std::clamp(memory / (kBlockBytes + row_bytes()), std::min(rows, kLeastRows), std::min(rows, kMostRows));
    const std::int64_t blocks = (memory - at_once * row_bytes()) / (at_once * kBlockBytes);
    return {at_once, std::clamp<std::int64_t>(blocks, 1, vocabulary_blocks(vocabulary_)) * kVocabularyBlock};
  }

  void allocate(const HeadBlocks& blocks, bool gradients) {
    gathered_ = call_.allocate<S>(blocks.rows * depth_);
    logits_ = call_.allocate<T>(blocks.rows * std::min(blocks.columns, vocabulary_));
    if (!gradients) return;
    grad_hidden_ = call_.allocate<T>(blocks.rows * depth_);
    // Gradients of logits have more digits than 16-bit weights; products take both in one type.
    if (kNarrow) wide_rows_ = call_.allocate<T>(blocks.rows * depth_);
    if (kNarrow) wide_weight_ = call_.allocate<T>(kVocabularyBlock * depth_);
  }

  /// Takes these rows of hidden; their numbers are on the device.
  void load_rows(const std::int64_t* rows, std::int64_t count) {
    rows_ = rows;
    count_ = count;
    call_.launch(gather_rows<S, T>, grid_of(count * depth_, kElementsEach), hidden_, rows, count, depth_, gathered_, wide_rows_);
  }

  /// The logits [rows, columns] of words begin .. begin + columns.
  T* logits(std::int64_t begin, std::int64_t columns) {
    multiply<S>(call_, {count_, columns, depth_}, {gathered_, depth_}, {weight_ + begin * depth_, depth_, true}, logits_, columns,
                Accumulate::no);
    if (bias_) call_.launch(add_bias<S>, grid_of(count_ * columns, kElementsEach), logits_, count_, columns, bias_ + begin);
    return logits_;
  }

  /// Adds what the gradient of these logits, in their place, gives hidden, weight and bias. `first`: of all rows, so that weight
  /// and bias hold nothing yet.
  void pull_back(std::int64_t begin, std::int64_t columns, bool first, T* grad_weight, T* grad_bias) {
    const std::int64_t step = kNarrow ? kVocabularyBlock : columns;
    for (std::int64_t j = 0; j < columns; j += step) {
      const std::int64_t size = std::min(step, columns - j), word = begin + j;
      multiply<T>(call_, {count_, depth_, size}, {logits_ + j, columns}, {wide_weight(word, size), depth_}, grad_hidden_, depth_,
                  word > 0 ? Accumulate::yes : Accumulate::no);
      multiply<T>(call_, {size, depth_, count_}, {logits_ + j, columns, true}, {wide_rows(), depth_}, grad_weight + word * depth_,
                  depth_, first ? Accumulate::no : Accumulate::yes);
    }
    if (grad_bias) call_.launch(sum_columns<T>, grid_of(columns), logits_, count_, columns, grad_bias + begin, !first);
  }

  void write_hidden_gradient(S* to) {
    call_.launch(scatter_rows<S>, grid_of(count_ * depth_, kElementsEach), grad_hidden_, rows_, count_, depth_, to);
  }

 private:
  const T* wide_rows() const {
    if constexpr (kNarrow) {
      return wide_rows_;
    } else {
      return gathered_;
    }
  }

  const T* wide_weight(std::int64_t begin, std::int64_t columns) {
    const S* from = weight_ + begin * depth_;
    if constexpr (kNarrow) {
      call_.launch(widen<S>, grid_of(columns * depth_, kElementsEach), from, columns * depth_, wide_weight_);
      return wide_weight_;
    } else {
      return from;
    }
  }

  Call& call_;
  std::int64_t depth_, vocabulary_;
  const S *hidden_, *weight_, *bias_;
  S* gathered_ = nullptr;
  T *logits_ = nullptr, *grad_hidden_ = nullptr, *wide_rows_ = nullptr, *wide_weight_ = nullptr;
  const std::int64_t* rows_ = nullptr;
  std::int64_t count_ = 0;
};

/// Results of a head's gradient on the device.
template <class S>
struct HeadGradients {
  S* hidden;
  compute_t<S>*weight, *bias;

  /// hidden is 0, for the rows that are ignored; weight and bias too when no row is counted.
  static HeadGradients of(Call& call, const dpo_linear_head_gradients& grads, bool counts_rows) {
    const HeadGradients result{call.output<S>(grads.hidden), call.output<compute_t<S>>(grads.weight),
                               call.output<compute_t<S>>(grads.bias)};
    call.fill(result.hidden, 0, bytes_of(grads.hidden));
    if (counts_rows) return result;
    call.fill(result.weight, 0, bytes_of(grads.weight));
    if (result.bias) call.fill(result.bias, 0, bytes_of(grads.bias));
    return result;
  }
};

}  // namespace dpo::cuda
