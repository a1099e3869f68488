// What all divergences of two softmax rows share: the log-sum-exps come first, and the gradient in the logits of the policy,
// dD/dx_j = w_j − p_j·Σw, comes last, by way of p and w in working memory.
#pragma once

#include <algorithm>
#include <cmath>

#include "native/cpu/divergence_row.h"
#include "native/cpu/row_moments.h"
#include "native/cpu/row_ratios.h"

namespace dpo::cpu {

/// Probabilities p and weights w of a row, in working memory.
template <class T>
struct WeightedPoints {
  T* p;
  T* weight;
};

template <class T>
struct PointGradient {
  Vec<T> gradient, p;
};

/// D, and what makes its gradient of the points: slope·(w − p·weight_sum).
struct RowTerms {
  double value;
  double slope = 1;
  double weight_sum = 0;
  RowState failure = RowState::finite;
};

/// Sums over the points of a row, and, of a divergence that may be infinite, the extremes of t.
template <class T>
struct PointSums {
  double term = 0, weight = 0;
  T highest, lowest;
};

/// Terms that a lane adds up before they go on in double precision: few, since a sum of thousands would lose the last digits.
inline constexpr std::int64_t kTermsPerLane = 64;

template <bool stores, class S, class Ratios, class Divergence>
PointSums<compute_t<S>> sum_points(const RowRatios<S, Ratios>& row, std::int64_t columns, const Divergence& of_point,
                                   const WeightedPoints<compute_t<S>>& to) {
  // Copies, so that what is stored cannot change them and they stay in registers.
  const RowRatios<S, Ratios> ratios = row;
  const WeightedPoints<compute_t<S>> points = to;
  const Divergence divergence = of_point;
  using T = compute_t<S>;
  using E = VectorElementary<T>;
  const T infinity = std::numeric_limits<T>::infinity();
  Vec<T> highest = broadcast(-infinity), lowest = broadcast(infinity);
  PointSums<T> total;
  constexpr std::int64_t kBlock = kTermsPerLane * lanes<T>;
  for (std::int64_t begin = 0; begin < columns; begin += kBlock) {
    Vec<T> term = {}, weight = {};
    const auto add = [&](std::int64_t i, auto n) __attribute__((always_inline)) {
      const math::LogRatio<Vec<T>> r = ratios.at(i, n);
      if constexpr (Divergence::may_be_infinite) {
        highest = max(r.t, highest);
        lowest = min(r.t, lowest);
      }
      const auto [p, terms] = math::weighted_terms<E>(divergence, r);
      term += terms.term;
      weight += terms.weight;
      if constexpr (stores) {
        store(points.p + i, p);
        store(points.weight + i, terms.weight);
      }
    };
    const std::int64_t end = std::min(begin + kBlock, columns);
    std::int64_t i = begin;
    for (; i + lanes<T> <= end; i += lanes<T>) add(i, AllLanes<T>{});
    if (i < end) add(i, static_cast<int>(end - i));
    total.term += static_cast<double>(horizontal_sum(term));
    total.weight += static_cast<double>(horizontal_sum(weight));
  }
  total.highest = horizontal_max(highest);
  total.lowest = -horizontal_max(-lowest);
  return total;
}

template <class S, class Map>
class SoftmaxDivergence : public DivergenceRow<S> {
 public:
  using T = compute_t<S>;

  SoftmaxDivergence(const Map& map, std::int64_t columns) : map_(map), columns_(columns) {}

  /// Both arrays of WeightedPoints, so that vectors may be read and written past the last element.
  std::int64_t scratch_size() const override { return 2 * points_size(); }
  double safe_range() const override { return math::surely_fits; }

  RowSums sums(const S* x, const S* y, T*) const override { return checked(moments(x, y)); }

  RowSums checked(const math::RowMoments& found) const {
    const Normalizers normalizers(found);
    if (!std::isfinite(normalizers.x.log_sum_exp())) return {found, RowState::bad_policy, false};
    if (!std::isfinite(normalizers.y.log_sum_exp())) return {found, RowState::bad_reference, false};
    return {found, RowState::finite, surely_finite(found)};
  }

  RowOutcome value(const S* x, const S* y, std::int64_t row, const RowSums& sums, T* scratch) const override {
    return outcome(terms(x, y, row, sums.moments, nullptr, scratch));
  }

