// What is done with the formulas of log_kernels.h pair by pair.
#pragma once

#include "native/math/log_kernels.h"
#include "native/math/log_sum_exp.h"

namespace dpo::math {

/// ln k and its slopes in what the formula sees; a distance is in `uv`.
template <class E, class Kernel, class V>
DPO_HD_INLINE InnerProductPoint<V> point_of(const Kernel& kernel, const InnerProducts<V>& seen) {
  if constexpr (Kernel::seen == Seen::inner_product) {
    return kernel.template at<E>(seen);
  } else {
    const auto point = kernel.template at<E>(seen.uv);
    return {point.value, {point.slope, V{}, V{}}};
  }
}

/// Calls add(parameter, slope of ln k in it).
template <class E, class Kernel, class Add>
DPO_HD_INLINE void parameter_slopes_of(const Kernel& kernel, const InnerProducts<double>& seen, const Add& add) {
  if constexpr (Kernel::seen == Seen::inner_product) {
    kernel.template parameter_slopes<E>(seen, add);
  } else {
    kernel.template parameter_slopes<E>(seen.uv, add);
  }
}

/// ln Σ w·k over the kernels of a mixture; NaN where any ln k is not finite.
struct LogMixture {
  LogSumExp<double> sum{};
  double poison = 0;  // stays 0 while every kernel's value is finite

  DPO_HD void add(double log_weight, double log_k) {
    sum.add(log_weight + log_k);
    poison += log_k * 0;
  }
  DPO_HD double value() const { return sum.value() + poison; }
};

/// A kernel's share w·k/K of its mixture.
DPO_HD inline double responsibility(double log_weight, double log_k, double log_mixture) {
  return std::exp(log_weight + log_k - log_mixture);
}

/// ‖u − l‖² from ⟨u, l⟩ and `squares` = ‖u‖² + ‖l‖²; where that cancels, measured() gives it as a sum of squared differences.
template <class Measured>
DPO_HD double squared_distance(double squares, double inner, const Measured& measured) {
  constexpr double kCancelled = 1e-4;  // as a share of `squares`
  const double squared = squares - 2 * inner;
  return squared > kCancelled * squares ? squared : measured();
}

}  // namespace dpo::math
