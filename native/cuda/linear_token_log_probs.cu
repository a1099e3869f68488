#include "native/core/linear_token_log_probs.h"

#include "native/cuda/linear_softmax.h"
#include "native/cuda/operations.h"

namespace dpo::cuda {
namespace {

template <class S>
dpo_status forward(Call& call, const dpo_linear_token_log_probs_args& args) {
  using T = compute_t<S>;
  const std::int64_t all = args.targets.shape[0];
  const std::vector<std::int64_t> counted = counted_rows(args.targets, all);
  const auto count = static_cast<std::int64_t>(counted.size());
  HeadSoftmax<S> softmax(call, args.head, args.targets, args.options);
  const TokenValues<T> values{call.output<T>(args.log_probs), call.output<double>(args.log_sum_exp), call.output<T>(args.entropy),
                              call.output<T>(args.mean_logit)};
  call.launch(clear_rows<T>, grid_of(all), all, values);
  if (count > 0) {
    softmax.allocate(softmax.head().blocks_within(count, args.memory_limit), false);
    softmax.for_each_rows(call.upload(counted), count, [&](bool) { softmax.write_values(values); });
  }
  return call.finish();
}

template <class S>
dpo_status pull_back(Call& call, const dpo_linear_token_log_probs_vjp_args& args) {
  const std::vector<std::int64_t> counted = counted_rows(args.targets, args.targets.shape[0]);
  const auto count = static_cast<std::int64_t>(counted.size());
  HeadSoftmax<S> softmax(call, args.head, args.targets, args.options);
  const auto grads = HeadGradients<S>::of(call, args.grads, count > 0);
  if (count > 0) {
    softmax.allocate(softmax.head().blocks_within(count, args.memory_limit), true);
    const Scalars log_sum_exp = Scalars::of(call, args.log_sum_exp), upstream = Scalars::of(call, args.upstream);
    softmax.for_each_rows(call.upload(counted), count,
                          [&](bool first) { softmax.pull_back(log_sum_exp, upstream, first, grads); });
  }
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
