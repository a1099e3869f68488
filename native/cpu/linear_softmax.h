// Softmax over logits that come block by block of the vocabulary.
#pragma once

#include "native/cpu/linear_head.h"
#include "native/cpu/logit_map.h"
#include "native/cpu/softmax_row.h"

namespace dpo::cpu {

/// The softmax sums of every row and vocabulary block, and the logit z' of every row's target.
template <class T>
class SoftmaxParts {
 public:
  static std::int64_t bytes(std::int64_t rows, std::int64_t blocks) {
    return rows * blocks * static_cast<std::int64_t>(sizeof(SoftmaxSums));
  }

  bool allocate(dpo_job* job, std::int64_t rows, std::int64_t blocks) {
    blocks_ = blocks;
    sums_ = cpu::allocate<SoftmaxSums>(job, rows * blocks);
    target_logits_ = cpu::allocate<double>(job, rows);
    return sums_ && target_logits_;
  }

  /// Takes in one block of logits: logits[i * stride + j] for the block's row i and column columns.begin + j.
  template <Detail detail, class S, class Map>
  void add_block(std::int64_t b, Range columns, const T* logits, std::int64_t stride, const HeadBlock<S>& head,
                 const std::int32_t* targets, const Map& map) {
    for (std::int64_t i = 0; i < head.size(); ++i) {
      const T* row = logits + i * stride;
      sums_[i * blocks_ + b] = softmax_sums<detail>(row, columns.size(), map);
      const std::int64_t target = targets[head.row(i)];
      if (target >= columns.begin && target < columns.end) target_logits_[i] = map_logit(map, row[target - columns.begin]);
    }
  }

  SoftmaxSums merged(std::int64_t i) const {
    SoftmaxSums total;
    for (std::int64_t b = 0; b < blocks_; ++b) total.merge(sums_[i * blocks_ + b]);
    return total;
  }

  double target_logit(std::int64_t i) const { return target_logits_[i]; }

 private:
  std::int64_t blocks_ = 0;
  SoftmaxSums* sums_ = nullptr;
  double* target_logits_ = nullptr;
};

/// Turns one row's block of logits, in place, into the gradient of upstream·log_prob(target).
template <class T, class Map>
void softmax_block_vjp(Range columns, T* row, std::int64_t target, const Map& map, double log_sum_exp, double upstream) {
  const bool has_target = target >= columns.begin && target < columns.end;
  const T target_grad = has_target ? target_vjp(row[target - columns.begin], map, log_sum_exp, upstream) : T(0);
  softmax_row_vjp<Write::cached>(row, columns.size(), map, log_sum_exp, upstream, row);
  if (has_target) row[target - columns.begin] = target_grad;
}

/// The same for all rows of the block, with log-sum-exp and upstream of `args`.
template <class T, class S, class Args, class Map>
void softmax_tile_vjp(Range columns, T* tile, std::int64_t stride, const HeadBlock<S>& head, const Args& args, const Map& map) {
  const std::int32_t* targets = data<std::int32_t>(args.targets);
  for (std::int64_t i = 0; i < head.size(); ++i) {
    const std::int64_t row = head.row(i);
    softmax_block_vjp(columns, tile + i * stride, targets[row], map, get(args.log_sum_exp, row), get(args.upstream, row));
  }
}

}  // namespace dpo::cpu
