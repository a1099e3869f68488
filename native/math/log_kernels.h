// Logarithms of kernels, with derivatives. Always ln k, never ln of a computed k: k itself underflows.
#pragma once

#include <cstdint>

#include "native/math/host_device.h"

namespace dpo::math {

/// Parameters in order: rbf sigma.
enum class LogKernel : std::int32_t { rbf };

/// ln k of a radial kernel with its derivatives in r² = ‖u − v‖² and in σ.
template <class T>
struct RadialLogKernel {
  T value, r2_slope, sigma_slope;
};

/// rbf: ln k = −r²/(2σ²). Divides by σ twice, because σ² leaves the range of T long before the quotient does.
template <class T>
DPO_HD RadialLogKernel<T> rbf_log_kernel(T r2, T sigma) {
  const T value = -r2 / sigma / sigma / 2;
  return {value, T(-0.5) / sigma / sigma, -2 * value / sigma};
}

}  // namespace dpo::math
