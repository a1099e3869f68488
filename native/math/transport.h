// Formulas of optimal transport on a cost (SPEC 4, wasserstein). V is a number or a vector of numbers.
//
// Sinkhorn:  OT_ε(p, q) = min_P ⟨P, C⟩ + ε·KL(P ‖ p⊗q), the plans P having marginals p and q. Its dual potentials f, g meet
//            f_i = −ε ln Σ_j q_j e^((g_j − C_ij)/ε) and likewise g from f; ∂OT_ε/∂p = f up to a constant.
// Debiased:  S(p, q) = OT(p, q) − ½·OT(p, p) − ½·OT(q, q).
// Peyré & Cuturi (2019), "Computational Optimal Transport"; Feydy et al. (2019), "Interpolating between Optimal Transport and MMD
// using Sinkhorn Divergences".
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>

#include "native/math/host_device.h"
#include "native/math/log_sum_exp.h"
#include "native/math/transport_kinds.h"

namespace dpo::math {

/// Points with less mass than this are left out. They could not change a result, but their logarithms would widen the range of
/// the kernel.
inline constexpr double kLeastMass = 1e-100;

/// The costs between points with mass.
struct CostRange {
  double lowest = std::numeric_limits<double>::infinity(), highest = -std::numeric_limits<double>::infinity();
  bool finite = true;

  DPO_HD void add(double cost) { merge({cost, cost, std::fabs(cost) <= std::numeric_limits<double>::max()}); }
  DPO_HD void merge(const CostRange& other) {
    lowest = other.lowest < lowest ? other.lowest : lowest;
    highest = other.highest > highest ? other.highest : highest;
    finite = finite && other.finite;
  }
  DPO_HD double width() const { return highest - lowest; }
  /// Not so wide that sums of a few costs are infinite.
  DPO_HD bool usable() const { return finite && width() <= 1e300; }
};

/// The potential −ε ln Σ_j e^(ln m_j + φ_j − C_j/ε) of a point without mass, from the other side's `count` points, whose
/// potentials are in units of ε; cost(j) = C_j.
template <class Numbers, class Cost>
DPO_HD_INLINE double soft_minimum(double epsilon, std::size_t count, const Numbers& log_mass, const Numbers& potential,
                                  const Cost& cost) {
  LogSumExp<double> sum;
  for (std::size_t j = 0; j < count; ++j) sum.add((log_mass[j] + potential[j]) - cost(j) / epsilon);
  return -epsilon * sum.value();
}

/// The distance of two embeddings from the square of the distance of their rows, which are unit vectors for cosine: 1 − cos =
/// ½‖û − v̂‖², which does not cancel. With `is_zero`, either was a row of zeros, whose cosine counts as 0.
DPO_HD inline double embedding_distance(TransportMetric metric, double square, bool is_zero) {
  if (metric == TransportMetric::euclidean) return std::sqrt(square);
  if (metric == TransportMetric::sqeuclidean) return square;
  return is_zero ? 1 : square / 2;
}

/// S or its potential, from those of the transport and of a self-transport: the latter is subtracted once for p, once for q.
DPO_HD inline double less_self(double of_pair, double of_self) { return of_pair - of_self / 2; }

/// What a self-transport takes off the potential of the measure on which it depends twice. For a symmetric cost both derivatives
/// are the same.
DPO_HD inline double self_potential(bool symmetric, double f, double g) { return symmetric ? f : (f + g) / 2; }

}  // namespace dpo::math
