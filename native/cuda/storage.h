// How numbers lie in memory and what they are computed in: f16 and bf16 as float. Memory is read and written 16 bytes at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "native/core/tensor.h"

namespace dpo::cuda {

template <class S>
using compute_t = std::conditional_t<std::is_same_v<S, double>, double, float>;

__host__ __device__ __forceinline__ float to_compute(float x) { return x; }
__host__ __device__ __forceinline__ double to_compute(double x) { return x; }
__host__ __device__ __forceinline__ float to_compute(__half x) { return __half2float(x); }
__host__ __device__ __forceinline__ float to_compute(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class S>
__device__ __forceinline__ S to_storage(compute_t<S> x) {
  if constexpr (std::is_same_v<S, __half>) {
    return __float2half_rn(x);
  } else if constexpr (std::is_same_v<S, __nv_bfloat16>) {
    return __float2bfloat16_rn(x);
  } else {
    return x;
  }
}

/// As many elements as one access of 16 bytes moves.
template <class S>
struct alignas(16) Pack {
  static constexpr int size = 16 / static_cast<int>(sizeof(S));
  S values[size];
};

/// Calls f<S>() with the storage type of a floating-point dtype.
template <class F>
auto dispatch_storage(std::int32_t dtype, const F& f) {
  switch (dtype) {
    case DPO_F64:
      return f.template operator()<double>();
    case DPO_F16:
      return f.template operator()<__half>();
    case DPO_BF16:
      return f.template operator()<__nv_bfloat16>();
    default:
      return f.template operator()<float>();
  }
}

}  // namespace dpo::cuda
