// Sums over the threads of a warp and of a block, in a fixed order.
#pragma once

#include <cuda_runtime.h>
#include <device/shared_memory.h>

#include <cstring>
#include <type_traits>

#include "native/math/lane_sum.h"

namespace dpo::cuda {

inline constexpr unsigned kWarpSize = 32, kWholeWarp = 0xffffffffu;

/// What the lane whose number differs in the bits `lanes` has.
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int lanes) {
  using Word = unsigned long long;
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % sizeof(Word) == 0);
  constexpr int kWords = sizeof(T) / sizeof(Word);
  Word words[kWords];
  std::memcpy(words, &value, sizeof value);
#pragma unroll
  for (int i = 0; i < kWords; ++i) words[i] = __shfl_xor_sync(kWholeWarp, words[i], lanes);
  std::memcpy(&value, words, sizeof value);
  return value;
}

/// Merges the values of a warp; every lane gets the result.
template <class T>
__device__ __forceinline__ T merge_warp(T value) {
#pragma unroll
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
    // Both lanes of a pair merge in the same order, so that they get the same bits.
    T other = shuffle_xor(value, lanes);
    if ((threadIdx.x & static_cast<unsigned>(lanes)) == 0) {
      value.merge(other);
    } else {
      other.merge(value);
      value = other;
    }
  }
  return value;
}

/// A number to merge.
struct Sum {
  double value = 0;
  __device__ void merge(const Sum& other) { value += other.value; }
};

/// math::lane_sum by a warp; every lane gets it.
template <class Add>
__device__ __forceinline__ double warp_sum(std::int64_t begin, std::int64_t end, const Add& add) {
  static_assert(math::kSumLanes == kWarpSize);
  const auto lane = static_cast<int>(threadIdx.x % kWarpSize);
  return merge_warp(Sum{math::lane_part(lane, begin, end, add)}).value;
}

/// Bytes of shared memory that merge_block takes.
template <class T>
constexpr std::size_t merge_block_bytes(unsigned threads) {
  return threads / kWarpSize * sizeof(T);
}

/// Merges the values of a block of whole warps; thread 0 gets the result. Once a kernel.
template <class T>
__device__ T merge_block(T value) {
  T* warps = static_cast<T*>(shared_memory());
  value = merge_warp(value);
  if (threadIdx.x % kWarpSize == 0) warps[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (unsigned warp = 1; warp < blockDim.x / kWarpSize; ++warp) value.merge(warps[warp]);
  }
  return value;
}

/// The same as often as a kernel likes, and for every thread. No barrier to rely on: a single warp needs none. T{} changes
/// nothing that it is merged with; a block has at most 32 warps.
template <class T>
__device__ __forceinline__ T merge_block_for_all(T value) {
  T* warps = static_cast<T*>(shared_memory());
  const unsigned lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  value = merge_warp(value);
  if (blockDim.x == kWarpSize) return value;
  __syncthreads();  // the last result has been read
  if (lane == 0) warps[warp] = value;
  __syncthreads();
  if (warp == 0) {
    value = merge_warp(lane < blockDim.x / kWarpSize ? warps[lane] : T{});
    if (lane == 0) warps[0] = value;
  }
  __syncthreads();
  return warps[0];
}

}  // namespace dpo::cuda
