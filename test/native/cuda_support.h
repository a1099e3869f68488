// What the tests of the CUDA backend's operations share: tensors over vectors, and numbers to fill them.
#pragma once

#include <cstdint>
#include <vector>

#include "native/core/job.h"
#include "native/simt/grid.h"

extern "C" const dpo_backend* dpo_backend_open(const dpo_host* host);

namespace dpo {

inline constexpr simt::Order kOrders[] = {simt::Order::forward, simt::Order::reverse, simt::Order::random, simt::Order::greedy};

template <class T>
dpo_tensor tensor_of(std::vector<T>& values, std::vector<std::int64_t> shape, std::int32_t dtype) {
  dpo_tensor tensor{};
  tensor.data = values.data();
  tensor.rank = static_cast<std::int32_t>(shape.size());
  for (std::size_t axis = 0; axis < shape.size(); ++axis) tensor.shape[axis] = shape[axis];
  tensor.dtype = dtype;
  return tensor;
}

/// Numbers between -half and half, exact in float.
inline std::vector<float> numbers(std::int64_t count, double half, std::uint32_t seed) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::uint32_t state = seed;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<double>(state >> 8) * 0x1p-23 * half - half);
  }
  return values;
}

/// Targets of which every third is ignored.
inline std::vector<std::int32_t> some_targets(std::int64_t rows, std::int64_t columns) {
  std::vector<std::int32_t> targets(static_cast<std::size_t>(rows));
  for (std::size_t row = 0; row < targets.size(); ++row)
    targets[row] =
        row % 3 == 2 ? DPO_IGNORED_TARGET : static_cast<std::int32_t>((row * 37 + 5) % static_cast<std::size_t>(columns));
  return targets;
}

}  // namespace dpo
