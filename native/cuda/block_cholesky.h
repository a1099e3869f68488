// A system of equations, solved by one block.
#pragma once

#include "native/cuda/reduce.h"

namespace dpo::cuda {

/// A symmetric A [n, n], of which the lower triangle counts, with the right-hand side as its row n.
struct PositiveSystem {
  double* a;  // [n + 1, n]
  double *diagonal, *solution;
  std::int64_t n;

  __device__ double* row(std::int64_t i) const { return a + i * n; }
  __device__ double* right_side() const { return row(n); }

  /// By Cholesky's factor, which takes A's place but for its diagonal; squares on that are at least `least`. An
  /// element of the solution is written by the thread that has its number.
  __device__ __forceinline__ void solve(double least) const {
    constexpr std::int64_t kPanel = 16;
    for (std::int64_t first = 0; first < n; first += kPanel) {
      const std::int64_t end = first + kPanel < n ? first + kPanel : n;
      for (std::int64_t k = first; k < end; ++k) eliminate(k, end, least);
      subtract_panel(first, end);
    }
    substitute_back();
  }

 private:
  /// Column k of the factor, whose part in the columns before `end` is subtracted. The right-hand side goes along as a row.
  __device__ __forceinline__ void eliminate(std::int64_t k, std::int64_t end, double least) const {
    __syncthreads();
    const double square = row(k)[k], pivot = std::sqrt(square > least ? square : least);
    if (threadIdx.x == 0) diagonal[k] = pivot;
    const std::int64_t mine = k + 1 + threadIdx.x;
    for (std::int64_t i = mine; i <= n; i += blockDim.x) row(i)[k] /= pivot;
    __syncthreads();
    for (std::int64_t i = mine; i <= n; i += blockDim.x) {
      const double factor = row(i)[k];
      for (std::int64_t j = k + 1; j < end && j <= i; ++j) row(i)[j] -= factor * row(j)[k];
    }
  }

  /// The part of the columns first .. end − 1 in those that follow: a warp for each row.
  __device__ __forceinline__ void subtract_panel(std::int64_t first, std::int64_t end) const {
    const unsigned lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize, warps = blockDim.x / kWarpSize;
    for (std::int64_t i = end + warp; i <= n; i += warps) {
      for (std::int64_t j = end + lane; j <= i && j < n; j += kWarpSize) {
        double sum = row(i)[j];
        for (std::int64_t k = first; k < end; ++k) sum -= row(i)[k] * row(j)[k];
        row(i)[j] = sum;
      }
    }
  }

  __device__ __forceinline__ void substitute_back() const {
    for (std::int64_t k = n - 1; k >= 0; --k) {
      __syncthreads();
      const double x = right_side()[k] / diagonal[k];
      if (threadIdx.x == k % blockDim.x) solution[k] = x;
      for (std::int64_t j = threadIdx.x; j < k; j += blockDim.x) right_side()[j] -= x * row(k)[j];
    }
  }
};

}  // namespace dpo::cuda
