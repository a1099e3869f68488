// Divergences computed in double precision whatever the logits are stored as: for those whose sums keep too little of single
// precision, or whose price is elsewhere.
#pragma once

#include <memory>

#include "native/cpu/divergence_row.h"
#include "native/cpu/logit_map.h"

namespace dpo::cpu {

/// Rows of logits as a row function of mapped logits z' in double precision sees them.
template <class S, class Map>
class WideDivergence final : public DivergenceRow<S> {
 public:
  using T = compute_t<S>;

  WideDivergence(const Map& map, std::int64_t columns, std::unique_ptr<DivergenceRow<double>> wide)
      : map_(map), columns_(columns), wide_(std::move(wide)) {}

  std::int64_t scratch_size() const override {
    return (3 * padded_columns() + wide_->scratch_size()) * static_cast<std::int64_t>(sizeof(double) / sizeof(T));
  }
  double safe_range() const override { return wide_->safe_range(); }

  RowSums sums(const S* x, const S* y, T* scratch) const override {
    const Buffers buffers = widen(x, y, scratch);
    return wide_->sums(buffers.x, buffers.y, buffers.scratch);
  }

  RowOutcome value(const S* x, const S* y, std::int64_t row, const RowSums& sums, T* scratch) const override {
    const Buffers buffers = widen(x, y, scratch);
    return fitting(wide_->value(buffers.x, buffers.y, row, sums, buffers.scratch));
  }

  RowOutcome gradient(const S* x, const S* y, std::int64_t row, const RowSums& sums, const RowGradient<S>& gradient,
                      T* scratch) const override {
    const Buffers buffers = widen(x, y, scratch);
    const RowGradient<double> wide{buffers.gradient, gradient.upstream, gradient.target_upstream, gradient.target, false};
    const RowOutcome result = fitting(wide_->gradient(buffers.x, buffers.y, row, sums, wide, buffers.scratch));
    if (result.state == RowState::finite || gradient.upstream == 0) narrow(x, buffers.gradient, gradient.to);
    return result;
  }

 private:
  struct Buffers {
    double *x, *y, *gradient, *scratch;
  };

  std::int64_t padded_columns() const { return (columns_ + 7) / 8 * 8; }

  Buffers widen(const S* x, const S* y, T* scratch) const {
    auto* memory = reinterpret_cast<double*>(scratch);
    const std::int64_t size = padded_columns();
    const Buffers buffers{memory, memory + size, memory + 2 * size, memory + 3 * size};
    for (std::int64_t i = 0; i < columns_; ++i) {
      buffers.x[i] = wide_logit(x[i]);
      buffers.y[i] = wide_logit(y[i]);
    }
    return buffers;
  }

  /// z' without the rounding of single precision.
  double wide_logit(S stored) const {
    const double z = static_cast<double>(to_compute(stored));
    if constexpr (Map::caps) {
      const double cap = static_cast<double>(map_.cap);
      return (z < std::numeric_limits<double>::infinity() ? cap * std::tanh(z / cap) : z) * map_.factor;
    } else {
      return z * map_.factor;
    }
  }

  void narrow(const S* x, const double* gradient, S* to) const {
    for (std::int64_t i = 0; i < columns_; ++i) {
      const T slope = map_.slope(map_.capped(broadcast(to_compute(x[i]))))[0];
      to[i] = to_storage<S>(static_cast<T>(gradient[i] * static_cast<double>(slope)));
    }
  }

  static RowOutcome fitting(const RowOutcome& wide) {
    const bool fits = std::fabs(wide.value) <= static_cast<double>(std::numeric_limits<T>::max());
    return fits ? wide : RowOutcome{RowState::infinite, std::numeric_limits<double>::infinity()};
  }

  Map map_;
  std::int64_t columns_;
  std::unique_ptr<DivergenceRow<double>> wide_;
};

}  // namespace dpo::cpu
