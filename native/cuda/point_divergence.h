// The divergences of native/math/divergences.h, whose points are independent of each other.
#pragma once

#include "native/cuda/divergence_row.h"

namespace dpo::cuda {

/// The functor of a divergence, or of its rows next to disjoint, by a value and not by a type: kernels are compiled for each type.
template <class Divergence>
struct Weighing {
  const Divergence& divergence;
  bool disjoint = false;

  static constexpr bool kKnowsDisjoint = requires(const Divergence& d) { d.for_disjoint(); };

  template <class E, class V>
  __device__ __forceinline__ math::PointTerms<V> at(const math::Ratio<V>& r) const {
    if constexpr (kKnowsDisjoint) {
      if (disjoint) return divergence.for_disjoint().template at<E>(r);
    }
    return divergence.template at<E>(r);
  }
  __device__ __forceinline__ bool wants_disjoint(double term) const {
    if constexpr (kKnowsDisjoint) return !disjoint && divergence.disjoint(term);
    return false;
  }
};

template <class Divergence>
struct PointDivergence {
  static constexpr math::Moment moment = Divergence::moment;
  static constexpr bool kHasMoments = moment != math::Moment::none, kSplitsRows = true;
  static constexpr bool kManyRegisters = Weighing<Divergence>::kKnowsDisjoint;  // both ways of weighing are in the kernel
  Divergence divergence;

  __host__ __device__ double alpha() const {
    if constexpr (moment == math::Moment::blend) return divergence.alpha;
    return 0;
  }

  template <class S, class C>
  __device__ __forceinline__ void run(const DivergenceRow<S, C>& row, const math::RowMoments& found, const Normalizers& sums) const {
    using E = math::ScalarElementary<C>;
    using Ratios = typename DivergenceRow<S, C>::Ratios;
    const bool one_pass = exact(found);
    AllPasses passes{{divergence}};
    if (!one_pass) passes.run(row, sums);
    const math::ValueAndSlope<double> result = one_pass ? value_of(found) : passes.value();
    if (!row.settle(result.value, sums)) return;
    if constexpr (kHasMoments) {
      if (one_pass) {
        const auto of_point = divergence.template gradient<C>(found);
        row.write(sums, Ratios(row.map(), sums), [&](std::int64_t, const math::LogRatio<C>& r) {
          return PointGradient<C>{of_point.template at<E>(r), std::exp(r.lp)};
        });
        return;
      }
    }
    const C slope = static_cast<C>(result.slope), mean = static_cast<C>(passes.total.weight);
    row.write(sums, Ratios(row.map(), sums, passes.error), [&](std::int64_t, const math::LogRatio<C>& r) {
      const math::Ratio<C> ratio = math::ratio_of<E>(r);
      return PointGradient<C>{slope * (passes.weighing.template at<E>(ratio).weight - ratio.p * mean), ratio.p};
    });
  }

 private:
  /// Whether the moments are all that the divergence wants, and have digits enough.
  __device__ __forceinline__ bool exact(const math::RowMoments& found) const {
    if constexpr (kHasMoments) {
      if (divergence.passes != 1 || divergence.cancels(found)) return false;
      const double value = divergence.value(found);
      return value == value;
    }
    return false;
  }

  __device__ __forceinline__ math::ValueAndSlope<double> value_of(const math::RowMoments& found) const {
    if constexpr (kHasMoments) return {divergence.value(found), 1};
    return {0, 0};
  }

  /// The sums over the points.
  struct AllPasses {
    Weighing<Divergence> weighing;
    PointSums total{};
    double error = 0;  // of the log-ratios

    /// Again with the error known, and again for rows next to disjoint.
    template <class S, class C>
    __device__ __forceinline__ void run(const DivergenceRow<S, C>& row, const Normalizers& sums) {
      bool refined = false;
#pragma unroll 1
      for (;;) {
        total = row.sum_of({row.map(), sums, error}, weighing);
        if (!refined && total.term != 0 && std::fabs(total.term) < Divergence::refined_below) {
          refined = true;
          error = row.log_ratio_error(sums);
        } else if (row.wants_gradient() && weighing.wants_disjoint(total.term)) {
          weighing.disjoint = true;
        } else {
          return;
        }
      }
    }

    __device__ __forceinline__ math::ValueAndSlope<double> value() const {
      constexpr double kInfinity = std::numeric_limits<double>::infinity();
      const Divergence& divergence = weighing.divergence;
      const bool infinite = Divergence::may_be_infinite && ((divergence.infinite_where_q_is_0 && total.highest == kInfinity) ||
                                                            (divergence.infinite_where_p_is_0 && total.lowest == -kInfinity));
      return infinite ? math::ValueAndSlope<double>{kInfinity, 1} : divergence.value(total.term);
    }
  };
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
// The precise ones for all rows: what they cost more hides behind the memory.
using PreciseAffinityByP = math::AffinityOf<true, true>;
using PreciseAffinityByQ = math::AffinityOf<false, true>;
#define DPO_AFFINITY_DIVERGENCES(prefix)                 \
  DPO_WIDE_POINT_DIVERGENCES(prefix, PreciseAffinityByP) \
  DPO_WIDE_POINT_DIVERGENCES(prefix, PreciseAffinityByQ)

}  // namespace dpo::cuda
