#include "native/core/token_log_probs.h"

#include "native/cuda/call.h"
#include "native/cuda/logit_check.h"
#include "native/cuda/logit_map.h"
#include "native/cuda/operations.h"
#include "native/cuda/scalars.h"
#include "native/cuda/softmax_part.h"
#include "native/cuda/token_values.h"

namespace dpo::cuda {
namespace {

template <class S>
struct Rows {
  const S* logits;
  const std::int32_t* targets;
  std::int64_t count;
  RowParts parts;

  static Rows of(Call& call, const dpo_tensor& logits, const dpo_tensor& targets) {
    const std::int64_t rows = logits.shape[0], columns = logits.shape[1];
    return {call.input<S>(logits), call.input<std::int32_t>(targets), rows, RowParts::of(rows, columns)};
  }

  __device__ const S* row(std::int64_t index) const { return logits + index * parts.columns; }
  /// One block a part of a row.
  Grid grid() const {
    const unsigned threads = row_threads(parts.columns);
    return {{static_cast<unsigned>(count), static_cast<unsigned>(parts.parts), 1},
            threads,
            merge_block_bytes<math::SoftmaxSums>(threads)};
  }
  /// One thread a row.
  Grid threads() const { return {{static_cast<unsigned>((count + 127) / 128), 1, 1}, 128}; }
};

/// sums[row, part], one block each.
template <class S, class Map>
__global__ __launch_bounds__(kMostRowThreads) void sum_parts(Rows<S> rows, Map map, math::SoftmaxSums* sums) {
  const std::int64_t row = blockIdx.x, part = blockIdx.y;
  if (rows.targets[row] == DPO_IGNORED_TARGET) return;
  const math::SoftmaxSums sum = softmax_part(rows.row(row), rows.parts.begin(part), rows.parts.end(part), map);
  if (threadIdx.x == 0) sums[row * rows.parts.parts + part] = sum;
}

/// The results of every row, one thread each.
template <class S, class Map, class R>
__global__ void finish_rows(Rows<S> rows, Map map, const math::SoftmaxSums* sums, TokenValues<R> values,
                            unsigned long long* bad_row) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= rows.count) return;
  const std::int32_t target = rows.targets[row];
  if (target == DPO_IGNORED_TARGET) {
    values.clear(row);
    return;
  }
  math::SoftmaxSums sum = sums[row * rows.parts.parts];
  for (std::int64_t part = 1; part < rows.parts.parts; ++part) sum.merge(sums[row * rows.parts.parts + part]);
  const bool good = values.write(row, sum, map.mapped(to_compute(rows.row(row)[target])), rows.parts.columns);
  if (!good) atomicMin(bad_row, static_cast<unsigned long long>(row));
}

template <class S>
dpo_status forward(Call& call, const dpo_token_log_probs_args& args) {
  using R = compute_t<S>;
  const auto rows = Rows<S>::of(call, args.logits, args.targets);
  auto* sums = call.allocate<math::SoftmaxSums>(rows.count * rows.parts.parts);
  unsigned long long* bad_row = first_bad_row(call);
  const TokenValues<R> values{call.output<R>(args.log_probs), call.output<double>(args.log_sum_exp), call.output<R>(args.entropy),
                              call.output<R>(args.mean_logit)};
  with_logit_map<R>(args.options, [&]<class Map>(const Map& map) {
    call.launch(sum_parts<S, Map>, rows.grid(), rows, map, sums);
    call.launch(finish_rows<S, Map, R>, rows.threads(), rows, map, sums, values, bad_row);
  });
  const unsigned long long bad = call.read(bad_row);
  if (call.ok() && bad != kNoRow)
    return nonfinite_logit(call, "logits", args.logits, rows.logits, static_cast<std::int64_t>(bad));
  return call.finish();
}

template <class S, class Map>
__global__ __launch_bounds__(kMostRowThreads) void pull_back_parts(Rows<S> rows, Map map, Scalars log_sum_exp, Scalars upstream,
                                                                   S* grads, unsigned long long* bad_row) {
  using T = compute_t<S>;
  const std::int64_t row = blockIdx.x;
  const std::int32_t target = rows.targets[row];
  S* grad = grads + row * rows.parts.columns;
  const RowPacks<S> part(rows.row(row), rows.parts.begin(blockIdx.y), rows.parts.end(blockIdx.y));
  if (target == DPO_IGNORED_TARGET) {
    write_part(part, grad, [](std::int64_t, T) { return T(0); });
    return;
  }
  const LogProbGradient<T, Map> gradient(map, log_sum_exp.at(row), upstream.at(row), target);
  bool good = true;
  write_part(part, grad, [&](std::int64_t i, T z) {
    good = good && z < std::numeric_limits<T>::infinity();
    return gradient(i, z);
  });
  if (!good) atomicMin(bad_row, static_cast<unsigned long long>(row));
}

template <class S>
dpo_status pull_back(Call& call, const dpo_token_log_probs_vjp_args& args) {
  const auto rows = Rows<S>::of(call, args.logits, args.targets);
  const Scalars log_sum_exp = Scalars::of(call, args.log_sum_exp), upstream = Scalars::of(call, args.upstream);
  unsigned long long* bad_row = first_bad_row(call);
  S* grads = call.output<S>(args.grad_logits);
  with_logit_map<compute_t<S>>(args.options, [&]<class Map>(const Map& map) {
    call.launch(pull_back_parts<S, Map>, rows.grid(), rows, map, log_sum_exp, upstream, grads, bad_row);
  });
  const unsigned long long bad = call.read(bad_row);
  if (call.ok() && bad != kNoRow)
    return nonfinite_logit(call, "logits", args.logits, rows.logits, static_cast<std::int64_t>(bad));
  return call.finish();
}

}  // namespace

dpo_status token_log_probs(dpo_job* job, const dpo_token_log_probs_args* args) {
  return dispatch_storage(args->logits.dtype,
                          [&]<class S>() { return run(job, [&](Call& call) { return forward<S>(call, *args); }); });
}

dpo_status token_log_probs_vjp(dpo_job* job, const dpo_token_log_probs_vjp_args* args) {
  return dispatch_storage(args->logits.dtype,
                          [&]<class S>() { return run(job, [&](Call& call) { return pull_back<S>(call, *args); }); });
}

}  // namespace dpo::cuda
