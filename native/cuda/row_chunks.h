// Rows that are worked on at a time, so that working memory has a bound.
#pragma once

#include <algorithm>
#include <cstdint>

#include "native/cuda/call.h"

namespace dpo::cuda {

struct RowChunks {
  std::int64_t rows, at_once;

  /// Each row of so many numbers in double precision.
  static RowChunks of(std::int64_t rows, std::int64_t numbers) {
    constexpr std::int64_t kNumbers = std::int64_t{1} << 20, kLeastRows = 1024;
    return {rows, std::min(rows, std::max(kLeastRows, kNumbers / numbers))};
  }

  /// Calls body(first row, rows).
  template <class Body>
  void for_each(const Call& call, const Body& body) const {
    for (std::int64_t begin = 0; begin < rows && call.ok(); begin += at_once) body(begin, std::min(at_once, rows - begin));
  }
};

}  // namespace dpo::cuda
