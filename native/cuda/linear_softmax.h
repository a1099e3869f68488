// Softmax of the logits of a head's rows, a block of rows and words at a time: values of their targets, and the pull-back.
#pragma once

#include "native/cuda/linear_head.h"
#include "native/cuda/logit_map.h"
#include "native/cuda/scalars.h"
#include "native/cuda/softmax_part.h"
#include "native/cuda/token_values.h"

namespace dpo::cuda {

/// A block of logits of counted rows.
template <class T>
struct LogitBlock {
  T* logits;
  const std::int64_t* rows;  // their numbers in the call
  const std::int32_t* targets;
  std::int64_t count, begin, columns;

  __device__ T* row(std::int64_t i) const { return logits + i * columns; }
  __device__ std::int64_t target(std::int64_t i) const { return targets[rows[i]] - begin; }
  __device__ bool has_target(std::int64_t i) const { return target(i) >= 0 && target(i) < columns; }
  __device__ std::int64_t part_begin(std::int64_t part) const { return part * kVocabularyBlock; }
  __device__ std::int64_t part_end(std::int64_t part) const {
    return part_begin(part + 1) < columns ? part_begin(part + 1) : columns;
  }

  /// One block a part of a row.
  Grid grid(std::int64_t vocabulary, std::size_t element) const {
    const unsigned threads = row_threads(vocabulary);
    return {{static_cast<unsigned>(count), static_cast<unsigned>(vocabulary_blocks(columns)), 1},
            threads,
            threads / kWarpSize * element};
  }
};

/// sums[i, first_part + part], one block each; and z' of the targets that lie in the block of logits.
template <class T, class Map>
__global__ __launch_bounds__(kMostRowThreads) void sum_logits(LogitBlock<T> block, Map map, std::int64_t all_parts,
                                                              math::SoftmaxSums* sums, double* target_logits) {
  const std::int64_t i = blockIdx.x, part = blockIdx.y;
  const math::SoftmaxSums sum =
      softmax_part(static_cast<const T*>(block.row(i)), block.part_begin(part), block.part_end(part), map);
  if (threadIdx.x != 0) return;
  sums[i * all_parts + block.begin / kVocabularyBlock + part] = sum;
  if (part == 0 && block.has_target(i)) target_logits[i] = map.mapped(block.row(i)[block.target(i)]);
}

template <class R>
__global__ void finish_rows(const std::int64_t* rows, std::int64_t count, std::int64_t parts, std::int64_t columns,
                            const math::SoftmaxSums* sums, const double* target_logits, TokenValues<R> values) {
  for_each_index(count, [&](std::int64_t i) {
    math::SoftmaxSums sum = sums[i * parts];
    for (std::int64_t part = 1; part < parts; ++part) sum.merge(sums[i * parts + part]);
    values.write(rows[i], sum, target_logits[i], columns);
  });
}

template <class R>
__global__ void clear_rows(std::int64_t count, TokenValues<R> values) {
  for_each_index(count, [&](std::int64_t row) { values.clear(row); });
}

/// The logits become the gradient of upstream·log_prob(target), in place.
template <class T, class Map>
__global__ __launch_bounds__(kMostRowThreads) void pull_back_logits(LogitBlock<T> block, Map map, Scalars log_sum_exp,
                                                                    Scalars upstream) {
  const std::int64_t i = blockIdx.x, row = block.rows[i];
  const LogProbGradient<T, Map> gradient(map, log_sum_exp.at(row), upstream.at(row), block.target(i));
  T* logits = block.row(i);
  write_part(RowPacks<T>(logits, block.part_begin(blockIdx.y), block.part_end(blockIdx.y)), logits,
             [&](std::int64_t j, T z) { return gradient(j, z); });
}

template <class S>
class HeadSoftmax {
 public:
  using T = compute_t<S>;

  HeadSoftmax(Call& call, const dpo_linear_head& head, const dpo_tensor& targets, const dpo_logit_options& options)
      : call_(call), head_(call, head), options_(options) {
    head_.check_contents(targets.shape[0]);
    block_.targets = call.input<std::int32_t>(targets);
  }

  const Head<S>& head() const { return head_; }
  /// Bytes of working memory that a row takes when all its logits are held.
  std::int64_t whole_row_bytes() const {
    return head_.row_bytes() + head_.vocabulary() * static_cast<std::int64_t>(sizeof(T)) + sums_bytes();
  }

  void allocate(const HeadBlocks& blocks, bool gradients) {
    blocks_ = blocks;
    head_.allocate(blocks, gradients);
    sums_ = call_.allocate<math::SoftmaxSums>(blocks.rows * vocabulary_blocks(head_.vocabulary()));
    target_logits_ = call_.allocate<double>(blocks.rows);
  }

  /// Calls body(first) for blocks of rows, one after the other taken as the present ones; their numbers are on the device.
  template <class Body>
  void for_each_rows(const std::int64_t* rows, std::int64_t count, const Body& body) {
    for (std::int64_t r = 0; r < count; r += blocks_.rows) {
      load_rows(rows + r, std::min(blocks_.rows, count - r));
      body(r == 0);
    }
  }

  void load_rows(const std::int64_t* rows, std::int64_t count) {
    head_.load_rows(rows, count);
    block_.rows = rows;
    block_.count = count;
    holds_all_ = false;
  }

  /// The values of the present rows. Their logits are kept if they are one block.
  template <class R>
  void write_values(const TokenValues<R>& values) {
    const std::int64_t parts = vocabulary_blocks(head_.vocabulary());
    for_each_words([&] {
      with_logit_map<T>(options_, [&]<class Map>(const Map& map) {
        call_.launch(sum_logits<T, Map>, grid(), block_, map, parts, sums_, target_logits_);
      });
    });
    call_.launch(finish_rows<R>, grid_of(block_.count), block_.rows, block_.count, parts, head_.vocabulary(), sums_,
                 target_logits_, values);
  }

  /// Adds the gradients of Σ upstream·log_prob(target) of the present rows. `first`: of all rows.
  void pull_back(const Scalars& log_sum_exp, const Scalars& upstream, bool first, const HeadGradients<S>& grads) {
    for_each_words([&] {
      with_logit_map<T>(options_, [&]<class Map>(const Map& map) {
        call_.launch(pull_back_logits<T, Map>, grid(), block_, map, log_sum_exp, upstream);
      });
      head_.pull_back(block_.begin, block_.columns, first, grads.weight, grads.bias);
    });
    holds_all_ = false;
    head_.write_hidden_gradient(grads.hidden);
  }

 private:
  std::int64_t sums_bytes() const {
    return vocabulary_blocks(head_.vocabulary()) * static_cast<std::int64_t>(sizeof(math::SoftmaxSums));
  }
  Grid grid() const { return block_.grid(head_.vocabulary(), sizeof(math::SoftmaxSums)); }

  /// Calls body() with blocks of words in block_.
  template <class Body>
  void for_each_words(const Body& body) {
    for (std::int64_t begin = 0; begin < head_.vocabulary(); begin += blocks_.columns) {
      block_.begin = begin;
      block_.columns = std::min(blocks_.columns, head_.vocabulary() - begin);
      if (!holds_all_) block_.logits = head_.logits(begin, block_.columns);
      holds_all_ = block_.columns == head_.vocabulary();
      body();
    }
  }

  Call& call_;
  Head<S> head_;
  dpo_logit_options options_;
  HeadBlocks blocks_{};
  math::SoftmaxSums* sums_ = nullptr;
  double* target_logits_ = nullptr;
  LogitBlock<T> block_{};
  bool holds_all_ = false;  // of the present rows
};

}  // namespace dpo::cuda
