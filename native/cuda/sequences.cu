#include "native/cuda/sequences.h"

namespace dpo::cuda {
namespace {

struct Count {
  long long value;
  __device__ void merge(const Count& other) { value += other.value; }
};

__global__ __launch_bounds__(kSequenceThreads) void count_tokens(Sequences sequences) {
  Count count{0};
  for (std::int64_t token = sequences.offsets[blockIdx.x] + threadIdx.x; token < sequences.offsets[blockIdx.x + 1];
       token += kSequenceThreads)
    count.value += sequences.counts(token) ? 1 : 0;
  count = merge_block(count);
  if (threadIdx.x == 0) sequences.token_counts[blockIdx.x] = static_cast<double>(count.value);
}

}  // namespace

Sequences Sequences::of(Call& call, const dpo_tensor& targets, const dpo_tensor& offsets, const dpo_sequence_options& options,
                        double* token_counts) {
  const Sequences sequences{call.input<std::int32_t>(targets),
                            call.input<std::int32_t>(offsets),
                            offsets.shape[0] - 1,
                            targets.shape[0],
                            options,
                            token_counts};
  call.launch(count_tokens,
              {{static_cast<unsigned>(sequences.count), 1, 1}, kSequenceThreads, merge_block_bytes<Count>(kSequenceThreads)},
              sequences);
  return sequences;
}

}  // namespace dpo::cuda