  RowOutcome gradient(const S* x, const S* y, std::int64_t row, const RowSums& sums, const RowGradient<S>& gradient,
                      T* scratch) const override {
    const Normalizers normalizers(sums.moments);
    if (gradient.upstream == 0) {
      const RowOutcome result = value(x, y, row, sums, scratch);
      write_target_gradient(x, normalizers, gradient);
      return result;
    }
    const WeightedPoints<T> points{scratch, scratch + points_size()};
    const RowTerms found = terms(x, y, row, sums.moments, &points, scratch + 2 * points_size());
    const RowOutcome result = outcome(found);
    if (result.state != RowState::finite) return result;
    const T slope = static_cast<T>(found.slope), mean = static_cast<T>(found.weight_sum);
    write(
        x, normalizers, gradient, [points, slope, mean](std::int64_t i, auto n) __attribute__((always_inline)) {
          const Vec<T> p = load_lanes(points.p + i, n);
          return PointGradient<T>{slope * (load_lanes(points.weight + i, n) - p * mean), p};
        });
    return result;
  }

 protected:
  /// The log-sum-exps of both rows, and what else the divergence takes from the first pass.
  virtual math::RowMoments moments(const S* x, const S* y) const {
    return row_moments<math::Moment::none>(x, y, columns_, map_, 0);
  }

  /// Whether these moments rule out an infinite value or gradient, and every other failure.
  virtual bool surely_finite(const math::RowMoments&) const { return true; }

  /// D by all its passes; with p and w when `points` are wanted. `scratch` is what lies behind the points.
  virtual RowTerms terms(const S* x, const S* y, std::int64_t row, const math::RowMoments& found, const WeightedPoints<T>* points,
                         T* scratch) const = 0;

  const Map& map() const { return map_; }
  std::int64_t columns() const { return columns_; }
  std::int64_t points_size() const { return (columns_ + lanes<T> - 1) / lanes<T> * lanes<T>; }

  /// Sums over the row of divergence.at(point), with p and weights stored if `points` are given.
  template <class Ratios, class Divergence>
  PointSums<T> sum(const RowRatios<S, Ratios>& ratios, const Divergence& divergence, const WeightedPoints<T>* points) const {
    return points ? sum_points<true>(ratios, columns_, divergence, *points) : sum_points<false>(ratios, columns_, divergence, {});
  }

  using Ratios = math::SoftmaxRatios<T, Map>;

  RowRatios<S, Ratios> ratios(const S* x, const S* y, const Normalizers& sums) const { return {x, y, Ratios(map_, sums)}; }

  /// The same when all t are known to be a little too large: Σ (p − q) is 0, and what is computed for it is that error.
  RowRatios<S, Ratios> refined_ratios(const S* x, const S* y, const Normalizers& sums) const {
    return {x, y, Ratios(map_, sums, sum(ratios(x, y, sums), math::Differences{}, nullptr).term)};
  }

  static RowOutcome outcome(const RowTerms& found) {
    return found.failure == RowState::finite ? outcome(found.value) : RowOutcome{found.failure, 0};
  }

  static RowOutcome outcome(double value) {
    const bool fits = std::fabs(value) <= static_cast<double>(std::numeric_limits<T>::max());
    return fits ? RowOutcome{RowState::finite, value} : RowOutcome{RowState::infinite, std::numeric_limits<double>::infinity()};
  }

  /// Writes the gradient of target_upstream·ln p[target] alone.
  void write_target_gradient(const S* x, const Normalizers& sums, const RowGradient<S>& gradient) const {
    if (gradient.target_upstream == 0) {
      std::fill_n(gradient.to, columns_, S{});
      return;
    }
    const S target_logit = x[gradient.target];
    softmax_row_vjp<Write::cached>(x, columns_, map_, sums.x.log_sum_exp(), gradient.target_upstream, gradient.to);
    gradient.to[gradient.target] = target_vjp(target_logit, map_, sums.x.log_sum_exp(), gradient.target_upstream);
  }

