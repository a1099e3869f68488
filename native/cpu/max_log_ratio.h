// renyi(∞): the largest log-ratio.
#pragma once

#include "native/cpu/softmax_divergence.h"

namespace dpo::cpu {

/// max ln(p/q) over the points with p > 0; the gradient is 1 at that point, less p. Equal points share it in proportion to p,
/// which is what the gradient of renyi(α) tends to.
class MaxLogRatio final : public LogitDivergence {
 public:
  using LogitDivergence::LogitDivergence;

 protected:
  bool surely_finite(const math::RowMoments&) const override { return false; }

  RowTerms terms(const double* x, const double* y, std::int64_t, const math::RowMoments& found,
                 const WeightedPoints<double>* points, double*) const override {
    const Normalizers sums(found);
    const auto ratios = refined_ratios(x, y, sums);
    const double largest = sum(ratios, math::MassAt{0}, nullptr).highest;
    if (!points) return {.value = largest > 0 ? largest : 0};
    const double mass = sum(ratios, math::MassAt{largest}, points).weight;
    if (!(largest > 0)) return {.value = 0, .slope = 0};
    return {largest, 1 / mass, mass};
  }
};

}  // namespace dpo::cpu
