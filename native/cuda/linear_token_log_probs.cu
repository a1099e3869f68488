#include "native/core/linear_token_log_probs.h"

#include "native/cuda/linear_head.h"
#include "native/cuda/logit_map.h"
#include "native/cuda/operations.h"
#include "native/cuda/scalars.h"
#include "native/cuda/softmax_part.h"
#include "native/cuda/token_values.h"

namespace dpo::cuda {
namespace {

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
  std::int64_t parts() const { return (columns + kVocabularyBlock - 1) / kVocabularyBlock; }
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
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
    math::SoftmaxSums sum = sums[i * parts];
    for (std::int64_t part = 1; part < parts; ++part) sum.merge(sums[i * parts + part]);
    values.write(rows[i], sum, target_logits[i], columns);
  }
}

template <class R>
__global__ void clear_rows(std::int64_t count, TokenValues<R> values) {
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; row < count; row += threads)
    values.clear(row);
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

/// One block a part of a row.
template <class T>
Grid grid_of_rows(const LogitBlock<T>& block, std::int64_t vocabulary) {
  const unsigned threads = row_threads(vocabulary);
  return {{static_cast<unsigned>(block.count), static_cast<unsigned>(block.parts()), 1},
          threads,
          merge_block_bytes<math::SoftmaxSums>(threads)};
}

/// Calls body(rows of the call, how many, whether they are the first) for blocks of rows, and in them of(begin, columns) for
/// blocks of words.
template <class Rows, class Words, class Done>
void for_each_block(const std::int64_t* rows, std::int64_t count, const HeadBlocks& blocks, std::int64_t vocabulary,
                    const Rows& begin_rows, const Words& words, const Done& done) {
  for (std::int64_t r = 0; r < count; r += blocks.rows) {
    begin_rows(rows + r, std::min(blocks.rows, count - r));
    for (std::int64_t begin = 0; begin < vocabulary; begin += blocks.columns)
      words(begin, std::min(blocks.columns, vocabulary - begin), r == 0);
    done();
  }
}

template <class S>
dpo_status forward(Call& call, const dpo_linear_token_log_probs_args& args) {
  using T = compute_t<S>;
  const std::vector<std::int64_t> counted = counted_rows(args.targets);
  const auto count = static_cast<std::int64_t>(counted.size()), all = args.targets.shape[0];
  Head<S> head(call, args.head);
  head.check_contents(args.targets.shape[0]);
  const TokenValues<T> values{call.output<T>(args.log_probs), call.output<double>(args.log_sum_exp), call.output<T>(args.entropy),
                              call.output<T>(args.mean_logit)};
  call.launch(clear_rows<T>, grid_of(all), all, values);
  if (count > 0) {
    const HeadBlocks blocks = HeadBlocks::within(count, head.vocabulary(), args.memory_limit, sizeof(T));
    const std::int64_t parts = (head.vocabulary() + kVocabularyBlock - 1) / kVocabularyBlock;
    head.allocate(blocks, false);
    const std::int64_t* rows = call.upload(counted.data(), count);
    const auto* targets = call.input<std::int32_t>(args.targets);
    auto* sums = call.allocate<math::SoftmaxSums>(blocks.rows * parts);
    auto* target_logits = call.allocate<double>(blocks.rows);
    LogitBlock<T> block{nullptr, nullptr, targets, 0, 0, 0};
    for_each_block(
        rows, count, blocks, head.vocabulary(),
        [&](const std::int64_t* of, std::int64_t size) {
          head.load_rows(of, size);
          block.rows = of;
          block.count = size;
        },
        [&](std::int64_t begin, std::int64_t columns, bool) {
          block.logits = head.logits(begin, columns);
          block.begin = begin;
          block.columns = columns;
          with_logit_map<T>(args.options, [&]<class Map>(const Map& map) {
            call.launch(sum_logits<T, Map>, grid_of_rows(block, head.vocabulary()), block, map, parts, sums, target_logits);
          });
        },
        [&] {
          call.launch(finish_rows<T>, grid_of(block.count), block.rows, block.count, parts, head.vocabulary(), sums,
                      target_logits, values);
        });
  }
  return call.finish();
}

template <class S>
dpo_status pull_back(Call& call, const dpo_linear_token_log_probs_vjp_args& args) {
  using T = compute_t<S>;
  const std::vector<std::int64_t> counted = counted_rows(args.targets);
  const auto count = static_cast<std::int64_t>(counted.size());
  Head<S> head(call, args.head);
  head.check_contents(args.targets.shape[0]);
  S* grad_hidden = call.output<S>(args.grads.hidden);
  T *grad_weight = call.output<T>(args.grads.weight), *grad_bias = call.output<T>(args.grads.bias);
  call.fill(grad_hidden, 0, sizeof(S) * static_cast<std::size_t>(args.targets.shape[0] * head.depth()));
  if (count == 0) {
    call.fill(grad_weight, 0, sizeof(T) * static_cast<std::size_t>(head.vocabulary() * head.depth()));
    if (grad_bias) call.fill(grad_bias, 0, sizeof(T) * static_cast<std::size_t>(head.vocabulary()));
    return call.finish();
  }
  const HeadBlocks blocks = HeadBlocks::within(count, head.vocabulary(), args.memory_limit, sizeof(T));
  head.allocate(blocks, true);
  const std::int64_t* rows = call.upload(counted.data(), count);
  const Scalars log_sum_exp = Scalars::of(call, args.log_sum_exp), upstream = Scalars::of(call, args.upstream);
  LogitBlock<T> block{nullptr, nullptr, call.input<std::int32_t>(args.targets), 0, 0, 0};
  for_each_block(
      rows, count, blocks, head.vocabulary(),
      [&](const std::int64_t* of, std::int64_t size) {
        head.load_rows(of, size);
        block.rows = of;
        block.count = size;
      },
      [&](std::int64_t begin, std::int64_t columns, bool first) {
        block.logits = head.logits(begin, columns);
        block.begin = begin;
        block.columns = columns;
        with_logit_map<T>(args.options, [&]<class Map>(const Map& map) {
          call.launch(pull_back_logits<T, Map>, grid_of_rows(block, head.vocabulary()), block, map, log_sum_exp, upstream);
        });
        head.pull_back(begin, columns, first, grad_weight, grad_bias);
      },
      [&] { head.write_hidden_gradient(grad_hidden); });
  return call.finish();
}

}  // namespace

dpo_status linear_token_log_probs(dpo_job* job, const dpo_linear_token_log_probs_args* args) {
  return dispatch_storage(args->head.hidden.dtype,
                          [&]<class S>() { return run(job, [&](Call& call) { return forward<S>(call, *args); }); });
}

dpo_status linear_token_log_probs_vjp(dpo_job* job, const dpo_linear_token_log_probs_vjp_args* args) {
  return dispatch_storage(args->head.hidden.dtype,
                          [&]<class S>() { return run(job, [&](Call& call) { return pull_back<S>(call, *args); }); });
}

}  // namespace dpo::cuda
