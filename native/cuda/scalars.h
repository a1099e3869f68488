// Numbers by row, f32 or f64.
#pragma once

#include "native/cuda/call.h"

namespace dpo::cuda {

struct Scalars {
  const void* values;
  std::int32_t dtype;

  static Scalars of(Call& call, const dpo_tensor& tensor) { return {call.input<char>(tensor), tensor.dtype}; }
  __device__ double at(std::int64_t i) const {
    return dtype == DPO_F64 ? static_cast<const double*>(values)[i] : static_cast<double>(static_cast<const float*>(values)[i]);
  }
  /// Where they may be absent.
  __device__ double at_or(std::int64_t i, double otherwise) const { return values ? at(i) : otherwise; }
};

/// One thread.
template <class T>
__global__ void write_number(T* to, T value) {
  *to = value;
}

}  // namespace dpo::cuda
