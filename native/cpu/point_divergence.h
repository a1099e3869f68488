// The row functions of the divergences of native/math/divergences.h: one for each number of passes.
#pragma once

#include <algorithm>

#include "native/cpu/softmax_divergence.h"

namespace dpo::cpu {

template <class S, class Map, class Divergence>
class PointDivergence final : public SoftmaxDivergence<S, Map> {
 public:
  using Base = SoftmaxDivergence<S, Map>;
  using typename Base::T;
  using E = VectorElementary<T>;

  PointDivergence(const Map& map, std::int64_t columns, const Divergence& divergence)
      : Base(map, columns), divergence_(divergence) {}

  double safe_range() const override {
    if constexpr (requires { divergence_.explodes(); }) {
      if (divergence_.explodes()) return Base::largest_exponent() / std::max(1.0, divergence_.k());
    }
    return Base::safe_range();
  }

  RowOutcome value(const S* x, const S* y, std::int64_t row, T* scratch) const override {
    if constexpr (kHasMoments) {
      if (divergence_.passes == 1) {
        const math::RowMoments found = moments(x, y);
        const Normalizers sums{Normalizer(found.x), Normalizer(found.y)};
        const RowState state = Base::state_of(sums);
        if (state != RowState::finite) return {state, 0};
        return exact(found) ? Base::outcome(divergence_.value(found)) : Base::value_of(x, y, row, sums, scratch);
      }
    }
    return Base::value(x, y, row, scratch);
  }

  RowOutcome gradient(const S* x, const S* y, std::int64_t row, const RowGradient<S>& gradient, T* scratch) const override {
    if constexpr (kHasMoments) {
      if (divergence_.passes == 1) {
        const math::RowMoments found = moments(x, y);
        const Normalizers sums{Normalizer(found.x), Normalizer(found.y)};
        const RowState state = Base::state_of(sums);
        if (state != RowState::finite) return {state, 0};
        return exact(found) ? one_pass_gradient(x, y, found, sums, gradient)
                            : Base::gradient_of(x, y, row, sums, gradient, scratch);
      }
    }
    return Base::gradient(x, y, row, gradient, scratch);
  }

 protected:
  RowTerms terms(const S* x, const S* y, std::int64_t, const Normalizers& sums, const WeightedPoints<T>* points,
                 T*) const override {
    PointSums<T> total = Base::sum(Base::ratios(x, y, sums), divergence_, points);
    if (total.term != 0 && std::fabs(total.term) < Divergence::refined_below)
      total = Base::sum(Base::refined_ratios(x, y, sums), divergence_, points);
    const T infinity = std::numeric_limits<T>::infinity();
    const bool infinite = (divergence_.infinite_where_q_is_0 && total.highest == infinity) ||
                          (divergence_.infinite_where_p_is_0 && total.lowest == -infinity);
    if (infinite) return {.value = std::numeric_limits<double>::infinity()};
    if constexpr (requires { divergence_.for_disjoint(); }) {
      if (points && divergence_.disjoint(total.term))
        total.weight = Base::sum(Base::ratios(x, y, sums), divergence_.for_disjoint(), points).weight;
    }
    const math::ValueAndSlope<double> result = divergence_.value(total.term);
    return {result.value, result.slope, total.weight};
  }

 private:
  static constexpr bool kHasMoments = requires { Divergence::moment; };

  /// Whether the row's moments have digits enough.
  bool exact(const math::RowMoments& found) const { return !divergence_.cancels(found) && !std::isnan(divergence_.value(found)); }

  math::RowMoments moments(const S* x, const S* y) const {
    double alpha = 0;
    if constexpr (Divergence::moment == math::Moment::blend) alpha = divergence_.alpha;
    return row_moments<Divergence::moment>(x, y, Base::columns(), Base::map(), alpha);
  }

  RowOutcome one_pass_gradient(const S* x, const S* y, const math::RowMoments& found, const Normalizers& sums,
                               const RowGradient<S>& gradient) const {
    const RowOutcome result = Base::outcome(divergence_.value(found));
    if (gradient.upstream == 0) Base::write_target_gradient(x, sums, gradient);
    if (gradient.upstream == 0 || result.state != RowState::finite) return result;
    const RowRatios<S, Map> ratios = Base::ratios(x, y, sums);
    const auto of_point = divergence_.template gradient<T>(found);
    Base::write(
        x, sums, gradient, [&](std::int64_t i, auto n) __attribute__((always_inline)) {
          const math::LogRatio<Vec<T>> r = ratios.at(i, n);
          return PointGradient<T>{of_point.template at<E>(r.lp, r.lq, clamped_log_ratio<T>(r.t)), exp(r.lp)};
        });
    return result;
  }

  Divergence divergence_;
};

}  // namespace dpo::cpu
