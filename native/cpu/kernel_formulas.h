// The formulas of native/math/log_kernels.h over the pairs of a block.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "native/cpu/simd.h"
#include "native/math/kernel_points.h"

namespace dpo::cpu {

using ScalarMath = math::ScalarFunctions<double>;

/// Elementary functions of a vector.
struct VectorMath {
  using Scalar = double;
  static Vec<double> exp(Vec<double> x) { return cpu::exp(x); }
  static Vec<double> log(Vec<double> x) { return cpu::log(x); }
  static Vec<double> log1p(Vec<double> x) { return cpu::log1p(x); }
  static Vec<double> sqrt(Vec<double> x) { return lane_by_lane(x, std::sqrt); }
  static Vec<double> cos(Vec<double> x) { return lane_by_lane(x, std::cos); }
  static Vec<double> sin(Vec<double> x) { return lane_by_lane(x, std::sin); }

 private:
  static Vec<double> lane_by_lane(Vec<double> x, double (*f)(double)) {
    for (int lane = 0; lane < lanes<double>; ++lane) x[lane] = f(x[lane]);
    return x;
  }
};

/// What a formula sees of a pair, or its slopes in it. A distance is in `uv`.
using Seen = math::InnerProducts<double>;
/// ln k and its slopes.
using LogKernelPoint = math::InnerProductPoint<double>;

/// Calls visit(i, point) for i from 0 to count − 1.
template <class SeenAt, class Visit>
void evaluate_formula(const math::KernelFormula& formula, std::int64_t count, const SeenAt& seen_at, const Visit& visit) {
  math::with_log_kernel<double>(formula, [&](const auto& kernel) {
    for (std::int64_t i = 0; i < count; ++i) visit(i, math::point_of<ScalarMath>(kernel, seen_at(i)));
  });
}

/// The same for as many i at a time as a vector holds: seen_at(i, n) and visit(i, n, point) are about n of them from i on.
template <class SeenAt, class Visit>
void evaluate_formula_of_vectors(const math::KernelFormula& formula, std::int64_t count, const SeenAt& seen_at,
                                 const Visit& visit) {
  math::with_log_kernel<double>(formula, [&](const auto& kernel) {
    for (std::int64_t i = 0; i < count; i += lanes<double>) {
      const int n = static_cast<int>(std::min<std::int64_t>(lanes<double>, count - i));
      visit(i, n, math::point_of<VectorMath>(kernel, seen_at(i, n)));
    }
  });
}

/// sums[p] += weight(i) times the slope of ln k in parameter p.
template <class SeenAt, class Weight>
void add_parameter_slopes(const math::KernelFormula& formula, std::int64_t count, const SeenAt& seen_at, const Weight& weight,
                          double* sums) {
  math::with_log_kernel<double>(formula, [&](const auto& kernel) {
    for (std::int64_t i = 0; i < count; ++i) {
      const auto add = [&, w = weight(i)](std::int64_t p, double slope) { sums[p] += w * slope; };
      math::parameter_slopes_of<ScalarMath>(kernel, seen_at(i), add);
    }
  });
}

}  // namespace dpo::cpu
