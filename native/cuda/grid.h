// Launches in which every thread goes round elements.
#pragma once

#include <algorithm>
#include <cstdint>

#include "native/cuda/call.h"

namespace dpo::cuda {

/// Elements for which another thread is worth starting, in passes over memory.
inline constexpr std::int64_t kElementsEach = 16;

/// Threads of one block for so many pieces of work: whole warps, of no more than `most` threads.
inline unsigned block_threads(std::int64_t count, unsigned most = 256) {
  return static_cast<unsigned>(std::clamp<std::int64_t>((count + 31) / 32 * 32, 32, most));
}

/// One thread for every `each` elements, up to as many as fill a device.
inline Grid grid_of(std::int64_t count, std::int64_t each = 1) {
  const unsigned threads = block_threads((count + each - 1) / each);
  const std::int64_t blocks = (count + threads * each - 1) / (threads * each);
  return {{static_cast<unsigned>(std::clamp<std::int64_t>(blocks, 1, 4096)), 1, 1}, threads};
}

/// For a pass over memory.
inline Grid passes(std::int64_t count) { return grid_of(count, kElementsEach); }

/// Calls body(i) for 0 .. count − 1, shared out among the threads of the launch.
template <class Body>
__device__ __forceinline__ void for_each_index(std::int64_t count, const Body& body) {
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) body(i);
}

/// Calls body(i, j, index) for the elements of a matrix in rows.
template <class Body>
__device__ __forceinline__ void for_each_element(std::int64_t rows, std::int64_t columns, const Body& body) {
  for_each_index(rows * columns, [&](std::int64_t index) {
    const std::int64_t i = index / columns;
    body(i, index - i * columns, index);
  });
}

/// A warp for each of `count` pieces of work, up to as many as fill a device.
inline Grid warps_of(std::int64_t count) {
  constexpr unsigned kThreads = 128, kWarps = kThreads / 32;
  return {{static_cast<unsigned>(std::clamp<std::int64_t>((count + kWarps - 1) / kWarps, 1, 4096)), 1, 1}, kThreads};
}

/// Calls body(i) for 0 .. count − 1 with whole warps, shared out among those of the launch.
template <class Body>
__device__ __forceinline__ void for_each_by_warp(std::int64_t count, const Body& body) {
  const std::int64_t in_block = blockDim.x / 32, warps = gridDim.x * in_block;
  for (std::int64_t i = blockIdx.x * in_block + threadIdx.x / 32; i < count; i += warps) body(i);
}

}  // namespace dpo::cuda
