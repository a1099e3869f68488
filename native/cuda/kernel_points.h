// The formulas of native/math/log_kernels.h on the device.
#pragma once

#include "native/math/kernel_points.h"
#include "native/math/reproducible.h"

namespace dpo::cuda {

/// What a formula sees of a pair, or its slopes in it. A distance is in `uv`.
using Products = math::InnerProducts<double>;
/// ln k and its slopes.
using LogKernelPoint = math::InnerProductPoint<double>;

/// The runtime's sin and cos of doubles keep an array in local memory.
struct DeviceMath : math::ScalarFunctions<double> {
  __device__ static double sin(double x) { return math::sin_cos(x).sin; }
  __device__ static double cos(double x) { return math::sin_cos(x).cos; }
};

__device__ inline LogKernelPoint point_of(const math::KernelFormula& formula, const Products& seen) {
  return math::with_log_kernel<double>(formula, [&](const auto& kernel) { return math::point_of<DeviceMath>(kernel, seen); });
}

}  // namespace dpo::cuda
