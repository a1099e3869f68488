// The order of a block's threads, and of elements that they hold.
#pragma once

#include "native/cuda/reduce.h"

namespace dpo::cuda {

/// Of the threads that say yes: how many come before this one, and how many there are.
struct BlockRank {
  unsigned before, all;
};

/// As often as a kernel likes. Takes the shared memory of merge_block_for_all.
__device__ __forceinline__ BlockRank block_rank(bool yes) {
  auto* warps = static_cast<unsigned*>(shared_memory());
  const unsigned lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const unsigned votes = __ballot_sync(kWholeWarp, yes);
  BlockRank rank{static_cast<unsigned>(__popc(votes & ((1u << lane) - 1))), 0};
  __syncthreads();  // what was there has been read
  if (lane == 0) warps[warp] = static_cast<unsigned>(__popc(votes));
  __syncthreads();
  for (unsigned w = 0; w < blockDim.x / kWarpSize; ++w) {
    rank.before += w < warp ? warps[w] : 0;
    rank.all += warps[w];
  }
  return rank;
}

/// Calls to(i, place) for those of 0 .. count − 1 of which chosen(i) is true, with their place among them, and returns how many
/// they are. `chosen` is asked by the whole block at once, also about i ≥ count.
template <class Chosen, class To>
__device__ __forceinline__ std::int64_t compact(std::int64_t count, const Chosen& chosen, const To& to) {
  std::int64_t found = 0;
  for (std::int64_t first = 0; first < count; first += blockDim.x) {
    const std::int64_t i = first + threadIdx.x;
    const bool yes = chosen(i);
    const BlockRank rank = block_rank(yes);
    if (yes) to(i, found + rank.before);
    found += rank.all;
  }
  return found;
}

}  // namespace dpo::cuda
