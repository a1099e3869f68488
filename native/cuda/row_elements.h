// Launches that go through the elements of a matrix in rows.
#pragma once

#include "native/cuda/grid.h"

namespace dpo::cuda {

/// Threads that each take some elements of passes over memory.
inline Grid passes(std::int64_t count) { return grid_of(count, kElementsEach); }

/// Calls body(i, j, index) for the elements of a matrix in rows.
template <class Body>
__device__ __forceinline__ void for_each_element(std::int64_t rows, std::int64_t columns, const Body& body) {
  for_each_index(rows * columns, [&](std::int64_t index) {
    const std::int64_t i = index / columns;
    body(i, index - i * columns, index);
  });
}

}  // namespace dpo::cuda
