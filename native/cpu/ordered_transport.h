// The Wasserstein distance of two distributions over ordered points.
#pragma once

#include "native/cpu/softmax_divergence.h"

namespace dpo::cpu {

/// Σ_j |F_j|^e with F the difference of the cumulative sums of p and q. ∂D/∂p_i = Σ_{j ≥ i} e·|F_j|^(e−1)·sign F_j.
class OrderedTransport final : public LogitDivergence {
 public:
  OrderedTransport(std::int64_t columns, double exponent) : LogitDivergence(columns), exponent_(exponent) {}

 protected:
  RowTerms terms(const double* x, const double* y, std::int64_t, const math::RowMoments& found,
                 const WeightedPoints<double>* points, double* scratch) const override {
    const Normalizers sums(found);
    const WeightedPoints<double> own{scratch, scratch + points_size()};
    const WeightedPoints<double>& stored = points ? *points : own;
    const double excess = sum(ratios(x, y, sums), math::Differences{}, &stored).weight;
    // p and q are normalised to within rounding, which a long row would add up: the excess goes back to where it came from.
    const auto difference = [&](std::int64_t j) { return stored.weight[j] - excess * stored.p[j]; };
    RowTerms result{.value = 0};
    double cumulative = 0;
    for (std::int64_t j = 0; j + 1 < columns(); ++j) {
      cumulative += difference(j);
      result.value += power(std::fabs(cumulative), exponent_);
    }
    if (points) result.weight_sum = weigh(stored, cumulative, difference);
    return result;
  }

 private:
  double power(double base, double exponent) const {
    if (exponent == 1) return base;
    return exponent == 0 ? 1 : std::pow(base, exponent);
  }

  /// Puts w = p·∂D/∂p in the place of p − q, from the last point but one to the first; `cumulative` is F there.
  template <class Difference>
  double weigh(const WeightedPoints<double>& points, double cumulative, const Difference& difference) const {
    double slope = 0, sum = 0;
    points.weight[columns() - 1] = 0;
    for (std::int64_t j = columns() - 2; j >= 0; --j) {
      const double sign = cumulative > 0 ? 1 : (cumulative < 0 ? -1 : 0);
      slope += exponent_ * power(std::fabs(cumulative), exponent_ - 1) * sign;
      cumulative -= difference(j);
      const double weight = points.p[j] * slope;
      points.weight[j] = weight;
      sum += weight;
    }
    return sum;
  }

  double exponent_;
};

}  // namespace dpo::cpu
