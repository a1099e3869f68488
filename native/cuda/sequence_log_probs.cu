#include "native/core/sequence_log_probs.h"

#include "native/cuda/call.h"
#include "native/cuda/operations.h"
#include "native/cuda/reduce.h"
#include "native/math/sequence_weight.h"

namespace dpo::cuda {
namespace {

constexpr unsigned kThreads = 128;
constexpr unsigned kWarps = kThreads / kWarpSize;

struct Count {
  long long value;
  __device__ void merge(const Count& other) { value += other.value; }
};

struct Sum {
  double value;
  __device__ void merge(const Sum& other) { value += other.value; }
};

/// Packed sequences on the device: where each one's tokens lie, how many count, and with which weight.
struct Sequences {
  const std::int32_t *targets, *offsets;
  std::int64_t count, tokens;
  dpo_sequence_options options;
  double* token_counts;  // [count]

  /// Those of a call, with their tokens counted.
  static Sequences of(Call& call, const dpo_tensor& targets, const dpo_tensor& offsets, const dpo_sequence_options& options,
                      double* token_counts);

  Grid grid(std::size_t shared_bytes) const { return {{static_cast<unsigned>(count), 1, 1}, kThreads, shared_bytes}; }
  __device__ bool counts(std::int64_t token) const { return targets[token] != DPO_IGNORED_TARGET; }

  /// Calls body(token, weight) for every counted token of the block's sequence, on one of its threads. `warps` holds kWarps + 1
  /// numbers of shared memory.
  template <class Body>
  __device__ void for_each_token(unsigned* warps, const Body& body) const {
    const std::int64_t sequence = blockIdx.x, begin = offsets[sequence], end = offsets[sequence + 1];
    const double mine = token_counts[sequence], other = token_counts[(sequence + count / 2) % count];
    const auto shared_length = static_cast<std::int64_t>(mine < other ? mine : other);
    const double scale = options.reduction == DPO_SEQUENCE_MEAN && mine > 0 ? 1 / mine : 1;
    std::int64_t before = 0;  // counted tokens of the rounds before
    for (std::int64_t first = begin; first < end; first += kThreads) {
      const std::int64_t token = first + threadIdx.x;
      const bool counted = token < end && counts(token);
      const unsigned votes = __ballot_sync(kWholeWarp, counted), lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
      if (lane == 0) warps[warp] = static_cast<unsigned>(__popc(votes));
      __syncthreads();
      std::int64_t position = before + __popc(votes & ((1u << lane) - 1));
      for (unsigned w = 0; w < kWarps; ++w) {
        if (w < warp) position += warps[w];
        before += warps[w];
      }
      if (counted) body(token, scale * math::sequence_weight(position, shared_length, options.ld_alpha));
      __syncthreads();
    }
  }
};

__global__ __launch_bounds__(kThreads) void count_tokens(Sequences sequences) {
  Count count{0};
  for (std::int64_t token = sequences.offsets[blockIdx.x] + threadIdx.x; token < sequences.offsets[blockIdx.x + 1];
       token += kThreads)
    count.value += sequences.counts(token) ? 1 : 0;
  count = merge_block(count);
  if (threadIdx.x == 0) sequences.token_counts[blockIdx.x] = static_cast<double>(count.value);
}

Sequences Sequences::of(Call& call, const dpo_tensor& targets, const dpo_tensor& offsets, const dpo_sequence_options& options,
                        double* token_counts) {
  const Sequences sequences{call.input<std::int32_t>(targets),
                            call.input<std::int32_t>(offsets),
                            offsets.shape[0] - 1,
                            targets.shape[0],
                            options,
                            token_counts};
  call.launch(count_tokens, sequences.grid(merge_block_bytes<Count>(kThreads)), sequences);
  return sequences;
}

template <class T>
__global__ __launch_bounds__(kThreads) void sum_sequences(Sequences sequences, const T* log_probs, T* sums) {
  auto* partial = static_cast<Sum*>(shared_memory());
  auto* warps = reinterpret_cast<unsigned*>(partial + kWarps);
  Sum sum{0};
  sequences.for_each_token(
      warps, [&](std::int64_t token, double weight) { sum.value += weight * static_cast<double>(log_probs[token]); });
  sum = merge_block(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = static_cast<T>(sum.value);
}

template <class T>
__global__ __launch_bounds__(kThreads) void pull_back_sequences(Sequences sequences, const T* upstream, T* grads) {
  auto* warps = static_cast<unsigned*>(shared_memory());
  const auto weight_of_all = static_cast<double>(upstream[blockIdx.x]);
  sequences.for_each_token(warps,
                           [&](std::int64_t token, double weight) { grads[token] = static_cast<T>(weight * weight_of_all); });
}

constexpr std::size_t kWarpBytes = kWarps * sizeof(unsigned);

template <class T>
dpo_status forward(Call& call, const dpo_sequence_log_probs_args& args) {
  const Sequences sequences =
      Sequences::of(call, args.targets, args.offsets, args.options, call.output<double>(args.token_counts));
  call.launch(sum_sequences<T>, sequences.grid(merge_block_bytes<Sum>(kThreads) + kWarpBytes), sequences,
              call.input<T>(args.log_probs), call.output<T>(args.sequence_log_probs));
  return call.finish();
}

template <class T>
dpo_status pull_back(Call& call, const dpo_sequence_log_probs_vjp_args& args) {
  const std::int64_t count = args.offsets.shape[0] - 1;
  const Sequences sequences = Sequences::of(call, args.targets, args.offsets, args.options, call.allocate<double>(count));
  T* grads = call.output<T>(args.grad_log_probs);
  call.fill(grads, 0, sizeof(T) * static_cast<std::size_t>(sequences.tokens));
  call.launch(pull_back_sequences<T>, sequences.grid(kWarpBytes), sequences, call.input<T>(args.upstream), grads);
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
