// How large the numbers of an array are, and matrices scaled by it.
#pragma once

#include <cmath>

#include "native/cuda/grid.h"
#include "native/cuda/reduce.h"

namespace dpo::cuda {

/// Of the numbers of an array.
struct Magnitude {
  double largest = 0, squares = 0;

  __device__ void add(double x) { merge({std::fabs(x), x * x}); }
  __device__ void merge(const Magnitude& other) {
    largest = largest < other.largest ? other.largest : largest;
    squares += other.squares;
  }
};

enum class Part { all, lower };

template <class S>
__global__ void measure_parts(const S* from, std::int64_t rows, std::int64_t columns, Part part, Magnitude* parts) {
  Magnitude magnitude;
  for_each_element(rows, columns, [&](std::int64_t i, std::int64_t j, std::int64_t index) {
    if (part == Part::all || j <= i) magnitude.add(static_cast<double>(from[index]));
  });
  magnitude = merge_block(magnitude);
  if (threadIdx.x == 0) parts[blockIdx.x] = magnitude;
}

/// One block: the whole of `count` parts.
template <class T>
__global__ void merge_parts(const T* parts, std::int64_t count, T* whole) {
  T value;
  for_each_index(count, [&](std::int64_t i) { value.merge(parts[i]); });
  value = merge_block(value);
  if (threadIdx.x == 0) *whole = value;
}

template <class T>
const T* merge_all(Call& call, const T* parts, std::int64_t count) {
  auto* whole = call.allocate<T>(1);
  const unsigned threads = block_threads(count);
  call.launch(merge_parts<T>, {{1, 1, 1}, threads, merge_block_bytes<T>(threads)}, parts, count, whole);
  return whole;
}

template <class S>
const Magnitude* measure(Call& call, const S* from, std::int64_t rows, std::int64_t columns, Part part) {
  Grid grid = passes(rows * columns);
  grid.shared_bytes = merge_block_bytes<Magnitude>(grid.threads);
  const std::int64_t count = grid.blocks.x;
  auto* parts = call.allocate<Magnitude>(count);
  call.launch(measure_parts<S>, grid, from, rows, columns, part, parts);
  return merge_all(call, parts, count);
}

/// A matrix divided by this power of 2 has its largest element at 1 to 2, so that no square of one overflows or vanishes.
__device__ __forceinline__ int exponent_of(const Magnitude& magnitude) {
  return magnitude.largest > 0 ? std::ilogb(magnitude.largest) : 0;
}

template <class S>
__global__ void scale_lower(const S* from, std::int64_t n, const Magnitude* magnitude, double* to) {
  const int exponent = exponent_of(*magnitude);
  for_each_element(n, n, [&](std::int64_t i, std::int64_t j, std::int64_t index) {
    to[index] = j <= i ? std::ldexp(static_cast<double>(from[index]), -exponent) : 0;
  });
}

}  // namespace dpo::cuda
