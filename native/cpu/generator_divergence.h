// The divergence of a generator f that only the caller can evaluate.
#pragma once

#include "native/cpu/softmax_divergence.h"

namespace dpo::cpu {

/// Σ q·f(p/q) from tables of f and f' at the ratios of all points; w = p·f'. Where q = 0 < p the tables hold the limit of f', and
/// the term is p times that.
class GeneratorDivergence final : public LogitDivergence {
 public:
  GeneratorDivergence(std::int64_t columns, const dpo_tensor& values, const dpo_tensor& slopes)
      : LogitDivergence(columns), values_(data(values)), slopes_(data(slopes)) {}

 protected:
  bool surely_finite(const math::RowMoments&) const override { return false; }

  RowTerms terms(const double* x, const double* y, std::int64_t row, const math::RowMoments& found,
                 const WeightedPoints<double>* points, double*) const override {
    const Normalizers sums(found);
    const std::int64_t count = columns();
    const double* values = values_ + row * count;
    const double* slopes = slopes_ + (points ? row * count : 0);
    RowTerms result{.value = 0};
    for (std::int64_t i = 0; i < count; ++i) {
      const double p = std::exp(x[i] - sums.x.log_sum_exp());
      const double q = std::exp(y[i] - sums.y.log_sum_exp());
      if (q > 0) result.value += q * values[i];
      if (q == 0 && p > 0) result.value += p * values[i];
      if (!points) continue;
      const double weight = p > 0 ? p * slopes[i] : 0;
      points->p[i] = p;
      points->weight[i] = weight;
      result.weight_sum += weight;
    }
    return result;
  }

 private:
  static const double* data(const dpo_tensor& table) { return static_cast<const double*>(table.data); }

  const double* values_;
  const double* slopes_;
};

}  // namespace dpo::cpu
