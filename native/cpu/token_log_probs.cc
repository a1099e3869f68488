#include "native/core/token_log_probs.h"

#include <atomic>

#include "native/cpu/logit_map.h"
#include "native/cpu/nonfinite_logit.h"
#include "native/cpu/operation.h"
#include "native/cpu/operations.h"
#include "native/cpu/row_chunks.h"
#include "native/cpu/row_values.h"
#include "native/cpu/softmax_row.h"

namespace dpo::cpu {
namespace {

template <Detail detail, class S>
dpo_status forward(dpo_job* job, const dpo_token_log_probs_args& args) {
  const std::int64_t rows = args.logits.shape[0], vocabulary = args.logits.shape[1];
  const S* logits = data<S>(args.logits);
  const std::int32_t* targets = data<std::int32_t>(args.targets);
  RowValues values;
  if (!values.allocate(job, rows)) return out_of_memory(job);

  const RowChunks chunks(rows, vocabulary);
  const dpo_status status = with_logit_map<compute_t<S>>(args.options, [&](const auto& map) {
    return parallel_for(job, chunks.count(), [&](std::int64_t chunk) {
      chunks.for_each(chunk, [&](std::int64_t row) {
        if (targets[row] == DPO_IGNORED_TARGET) return;
        const S* z = logits + row * vocabulary;
        values.set(row, softmax_sums<detail>(z, vocabulary, map), map_logit(map, to_compute(z[targets[row]])), vocabulary);
      });
    });
  });
  if (status != DPO_OK) return status;
  for (std::int64_t row = 0; row < rows; ++row) {
    if (!std::isfinite(values.log_sum_exp[row])) return nonfinite_logit<S>(job, "logits", args.logits, row);
  }
  if (const dpo_status begun = host->begin_writes(job); begun != DPO_OK) return begun;
  values.write(args);
  return DPO_OK;
}

/// Finds the first row of a call with a logit that is NaN or +inf. Rows may be looked at by several threads.
template <class S>
class LogitCheck {
 public:
  explicit LogitCheck(const dpo_token_log_probs_vjp_args& args) : args_(args), first_bad_row_(args.logits.shape[0]) {}

  bool passes(std::int64_t row) {
    const std::int64_t vocabulary = args_.logits.shape[1];
    if (data<std::int32_t>(args_.targets)[row] == DPO_IGNORED_TARGET) return true;
    if (all_below_infinity(data<S>(args_.logits) + row * vocabulary, vocabulary)) return true;
    std::int64_t known = first_bad_row_.load();
    while (row < known && !first_bad_row_.compare_exchange_weak(known, row)) {
    }
    return false;
  }

  dpo_status outcome(dpo_job* job) const {
    const std::int64_t row = first_bad_row_.load();
    return row < args_.logits.shape[0] ? nonfinite_logit<S>(job, "logits", args_.logits, row) : DPO_OK;
  }

 private:
  const dpo_token_log_probs_vjp_args& args_;
  std::atomic<std::int64_t> first_bad_row_;
};

template <Write write, class S, class Map>
void pull_back_row(const dpo_token_log_probs_vjp_args& args, std::int64_t row, const Map& map) {
  const std::int64_t vocabulary = args.logits.shape[1];
  const S* logits = data<S>(args.logits) + row * vocabulary;
  S* grad = data<S>(args.grad_logits) + row * vocabulary;
  const std::int32_t target = data<std::int32_t>(args.targets)[row];
  if (target == DPO_IGNORED_TARGET) {
    std::fill(grad, grad + vocabulary, S{});
    return;
  }
  const double log_sum_exp = get(args.log_sum_exp, row), upstream = get(args.upstream, row);
  softmax_row_vjp<write>(logits, vocabulary, map, log_sum_exp, upstream, grad);
  grad[target] = target_vjp(logits[target], map, log_sum_exp, upstream);
}

template <Write write, class S>
dpo_status pull_back(dpo_job* job, const dpo_token_log_probs_vjp_args& args) {
  const RowChunks chunks(args.logits.shape[0], args.logits.shape[1]);
  LogitCheck<S> check(args);
  // Where somebody sees the results of a call that fails, every logit is looked at before anything is written; else each row just
  // before its gradient, which then finds it in the cache.
  const bool looks_first = !host->discards_results(job);
  if (looks_first) {
    const dpo_status status = parallel_for(
        job, chunks.count(), [&](std::int64_t chunk) { chunks.for_each(chunk, [&](std::int64_t row) { check.passes(row); }); });
    if (status != DPO_OK) return status;
    if (const dpo_status found = check.outcome(job); found != DPO_OK) return found;
  }
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  const dpo_status status = with_logit_map<compute_t<S>>(args.options, [&](const auto& map) {
    return parallel_for(job, chunks.count(), [&](std::int64_t chunk) {
      chunks.for_each(chunk, [&](std::int64_t row) {
        if (looks_first || check.passes(row)) pull_back_row<write, S>(args, row, map);
      });
      if constexpr (write == Write::streamed) stream_fence();
    });
  });
  return status != DPO_OK ? status : check.outcome(job);
}

}  // namespace

dpo_status token_log_probs(dpo_job* job, const dpo_token_log_probs_args* args) {
  return dispatch_storage(args->logits.dtype, [&]<class S>() {
    if (present(args->entropy)) return forward<Detail::all, S>(job, *args);
    if (present(args->mean_logit)) return forward<Detail::mean_logit, S>(job, *args);
    return forward<Detail::none, S>(job, *args);
  });
}

dpo_status token_log_probs_vjp(dpo_job* job, const dpo_token_log_probs_vjp_args* args) {
  return dispatch_storage(args->logits.dtype, [&]<class S>() {
    const auto bytes = args->logits.shape[0] * args->logits.shape[1] * static_cast<std::int64_t>(sizeof(S));
    return bytes > kStreamBytes ? pull_back<Write::streamed, S>(job, *args) : pull_back<Write::cached, S>(job, *args);
  });
}

}  // namespace dpo::cpu
