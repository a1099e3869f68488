// Packed sequences on the device: where each one's tokens lie, how many count, and with which weight.
#pragma once

#include "native/core/sequence_log_probs.h"
#include "native/cuda/call.h"
#include "native/cuda/reduce.h"
#include "native/math/sequence_weight.h"

namespace dpo::cuda {

inline constexpr unsigned kSequenceThreads = 128;
inline constexpr unsigned kSequenceWarps = kSequenceThreads / kWarpSize;

/// Both sequences of consecutive pairs.
struct PairRange {
  std::int64_t first, count, pairs;

  static PairRange all(std::int64_t pairs) { return {0, pairs, pairs}; }
  __device__ std::int64_t sequence(std::int64_t i) const { return i < count ? first + i : first + i - count + pairs; }
};

struct Sequences {
  const std::int32_t *targets, *offsets;
  std::int64_t count, tokens;
  dpo_sequence_options options;
  double* token_counts;  // [count]

  /// Those of a call, with their tokens counted.
  static Sequences of(Call& call, const dpo_tensor& targets, const dpo_tensor& offsets, const dpo_sequence_options& options,
                      double* token_counts);

  PairRange pairs() const { return PairRange::all(count / 2); }
  __device__ bool counts(std::int64_t token) const { return targets[token] != DPO_IGNORED_TARGET; }

  /// Calls body(token, weight) for every counted token of a sequence, on one of the block's threads. `warps` holds
  /// kSequenceWarps numbers of shared memory.
  template <class Body>
  __device__ void for_each_token(std::int64_t sequence, unsigned* warps, const Body& body) const {
    const std::int64_t begin = offsets[sequence], end = offsets[sequence + 1];
    const double mine = token_counts[sequence], other = token_counts[(sequence + count / 2) % count];
    const auto shared_length = static_cast<std::int64_t>(mine < other ? mine : other);
    const double scale = options.reduction == DPO_SEQUENCE_MEAN && mine > 0 ? 1 / mine : 1;
    std::int64_t before = 0;  // counted tokens of the rounds before
    for (std::int64_t first = begin; first < end; first += kSequenceThreads) {
      const std::int64_t token = first + threadIdx.x;
      const bool counted = token < end && counts(token);
      const unsigned votes = __ballot_sync(kWholeWarp, counted), lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
      if (lane == 0) warps[warp] = static_cast<unsigned>(__popc(votes));
      __syncthreads();
      std::int64_t position = before + __popc(votes & ((1u << lane) - 1));
      for (unsigned w = 0; w < kSequenceWarps; ++w) {
        if (w < warp) position += warps[w];
        before += warps[w];
      }
      if (counted) body(token, scale * math::sequence_weight(position, shared_length, options.ld_alpha));
      __syncthreads();
    }
  }
};

/// sums[sequence] = Σ weight·log_probs[token], one block each.
template <class From, class To>
__global__ __launch_bounds__(kSequenceThreads) void sum_sequences(Sequences sequences, PairRange range, const From* log_probs,
                                                                  To* sums) {
  auto* partial = static_cast<Sum*>(shared_memory());
  auto* warps = reinterpret_cast<unsigned*>(partial + kSequenceWarps);
  const std::int64_t sequence = range.sequence(blockIdx.x);
  Sum sum{0};
  sequences.for_each_token(
      sequence, warps, [&](std::int64_t token, double weight) { sum.value += weight * static_cast<double>(log_probs[token]); });
  sum = merge_block(sum);
  if (threadIdx.x == 0) sums[sequence] = static_cast<To>(sum.value);
}

/// grads[token] = weight·upstream[sequence], one block a sequence.
template <class From, class To>
__global__ __launch_bounds__(kSequenceThreads) void pull_back_sequences(Sequences sequences, PairRange range,
                                                                        const From* upstream, To* grads) {
  auto* warps = static_cast<unsigned*>(shared_memory());
  const std::int64_t sequence = range.sequence(blockIdx.x);
  const auto weight_of_all = static_cast<double>(upstream[sequence]);
  sequences.for_each_token(sequence, warps,
                           [&](std::int64_t token, double weight) { grads[token] = static_cast<To>(weight * weight_of_all); });
}

template <class From, class To>
void sum(Call& call, const Sequences& sequences, const PairRange& range, const From* log_probs, To* sums) {
  const std::size_t shared = merge_block_bytes<Sum>(kSequenceThreads) + kSequenceWarps * sizeof(unsigned);
  call.launch(sum_sequences<From, To>, {{static_cast<unsigned>(2 * range.count), 1, 1}, kSequenceThreads, shared}, sequences,
              range, log_probs, sums);
}

template <class From, class To>
void pull_back(Call& call, const Sequences& sequences, const PairRange& range, const From* upstream, To* grads) {
  const std::size_t shared = kSequenceWarps * sizeof(unsigned);
  call.launch(pull_back_sequences<From, To>, {{static_cast<unsigned>(2 * range.count), 1, 1}, kSequenceThreads, shared},
              sequences, range, upstream, grads);
}

}  // namespace dpo::cuda
