#include "native/core/linear_token_log_probs.h"

#include "native/cpu/linear_head.h"
#include "native/cpu/linear_softmax.h"
#include "native/cpu/operation.h"
#include "native/cpu/operations.h"
#include "native/cpu/row_values.h"

namespace dpo::cpu {
namespace {

constexpr std::int64_t kValueRows = 512;      // rows at a time: enough that reading the weights costs little
constexpr std::int64_t kGradientRows = 1024;  // likewise, and that adding to the gradient of the weights does too
constexpr std::int64_t kLeastRows = 16;

template <Detail detail, class S>
dpo_status forward(dpo_job* job, const dpo_linear_token_log_probs_args& args) {
  using T = compute_t<S>;
  if (const dpo_status status = check_head_contents(job, args.head); status != DPO_OK) return status;
  const std::span<const std::int64_t> rows = counted_rows(job, args.targets);
  const auto count = static_cast<std::int64_t>(rows.size());
  const std::int32_t* targets = data<std::int32_t>(args.targets);
  RowValues values;
  if (!values.allocate(job, args.targets.shape[0])) return out_of_memory(job);

  HeadBlock<S> block(job, args.head);
  const std::int64_t capacity = rows_within(count, kValueRows, kLeastRows, args.memory_limit, [&](std::int64_t r) {
    return HeadBlock<S>::value_bytes(r, block.depth()) + SoftmaxParts<T>::bytes(r, block.vocabulary_blocks());
  });
  SoftmaxParts<T> parts;
  if (count > 0 && (!block.allocate_values(capacity) || !parts.allocate(job, capacity, block.vocabulary_blocks())))
    return out_of_memory(job);
  Scratch<T> tiles(job, capacity * kVocabularyBlock);

  for (std::int64_t begin = 0; begin < count; begin += capacity) {
    const auto part = rows.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(std::min(capacity, count - begin)));
    if (const dpo_status status = block.load_rows(part); status != DPO_OK) return status;
    const dpo_status status = with_logit_map<T>(args.options, [&](const auto& map) {
      return parallel_for(job, block.vocabulary_blocks(), [&](std::int64_t b) {
        tiles.with_buffer([&](T* tile) {
          block.workspace().with_buffer([&](T* workspace) {
            const Range columns = block.vocabulary_block(b);
            block.logits(columns, tile, columns.size(), workspace);
            parts.template add_block<detail>(b, columns, tile, columns.size(), block, targets, map);
          });
        });
      });
    });
    if (status != DPO_OK) return status;
    if (tiles.exhausted() || block.workspace().exhausted()) return out_of_memory(job);
    for (std::int64_t i = 0; i < block.size(); ++i) {
      const std::int64_t row = block.row(i);
      values.set(row, parts.merged(i), parts.target_logit(i), block.vocabulary());
    }
  }

  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  values.write(args);
  return DPO_OK;
}

template <class S>
dpo_status pull_back(dpo_job* job, const dpo_linear_token_log_probs_vjp_args& args) {
  using T = compute_t<S>;
  if (const dpo_status status = check_head_contents(job, args.head); status != DPO_OK) return status;
  const std::span<const std::int64_t> rows = counted_rows(job, args.targets);
  const auto count = static_cast<std::int64_t>(rows.size());

  HeadBlock<S> block(job, args.head);
  const std::int64_t limit = args.memory_limit;
  const std::int64_t capacity = rows_within(count, kGradientRows, kLeastRows, limit / 2,
                                            [&](std::int64_t r) { return HeadBlock<S>::gradient_bytes(r, block.depth()); });
  const std::int64_t row_bytes = std::max<std::int64_t>(1, capacity) * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t room = (limit - HeadBlock<S>::gradient_bytes(capacity, block.depth())) / row_bytes / kVocabularyBlock;
  const std::int64_t blocks_at_once = std::clamp<std::int64_t>(room, 1, block.vocabulary_blocks());
  const std::int64_t stride = blocks_at_once * kVocabularyBlock;
  T* logits = count > 0 ? allocate<T>(job, capacity * stride) : nullptr;
  if (count > 0 && (!logits || !block.allocate_gradients(capacity))) return out_of_memory(job);

  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  if (count == 0) clear_gradients(args.grads);
  clear_ignored_rows(args.targets, args.grads.hidden);
  for (std::int64_t begin = 0; begin < count; begin += capacity) {
    const auto part = rows.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(std::min(capacity, count - begin)));
    if (const dpo_status status = block.load_rows_for_gradients(part); status != DPO_OK) return status;
    const Update update = begin == 0 ? Update::overwrite : Update::accumulate;
    for (std::int64_t first = 0; first < block.vocabulary_blocks(); first += blocks_at_once) {
      const std::int64_t last = std::min(first + blocks_at_once, block.vocabulary_blocks());
      const Range columns{block.vocabulary_block(first).begin, block.vocabulary_block(last - 1).end};
      const dpo_status status = with_logit_map<T>(args.options, [&](const auto& map) {
        return block.pull_back(columns, logits, stride, args.grads, update, [&](Range part, T* tile, T* workspace) {
          block.logits(part, tile, stride, workspace);
          softmax_tile_vjp(part, tile, stride, block, args, map);
        });
      });
      if (status != DPO_OK) return status;
    }
    block.write_hidden_gradient(args.grads.hidden);
  }
  return DPO_OK;
}

}  // namespace

dpo_status linear_token_log_probs(dpo_job* job, const dpo_linear_token_log_probs_args* args) {
  return dispatch_storage(args->head.hidden.dtype, [&]<class S>() {
    if (present(args->entropy)) return forward<Detail::all, S>(job, *args);
    if (present(args->mean_logit)) return forward<Detail::mean_logit, S>(job, *args);
    return forward<Detail::none, S>(job, *args);
  });
}

dpo_status linear_token_log_probs_vjp(dpo_job* job, const dpo_linear_token_log_probs_vjp_args* args) {
  return dispatch_storage(args->head.hidden.dtype, [&]<class S>() { return pull_back<S>(job, *args); });
}

}  // namespace dpo::cpu
