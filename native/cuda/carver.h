// Parts of one piece of device memory.
#pragma once

#include <cstdint>

#include "native/cuda/call.h"

namespace dpo::cuda {

/// Hands out parts of one buffer; of no buffer, only counts.
class Carver {
 public:
  __host__ __device__ explicit Carver(double* buffer) : buffer_(buffer) {}

  template <class T = double>
  __host__ __device__ T* take(std::int64_t count) {
    static_assert(sizeof(T) % sizeof(double) == 0 && alignof(T) == alignof(double));
    double* part = buffer_ ? buffer_ + used_ : nullptr;
    used_ += count * static_cast<std::int64_t>(sizeof(T) / sizeof(double));
    return reinterpret_cast<T*>(part);
  }
  __host__ __device__ std::int64_t used() const { return used_; }

 private:
  double* buffer_;
  std::int64_t used_ = 0;
};

}  // namespace dpo::cuda
