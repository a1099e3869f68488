// The row functions of the divergences of native/math/divergences.h: one for each number of passes.
#pragma once

#include <algorithm>
#include <cmath>

#include "native/cpu/softmax_divergence.h"
#include "native/math/divergences.h"

namespace dpo::cpu {

template <class S, class Map, class Divergence>
class PointDivergence final : public SoftmaxDivergence<S, Map> {
 public:
  using Base = SoftmaxDivergence<S, Map>;
  using typename Base::T;
  using E = VectorElementary<T>;

  PointDivergence(const Map& map, std::int64_t columns, const Divergence& divergence)
      : Base(map, columns), divergence_(divergence) {}

  std::int64_t scratch_size() const override {
    return Base::scratch_size() + bytes_of_blocks() / static_cast<std::int64_t>(sizeof(T));
  }

  double safe_range() const override {
    if constexpr (requires { divergence_.explodes(); }) {
      if (divergence_.explodes()) return std::log(math::surely_fits) / std::max(1.0, divergence_.k());
    }
    return Base::safe_range();
  }

  RowOutcome value(const S* x, const S* y, std::int64_t row, const RowSums& sums, T* scratch) const override {
    if constexpr (kHasMoments) {
      if (exact(sums.moments)) return Base::outcome(divergence_.value(sums.moments));
    }
    return Base::value(x, y, row, sums, scratch);
  }

  RowOutcome gradient(const S* x, const S* y, std::int64_t row, const RowSums& sums, const RowGradient<S>& gradient,
                      T* scratch) const override {
    if constexpr (kHasMoments) {
      if (gradient.upstream != 0 && exact(sums.moments)) {
        // Once more, for the same digits whether or not somebody has looked first.
        if constexpr (kLeavesExps) {
          return whole_gradient(x, y, row, gradient, scratch);
        } else {
          return one_pass_gradient(x, y, sums.moments, gradient);
        }
      }
    }
    return Base::gradient(x, y, row, sums, gradient, scratch);
  }

  RowOutcome whole_gradient(const S* x, const S* y, std::int64_t row, const RowGradient<S>& gradient, T* scratch) const override {
    if constexpr (kLeavesExps) {
      if (divergence_.passes == 1 && gradient.upstream != 0) {
        const BlocksOfRow blocks = blocks_in(scratch);
        const RowSums found = Base::checked(row_moments<kMoment>(x, y, Base::columns(), Base::map(), alpha(), blocks.left));
        if (found.state != RowState::finite) return {found.state, 0};
        return exact(found.moments) ? gradient_of_left(x, found.moments, gradient, blocks)
                                    : Base::gradient(x, y, row, found, gradient, scratch);
      }
    }
    return Base::whole_gradient(x, y, row, gradient, scratch);
  }

 protected:
  math::RowMoments moments(const S* x, const S* y) const override {
    return row_moments<kMoment>(x, y, Base::columns(), Base::map(), alpha());
  }

  bool surely_finite(const math::RowMoments& found) const override {
    if constexpr (requires { divergence_.surely_finite(found); }) return divergence_.surely_finite(found);
    if constexpr (kHasMoments) return std::fabs(divergence_.value(found)) < math::surely_fits;
    return true;
  }