  /// Writes (upstream·g − target_upstream·p)·dz'/dz; point_at(i, n) gives g = dD/dz' and p.
  template <class PointAt>
  void write(const S* x, const Normalizers& sums, const RowGradient<S>& gradient, const PointAt& point_at) const {
    const std::int64_t peak = peak_of(x, sums);
    // The logits may be where the gradient goes.
    const ExactPoint at_peak = peak >= 0 ? exact_point(x, peak, sums, point_at) : ExactPoint{};
    const bool has_target = gradient.target_upstream != 0;
    const ExactPoint at_target = has_target ? exact_point(x, gradient.target, sums, point_at) : ExactPoint{};
    const double excess = gradient.streamed ? write_points<Write::streamed>(x, gradient, point_at)
                                            : write_points<Write::cached>(x, gradient, point_at);
    // g sums to 0. Where p is next to 1, g is a small difference of large numbers: what is left of the sum is its error.
    if (peak >= 0) gradient.to[peak] = at_peak.gradient(gradient, excess, peak == gradient.target && has_target);
    if (has_target && gradient.target != peak) gradient.to[gradient.target] = at_target.gradient(gradient, 0, true);
  }

 private:
  /// A point in double precision.
  struct ExactPoint {
    double g, log_prob, slope;

    S gradient(const RowGradient<S>& gradient, double excess, bool is_target) const {
      // 1 − p by expm1, since p may be next to 1.
      const double of_target = -gradient.target_upstream * (is_target ? std::expm1(log_prob) : std::exp(log_prob));
      return to_storage<S>(static_cast<T>((gradient.upstream * (g - excess) + of_target) * slope));
    }
  };

  template <class PointAt>
  ExactPoint exact_point(const S* x, std::int64_t i, const Normalizers& sums, const PointAt& point_at) const {
    const T z = to_compute(x[i]);
    return {static_cast<double>(point_at(i, 1).gradient[0]), sums.x.log_prob(map_logit(map_, z)),
            static_cast<double>(map_.slope(map_.capped(broadcast(z)))[0])};
  }

  /// The place of a logit that has more than about half of the mass, or −1.
  std::int64_t peak_of(const S* x, const Normalizers& sums) const {
    constexpr double kHalf = 0.7;
    if (sums.x.log_sum > kHalf) return -1;
    Vec<T> largest = broadcast(-std::numeric_limits<T>::infinity());
    std::int64_t whole = columns_ / lanes<T> * lanes<T>;
    for (std::int64_t i = 0; i < whole; i += lanes<T>) largest = max(load(x + i), largest);
    T highest = horizontal_max(largest);
    for (std::int64_t i = whole; i < columns_; ++i) highest = std::max(highest, to_compute(x[i]));
    std::int64_t peak = 0;
    while (to_compute(x[peak]) != highest) ++peak;
    return peak;
  }

  /// Returns Σ g.
  template <Write kind, class PointAt>
  double write_points(const S* x, const RowGradient<S>& gradient, const PointAt& of_point) const {
    // Copies, as in sum_points.
    const PointAt point_at = of_point;
    const Map map = map_;
    const T upstream = static_cast<T>(gradient.upstream), target_upstream = static_cast<T>(gradient.target_upstream);
    Vec<T> block_sum = {};
    double sum = 0;
    const auto gradient_at = [&](std::int64_t i, auto n) __attribute__((always_inline)) {
      const PointGradient<T> point = point_at(i, n);
      block_sum += point.gradient;
      if (i / lanes<T> % kTermsPerLane == 0) {
        sum += static_cast<double>(horizontal_sum(block_sum));
        block_sum = Vec<T>{};
      }
      const Vec<T> slope = map.slope(map.capped(load_lanes(x + i, n)));
      return (upstream * point.gradient - target_upstream * point.p) * slope;
    };
    // No vector may reach over the end of a block of the first pass.
    for (std::int64_t begin = 0; begin < columns_; begin += kPairBlock) {
      write_row<kind>(gradient.to + begin, std::min(kPairBlock, columns_ - begin),
                      [&](std::int64_t i, auto n) __attribute__((always_inline)) { return gradient_at(begin + i, n); });
    }
    return sum + static_cast<double>(horizontal_sum(block_sum));
  }

  Map map_;
  std::int64_t columns_;
};

/// For what is computed from logits z' of double precision.
class LogitDivergence : public SoftmaxDivergence<double, PlainLogits<double>> {
 public:
  explicit LogitDivergence(std::int64_t columns) : SoftmaxDivergence({}, columns) {}
};

}  // namespace dpo::cpu
