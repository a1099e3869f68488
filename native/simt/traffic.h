// What goes between a device's memory and its second-level cache while kernels run here, counted: see traffic/traffic.cc. What a
// build that counts has to be told; in any other all of it is nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "native/simt/grid.h"

namespace dpo::simt {

/// The device that is counted for: H100 SXM5.
struct TrafficModel {
  static constexpr std::int64_t sector = 32;
  /// What rows in flight may fill of the second-level cache's 50 MB.
  static constexpr std::int64_t cache_share = 35'000'000;
  static constexpr unsigned processors = 132, resident_threads = 2048, resident_blocks = 32;
  static constexpr std::size_t shared_memory = 228 * 1024, shared_memory_of_system = 1024;  // a processor's, and taken of it by each block
};

/// One launch and the bytes that it moves.
struct LaunchTraffic {
  const void* kernel;  // null: a fill
  Dim3 grid, block;
  std::size_t shared_bytes;
  std::int64_t read = 0, written = 0;
};

#if defined(DPO_SIMT_TRAFFIC)

/// Counts from here on, with nothing in the cache.
void begin_traffic();
/// Counts no more. The launches, in their order.
std::vector<LaunchTraffic> end_traffic();

void memory_taken(const void* memory, std::size_t bytes);
void memory_given_back(const void* memory);
void memory_filled(const void* memory, std::size_t bytes);
void launch_begins(const void* kernel, Dim3 grid, Dim3 block, std::size_t shared_bytes);
void block_begins();

#else

inline void memory_taken(const void*, std::size_t) {}
inline void memory_given_back(const void*) {}
inline void memory_filled(const void*, std::size_t) {}
inline void launch_begins(const void*, Dim3, Dim3, std::size_t) {}
inline void block_begins() {}

#endif

}  // namespace dpo::simt
