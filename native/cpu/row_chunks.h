// Rows cut into chunks by their width alone, so that results do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace dpo::cpu {

inline constexpr std::int64_t kElementsPerChunk = 32768;             // enough work to outweigh waking a thread
inline constexpr std::int64_t kStreamBytes = std::int64_t{4} << 20;  // results larger than this go around the caches

/// How results are written: into the caches, or around them when they are far larger than those.
enum class Write { cached, streamed };

struct RowChunks {
  std::int64_t rows, rows_per_chunk;

  RowChunks(std::int64_t row_count, std::int64_t width)
      : rows(row_count), rows_per_chunk(std::max<std::int64_t>(1, kElementsPerChunk / width)) {}
  std::int64_t count() const { return (rows + rows_per_chunk - 1) / rows_per_chunk; }

  template <class Body>
  void for_each(std::int64_t chunk, const Body& body) const {
    const std::int64_t end = std::min(rows, (chunk + 1) * rows_per_chunk);
    for (std::int64_t row = chunk * rows_per_chunk; row < end; ++row) body(row);
  }
};

}  // namespace dpo::cpu
