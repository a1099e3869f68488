// The divergences of native/math/divergences.h, whose points are independent of each other.
#pragma once

#include "native/cuda/divergence_row.h"

namespace dpo::cuda {

template <class Divergence>
struct PointDivergence {
  static constexpr math::Moment moment = Divergence::moment;
  static constexpr bool kHasMoments = moment != math::Moment::none;
  Divergence divergence;

  __host__ __device__ double alpha() const {
    if constexpr (moment == math::Moment::blend) return divergence.alpha;
    return 0;
  }

  template <class Row>
  __device__ __forceinline__ void run(const Row& row, const math::RowMoments& found, const Normalizers& sums) const {
    if constexpr (kHasMoments) {
      if (exact(found)) {
        run_one_pass(row, found, sums);
        return;
      }
    }
    run_all_passes(row, sums);
  }

 private:
  /// Whether the moments are all that the divergence wants, and have digits enough.
  __device__ __forceinline__ bool exact(const math::RowMoments& found) const {
    if (divergence.passes != 1 || divergence.cancels(found)) return false;
    const double value = divergence.value(found);
    return value == value;
  }

  template <class S, class C>
  __device__ __forceinline__ void run_one_pass(const DivergenceRow<S, C>& row, const math::RowMoments& found,
                                               const Normalizers& sums) const {
    using E = math::ScalarElementary<C>;
    const RowState state = row.set_value(divergence.value(found));
    if (!row.wants_gradient()) {
      row.write_target_gradient(sums);
      return;
    }
    if (state != RowState::finite) return;
    const auto of_point = divergence.template gradient<C>(found);
    row.write(sums, {row.map(), sums}, [&](std::int64_t, const math::LogRatio<C>& r) {
      return PointGradient<C>{of_point.template at<E>(r), std::exp(r.lp)};
    });
  }

  template <class S, class C>
  __device__ __forceinline__ void run_all_passes(const DivergenceRow<S, C>& row, const Normalizers& sums) const {
    using Ratios = typename DivergenceRow<S, C>::Ratios;
    double error = 0;
    PointSums total = row.sum_of(Ratios(row.map(), sums), divergence);
    if (total.term != 0 && std::fabs(total.term) < Divergence::refined_below) {
      error = row.log_ratio_error(sums);
      total = row.sum_of(Ratios(row.map(), sums, error), divergence);
    }
    const Ratios ratios(row.map(), sums, error);
    if constexpr (requires { requires !Divergence::is_precise; }) {
      if (divergence.wants_precise(total.term)) {
        total = row.sum_of(ratios, divergence.precise());
        finish(row, sums, ratios, divergence.precise(), total);
        return;
      }
    }
    if constexpr (requires { divergence.for_disjoint(); }) {
      if (row.wants_gradient() && divergence.disjoint(total.term)) {
        total.weight = row.sum_of(ratios, divergence.for_disjoint()).weight;
        finish(row, sums, ratios, divergence.for_disjoint(), total);
        return;
      }
    }
    finish(row, sums, ratios, divergence, total);
  }

  /// `weighing`: the functor whose weights were summed.
  template <class S, class C, class Weighing>
  __device__ __forceinline__ void finish(const DivergenceRow<S, C>& row, const Normalizers& sums,
                                         const typename DivergenceRow<S, C>::Ratios& ratios, const Weighing& weighing,
                                         const PointSums& total) const {
    using E = math::ScalarElementary<C>;
    const double infinity = std::numeric_limits<double>::infinity();
    const bool infinite = Divergence::may_be_infinite && ((divergence.infinite_where_q_is_0 && total.highest == infinity) ||
                                                          (divergence.infinite_where_p_is_0 && total.lowest == -infinity));
    const math::ValueAndSlope<double> result = infinite ? math::ValueAndSlope<double>{infinity, 1} : divergence.value(total.term);
    const RowState state = row.set_value(result.value);
    if (!row.wants_gradient()) {
      row.write_target_gradient(sums);
      return;
    }
    if (state != RowState::finite) return;
    const C slope = static_cast<C>(result.slope), mean = static_cast<C>(total.weight);
    row.write(sums, ratios, [&](std::int64_t, const math::LogRatio<C>& r) {
      const math::Ratio<C> ratio = math::ratio_of<E>(r);
      return PointGradient<C>{slope * (weighing.template at<E>(ratio).weight - ratio.p * mean), ratio.p};
    });
  }
};

// Kernels are compiled in the file of their family; these name them there, and elsewhere with `extern` before them.
#define DPO_POINT_DIVERGENCE(S, C, Divergence)                                                                            \
  template void launch_rows<S, C, PointDivergence<Divergence>>(Call&, const DivergenceRows<S>&, const dpo_logit_options&, \
                                                               const PointDivergence<Divergence>&);
#define DPO_POINT_DIVERGENCES(prefix, Divergence)         \
  prefix DPO_POINT_DIVERGENCE(float, float, Divergence)   \
  prefix DPO_POINT_DIVERGENCE(double, double, Divergence) \
  prefix DPO_POINT_DIVERGENCE(__half, float, Divergence)  \
  prefix DPO_POINT_DIVERGENCE(__nv_bfloat16, float, Divergence)
#define DPO_WIDE_POINT_DIVERGENCES(prefix, Divergence)    \
  DPO_POINT_DIVERGENCES(prefix, Divergence)               \
  prefix DPO_POINT_DIVERGENCE(float, double, Divergence)  \
  prefix DPO_POINT_DIVERGENCE(__half, double, Divergence) \
  prefix DPO_POINT_DIVERGENCE(__nv_bfloat16, double, Divergence)

#define DPO_KL_DIVERGENCES(prefix)                            \
  DPO_POINT_DIVERGENCES(prefix, math::KullbackLeibler)        \
  DPO_POINT_DIVERGENCES(prefix, math::ForwardKullbackLeibler) \
  DPO_POINT_DIVERGENCES(prefix, math::Jeffreys)
#define DPO_MIXTURE_DIVERGENCES(prefix)               \
  DPO_POINT_DIVERGENCES(prefix, math::TotalVariation) \
  DPO_POINT_DIVERGENCES(prefix, math::JensenShannon)  \
  DPO_POINT_DIVERGENCES(prefix, math::GeneralizedJensenShannon)
using PreciseAffinity = math::AffinityOf<true, true>;
#define DPO_AFFINITY_DIVERGENCES(prefix)                \
  DPO_WIDE_POINT_DIVERGENCES(prefix, math::AffinityByP) \
  DPO_WIDE_POINT_DIVERGENCES(prefix, math::AffinityByQ) \
  DPO_WIDE_POINT_DIVERGENCES(prefix, PreciseAffinity)

}  // namespace dpo::cuda
