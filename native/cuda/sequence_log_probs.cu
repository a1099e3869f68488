#include "native/core/sequence_log_probs.h"

#include "native/cuda/operations.h"
#include "native/cuda/sequences.h"

namespace dpo::cuda {
namespace {

template <class T>
dpo_status forward(Call& call, const dpo_sequence_log_probs_args& args) {
  const Sequences sequences =
      Sequences::of(call, args.targets, args.offsets, args.options, call.output<double>(args.token_counts));
  sum(call, sequences, sequences.pairs(), call.input<T>(args.log_probs), call.output<T>(args.sequence_log_probs));
  return call.finish();
}

template <class T>
dpo_status pull_back(Call& call, const dpo_sequence_log_probs_vjp_args& args) {
  const std::int64_t count = args.offsets.shape[0] - 1;
  const Sequences sequences = Sequences::of(call, args.targets, args.offsets, args.options, call.allocate<double>(count));
  T* grads = call.output<T>(args.grad_log_probs);
  call.fill(grads, 0, bytes_of(args.grad_log_probs));
  pull_back(call, sequences, sequences.pairs(), call.input<T>(args.upstream), grads);
  return call.finish();
}

}  // namespace

dpo_status sequence_log_probs(dpo_job* job, const dpo_sequence_log_probs_args* args) {
  return run(job, [&](Call& call) {
    return args->log_probs.dtype == DPO_F64 ? forward<double>(call, *args) : forward<float>(call, *args);
  });
}

dpo_status sequence_log_probs_vjp(dpo_job* job, const dpo_sequence_log_probs_vjp_args* args) {
  return run(job, [&](Call& call) {
    return args->upstream.dtype == DPO_F64 ? pull_back<double>(call, *args) : pull_back<float>(call, *args);
  });
}

}  // namespace dpo::cuda
