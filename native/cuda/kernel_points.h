// The formulas of native/math/log_kernels.h on the device.
#pragma once

#include "native/cuda/device_functions.h"
#include "native/math/kernel_points.h"

namespace dpo::cuda {

/// What a formula sees of a pair, or its slopes in it. A distance is in `uv`.
using Products = math::InnerProducts<double>;
/// ln k and its slopes.
using LogKernelPoint = math::InnerProductPoint<double>;

__device__ inline LogKernelPoint point_of(const math::KernelFormula& formula, const Products& seen) {
  return math::with_log_kernel<double>(formula,
                                       [&](const auto& kernel) { return math::point_of<DeviceFunctions<double>>(kernel, seen); });
}

}  // namespace dpo::cuda
