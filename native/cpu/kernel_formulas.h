// The formulas of native/math/log_kernels.h over the pairs of a block.
#pragma once

#include <cstdint>
#include <type_traits>

#include "native/math/log_kernels.h"

namespace dpo::cpu {

using ScalarMath = math::ScalarFunctions<double>;
/// What a formula sees of a pair, or its slopes in it. A distance is in `uv`.
using Seen = math::InnerProducts<double>;
/// ln k and its slopes.
using LogKernelPoint = math::InnerProductPoint<double>;

namespace detail {

template <class Kernel>
LogKernelPoint point_of(const Kernel& kernel, const Seen& seen) {
  if constexpr (Kernel::seen == math::Seen::inner_product) {
    return kernel.template at<ScalarMath>(seen);
  } else {
    const auto point = kernel.template at<ScalarMath>(seen.uv);
    return {point.value, {point.slope, 0, 0}};
  }
}

}  // namespace detail

/// Calls visit(i, point) for i from 0 to count − 1.
template <class SeenAt, class Visit>
void evaluate_formula(const math::KernelFormula& formula, std::int64_t count, const SeenAt& seen_at, const Visit& visit) {
  math::with_log_kernel<double>(formula, [&](const auto& kernel) {
    for (std::int64_t i = 0; i < count; ++i) visit(i, detail::point_of(kernel, seen_at(i)));
  });
}

/// sums[p] += weight(i) times the slope of ln k in parameter p.
template <class SeenAt, class Weight>
void add_parameter_slopes(const math::KernelFormula& formula, std::int64_t count, const SeenAt& seen_at, const Weight& weight,
                          double* sums) {
  math::with_log_kernel<double>(formula, [&](const auto& kernel) {
    using Kernel = std::remove_cvref_t<decltype(kernel)>;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto add = [&, w = weight(i)](std::int64_t p, double slope) { sums[p] += w * slope; };
      if constexpr (Kernel::seen == math::Seen::inner_product) {
        kernel.template parameter_slopes<ScalarMath>(seen_at(i), add);
      } else {
        kernel.template parameter_slopes<ScalarMath>(seen_at(i).uv, add);
      }
    }
  });
}

}  // namespace dpo::cpu
