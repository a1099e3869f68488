#pragma once

#include <cstddef>
#include <cstdint>

#include "native/core/tensor.h"

namespace dpo {

inline std::size_t dtype_size(std::int32_t dtype) {
  switch (dtype) {
    case DPO_F64:
      return 8;
    case DPO_F32:
    case DPO_I32:
      return 4;
    default:
      return 2;
  }
}

inline const char* dtype_name(std::int32_t dtype) {
  switch (dtype) {
    case DPO_F32:
      return "f32";
    case DPO_F64:
      return "f64";
    case DPO_F16:
      return "f16";
    case DPO_BF16:
      return "bf16";
    case DPO_I32:
      return "i32";
    default:
      return "unknown";
  }
}

/// The dtype that results of arithmetic on `dtype` have when they are not stored like the input.
inline std::int32_t result_dtype(std::int32_t dtype) { return dtype == DPO_F64 ? DPO_F64 : DPO_F32; }

inline std::int64_t element_count(const dpo_tensor& tensor) {
  std::int64_t count = 1;
  for (std::int32_t axis = 0; axis < tensor.rank; ++axis) count *= tensor.shape[axis];
  return count;
}

inline std::size_t byte_size(const dpo_tensor& tensor) {
  return static_cast<std::size_t>(element_count(tensor)) * dtype_size(tensor.dtype);
}

inline bool present(const dpo_tensor& tensor) { return tensor.data != nullptr; }

}  // namespace dpo