  RowTerms terms(const S* x, const S* y, std::int64_t, const math::RowMoments& found, const WeightedPoints<T>* points,
                 T*) const override {
    const Normalizers sums(found);
    PointSums<T> total = first_sums(x, y, found, sums, points);
    if constexpr (requires { requires !Divergence::is_precise; }) {
      if (divergence_.wants_precise(total.term)) total = Base::sum(Base::ratios(x, y, sums), divergence_.precise(), points);
    }
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
  static constexpr bool kHasMoments = Divergence::moment != math::Moment::none;
  /// Whether DistantRatios will do for distant rows. In double precision, and after a cap, they would save little.
  static constexpr bool kHasDistantRatios = sizeof(T) == 4 && !Map::caps && !requires { requires Divergence::is_precise; };
  static constexpr bool kHasDistant = kHasDistantRatios && requires(const Divergence& divergence) { divergence.for_distant(); };

  using DistantRatios = RowRatios<S, math::DistantRatios<T, Map>>;

  DistantRatios distant_ratios(const S* x, const S* y, const Normalizers& sums) const {
    return {x, y, math::DistantRatios<T, Map>(Base::map(), sums)};
  }

  static constexpr math::Moment moment_of_first_pass() {
    if constexpr (kHasDistant) return decltype(std::declval<Divergence>().for_distant())::moment;
    return Divergence::moment;
  }
  static constexpr math::Moment kMoment = moment_of_first_pass();

  PointSums<T> first_sums(const S* x, const S* y, const math::RowMoments& found, const Normalizers& sums,
                          const WeightedPoints<T>* points) const {
    if constexpr (kHasDistant) {
      const auto distant = divergence_.for_distant();
      if (distant.likely(found) && !math::are_far_apart(sums)) {
        const PointSums<T> total = Base::sum(distant_ratios(x, y, sums), distant, points);
        if (distant.holds(total.term)) return total;
      }
    }
    const auto ratios = Base::ratios(x, y, sums);
    const PointSums<T> total = Base::sum(ratios, divergence_, points);
    const bool refined = total.term != 0 && std::fabs(total.term) < Divergence::refined_below;
    return refined ? Base::sum(Base::refined_ratios(x, y, sums), divergence_, points) : total;
  }

  double alpha() const {
    if constexpr (Divergence::moment == math::Moment::blend) return divergence_.alpha;
    return 0;
  }

  static constexpr bool kLeavesExps =
      requires(const Divergence& divergence, const math::RowMoments& row) { divergence.gradient_of_exps(row); };

  /// What whole_gradient() keeps of a row in working memory, block by block.
  struct BlocksOfRow {
    LeftExps<T> left;
    math::ExpWeights<T>* weights;
  };

  std::int64_t block_count() const { return (Base::columns() + kPairBlock - 1) / kPairBlock; }

  std::int64_t bytes_of_blocks() const {
    if constexpr (!kLeavesExps) return 0;
    return block_count() * static_cast<std::int64_t>(sizeof(math::BlockMaxima) + sizeof(math::ExpWeights<T>));
  }

  BlocksOfRow blocks_in(T* scratch) const {
    auto* maxima = reinterpret_cast<math::BlockMaxima*>(scratch + Base::scratch_size());
    return {{scratch, scratch + Base::points_size(), maxima}, reinterpret_cast<math::ExpWeights<T>*>(maxima + block_count())};
  }

  RowOutcome gradient_of_left(const S* x, const math::RowMoments& found, const RowGradient<S>& gradient,
                              const BlocksOfRow& blocks) const {
    const RowOutcome result = Base::outcome(divergence_.value(found));
    if (result.state != RowState::finite) return result;
    const auto of_exps = divergence_.gradient_of_exps(found);
    for (std::int64_t block = 0; block < block_count(); ++block)
      blocks.weights[block] = of_exps.template of_block<T>(blocks.left.maxima[block]);
    Base::write(x, Normalizers(found), gradient, [blocks](std::int64_t i, auto n) __attribute__((always_inline)) {
      const math::ExpWeights<T>& weights = blocks.weights[i / kPairBlock];
      const Vec<T> e = load_lanes(blocks.left.x + i, n), blend = load_lanes(blocks.left.blend + i, n);
      return PointGradient<T>{weights.of_x * e + weights.of_blend * blend, weights.probability * e};
    });
    return result;
  }

  /// Whether the moments are all that the divergence wants, and have digits enough.
  bool exact(const math::RowMoments& found) const {
    return divergence_.passes == 1 && !divergence_.cancels(found) && !std::isnan(divergence_.value(found));
  }

  RowOutcome one_pass_gradient(const S* x, const S* y, const math::RowMoments& found, const RowGradient<S>& gradient) const {
    const RowOutcome result = Base::outcome(divergence_.value(found));
    if (result.state != RowState::finite) return result;
    const Normalizers sums(found);
    if constexpr (kHasDistantRatios) {
      if (!math::are_far_apart(sums)) {
        write_gradient(distant_ratios(x, y, sums), x, found, gradient);
        return result;
      }
    }
    write_gradient(Base::ratios(x, y, sums), x, found, gradient);
    return result;
  }

  template <class Ratios>
  void write_gradient(const Ratios& ratios, const S* x, const math::RowMoments& found, const RowGradient<S>& gradient) const {
    const auto of_point = divergence_.template gradient<T>(found);
    Base::write(x, Normalizers(found), gradient, [ratios, of_point](std::int64_t i, auto n) __attribute__((always_inline)) {
      math::LogRatio<Vec<T>> r = ratios.at(i, n);
      r.t = math::clamped_log_ratio<E>(r.t);
      return PointGradient<T>{of_point.template at<E>(r), E::probability(r.lp)};
    });
  }

  Divergence divergence_;
};

}  // namespace dpo::cpu
