// Sinkhorn's iteration on logarithms: everything here is in units of ε, φ = f/ε and γ = g/ε.
//
// Most steps are matrix products with a kernel e^(φ⁰_i + γ⁰_j − C_ij/ε) that holds potentials absorbed some steps ago, and so
// neither overflows nor loses what counts; when the potentials have drifted too far from those, one step is done by log-sum-exp
// and the kernel is made anew (Schmitzer 2019, "Stabilized sparse scaling algorithms for entropy regularized transport
// problems"). ε goes down from the range of the costs. Steps are over-relaxed by what the observed rate of convergence asks for
// (Lehmann et al. 2022, "A note on overrelaxation in the Sinkhorn algorithm"). Where even that takes long, which is where ε is
// small, Newton's method on the dual finishes (Brauer et al. 2017, "A Sinkhorn-Newton method for entropic optimal transport").
#pragma once

#include <cmath>
#include <cstdint>

#include "native/math/host_device.h"

namespace dpo::math {

/// The two measures of a transport.
enum class Measure { p, q };

struct SinkhornOptions {
  double epsilon, tolerance;
  std::int64_t max_iterations;
};

/// Formulas of single elements; V is a number or a vector of numbers, E its elementary functions.
namespace sinkhorn {

inline constexpr double kMaxDrift = 100;    // of potentials from the absorbed ones
inline constexpr double kNewtonReach = 20;  // of a first step, for any potential
inline constexpr double kRidge = 1e-13;     // added to the scaled Hessian, whose eigenvalues are in [0, 1]

/// ln(p_j e^φ_j) − C/ε with rate = 1/ε, whose log-sum-exp is −γ.
template <class V>
DPO_HD_INLINE V exponent(double log_mass, double potential, V cost, double rate) {
  return (log_mass + potential) - rate * cost;
}

/// e^(φ⁰ + γ⁰ − C/ε).
template <class E, class V>
DPO_HD_INLINE V kernel(double absorbed, V other_absorbed, V cost, double rate) {
  return E::exp((absorbed + other_absorbed) - rate * cost);
}

/// p·e^(φ − φ⁰): what multiplies the kernel.
template <class E, class V>
DPO_HD_INLINE V weight(V mass, V potential, V absorbed) {
  return mass * E::exp(potential - absorbed);
}

/// −ln Σ_j p_j e^(φ_j − C_j/ε), from the weighted sum of a column of the kernel.
template <class E, class V>
DPO_HD_INLINE V fitted(V absorbed, V weighted_sum) {
  return absorbed - E::log(weighted_sum);
}

/// Of the L1 distance from a marginal: each mass is off by the factor e^(potential − target).
template <class E, class V>
DPO_HD_INLINE V marginal_error(V mass, V potential, V target) {
  // e^500 is error enough, and e^1000 would be infinite, of which points without mass could not have none.
  const V distance = potential - target, most = V{} + 500.0;
  const V excess = E::exp(most < distance ? most : distance) - 1.0;
  return mass * (excess > V{} ? excess : -excess);
}

/// potential + factor·(target − potential).
template <class V>
DPO_HD_INLINE V moved(V potential, V target, double factor) {
  return factor == 1 ? target : potential + factor * (target - potential);
}

/// The dual's gradient in γ is r = q − c, where c is the marginal of the plan P whose rows meet p, and its Hessian is
/// −(diag c − Pᵀ diag(1/p) P) = −S(I − MᵀM)S with S = diag √c and M_ij = P_ij/√(p_i c_j). The direction is S⁻¹(I − MᵀM)⁻¹S⁻¹r.
/// Where c is far below q the quadratic says nothing, and q's part in its place in S keeps the step within bounds.
struct NewtonPoint {
  double scale;     // an element of S⁻¹
  double gradient;  // of S⁻¹r
};
DPO_HD inline NewtonPoint newton_point(double mass, double potential, double target) {
  const double marginal = mass * std::exp(potential - target), least = mass / kNewtonReach;
  const double scale = 1 / std::sqrt(marginal > least ? marginal : least);
  return {scale, (mass - marginal) * scale};
}

/// M_ij = row_factor_i·kernel_ij·column_factor_j.
DPO_HD inline double row_factor(double mass, double potential, double absorbed) {
  return std::sqrt(mass) * std::exp(potential - absorbed);
}
DPO_HD inline double column_factor(double mass, double potential, double absorbed, double scale) {
  return mass * std::exp(potential - absorbed) * scale;
}

/// An element of I − MᵀM and the ridge.
DPO_HD inline double hessian(bool diagonal, double product) { return diagonal ? (1 + kRidge) - product : -product; }

/// A direction less its centre, which changes no plan, and no longer than `reach` because the dual is of second order only
/// nearby.
DPO_HD inline double bounded(double direction, double centre, double reach) {
  const double d = direction - centre, below = d < reach ? d : reach;
  return below > -reach ? below : -reach;
}

/// What a point adds to the slope of the dual along a direction.
DPO_HD inline double slope(double mass, double potential, double target, double direction) {
  return mass * (1 - std::exp(potential - target)) * direction;
}

}  // namespace sinkhorn

/// How far steps go beyond what plain Sinkhorn iterations do, from the errors that they leave.
class Relaxation {
 public:
  DPO_HD double factor() const { return factor_; }

  DPO_HD_INLINE void observe(double error) {
    if (count_ == 0) first_ = error;
    if (++count_ < kWindow) return;
    adapt(std::pow(error / first_, 1.0 / (kWindow - 1)));
    count_ = 0;
  }

 private:
  static constexpr int kWindow = 8;

  /// `rate` is what one iteration leaves of the error. With relaxation ω and the plain iteration's rate θ it is the larger root
  /// of (rate + ω − 1)² = rate·ω²·θ, or ω − 1 when that has no real root; ω = 2/(1 + √(1 − θ)) makes it the smallest.
  DPO_HD_INLINE void adapt(double rate) {
    constexpr double kMost = 1.9;  // with 2 nothing settles
    const double excess = factor_ - 1;
    if (!(rate < 1)) {
      factor_ = 1;
    } else if (rate > excess) {
      const double rest = 1 - (rate + excess) * (rate + excess) / (rate * factor_ * factor_);
      const double best = 2 / (1 + std::sqrt(rest > 0 ? rest : 0));
      factor_ = best < kMost ? best : kMost;
    }
  }

  double factor_ = 1, first_ = 0;
  int count_ = 0;
};

/// The course of the iteration. Measures is a backend's hold of both measures: masses, the present potentials, and the targets
/// that the last fit has found for them. It has
///   fit_by_kernel(to)            sets to's targets by the kernel; false where potentials have drifted too far from it
///   fit_by_logarithms(to, ε)     sets them without one
///   absorb(to, ε)                makes the kernel from to's targets and the other side's potentials
///   marginal_error(of)           L1 distance of a marginal from what it should be, by potentials and targets
///   move(of, factor)             potentials to `factor` of the way to their targets
///   mean(of)                     Σ mass·potential
///   scale_potentials(factor)     of both
///   copy_potentials(from, to)    between equal measures
///   newton_direction()           finds the direction of q's potentials
///   bound_direction(reach)       sinkhorn::bounded; returns the dual's slope along it
///   keep_start(), step(length)   q's potentials to start + length·direction
template <class Measures>
class Sinkhorn {
 public:
  /// range: of the costs; symmetric: p = q and C = Cᵀ between points with mass.
  DPO_HD_INLINE Sinkhorn(Measures& measures, const SinkhornOptions& options, double range, bool symmetric)
      : measures_(measures), options_(options), range_(range), epsilon_(larger(range, options.epsilon)), symmetric_(symmetric) {}

  /// Whether the tolerance has been reached.
  DPO_HD_INLINE bool solve() {
    constexpr double kScaling = 4;            // of ε, from one stage to the next
    constexpr double kStageTolerance = 1e-2;  // for all ε but the last
    for (;;) {
      const bool last = epsilon_ <= options_.epsilon;
      const double tolerance = last ? options_.tolerance : larger(options_.tolerance, kStageTolerance);
      const bool converged = (symmetric_ && converge_symmetric(tolerance)) || converge(tolerance) || converge_newton(tolerance);
      if (last || !converged) return converged;
      set_epsilon(larger(epsilon_ / kScaling, options_.epsilon));
    }
  }

  DPO_HD std::int64_t iterations() const { return iterations_; }
  DPO_HD double error() const { return error_; }

  /// Σ p f + Σ q g, the dual objective where the row marginals are met.
  DPO_HD_INLINE double value() const { return options_.epsilon * dual(); }

 private:
  DPO_HD static double larger(double a, double b) { return a > b ? a : b; }

  DPO_HD bool out_of_steps() const { return iterations_ >= options_.max_iterations; }
  DPO_HD_INLINE double dual() const { return measures_.mean(Measure::p) + measures_.mean(Measure::q); }

  DPO_HD_INLINE void set_epsilon(double epsilon) {
    measures_.scale_potentials(epsilon_ / epsilon);
    epsilon_ = epsilon;
    kernel_made_ = false;
  }

  /// Returns the error of the marginal at the present potential.
  DPO_HD_INLINE double fit(Measure to) {
    if (!kernel_made_ || !measures_.fit_by_kernel(to)) {
      measures_.fit_by_logarithms(to, epsilon_);
      measures_.absorb(to, epsilon_);
      kernel_made_ = true;
    }
    return measures_.marginal_error(to);
  }

  /// Fits p's potential and returns the dual objective, ⟨φ, p⟩ + ⟨γ, q⟩.
  DPO_HD_INLINE double fit_p() {
    fit(Measure::p);
    measures_.move(Measure::p, 1);
    return dual();
  }

  /// Alternates until, with p's potential fitted to q's, the marginal on q's side is met as well.
  DPO_HD_INLINE bool converge(double tolerance) {
    constexpr std::int64_t kPatience = 100;  // steps before Newton's method takes over
    Relaxation relaxation;
    for (std::int64_t step = 0; step < kPatience && !out_of_steps(); ++step) {
      ++iterations_;
      const bool whole = fit(Measure::p) <= tolerance || step == 0 || relaxation.factor() == 1;
      measures_.move(Measure::p, whole ? 1 : relaxation.factor());
      error_ = fit(Measure::q);
      if (whole && error_ <= tolerance) return true;
      measures_.move(Measure::q, relaxation.factor());
      relaxation.observe(error_);
    }
    return false;
  }

  /// p = q and C = Cᵀ: both potentials are one, and each step goes half of the way (Feydy et al. 2019). Costs far from a metric's
  /// may need long, and are left to converge().
  DPO_HD_INLINE bool converge_symmetric(double tolerance) {
    constexpr std::int64_t kSteps = 100;
    for (std::int64_t step = 0; step < kSteps && !out_of_steps(); ++step) {
      ++iterations_;
      fit(Measure::p);
      measures_.copy_potentials(Measure::q, Measure::p);
      error_ = measures_.marginal_error(Measure::p);
      if (error_ <= tolerance) {
        measures_.move(Measure::p, 1);
        return true;
      }
      measures_.move(Measure::p, 0.5);
      measures_.copy_potentials(Measure::p, Measure::q);
    }
    return false;
  }

  /// Newton steps on q's potential take turns with Sinkhorn's, which even out what is far from any quadratic.
  DPO_HD_INLINE bool converge_newton(double tolerance) {
    constexpr std::int64_t kSteps = 200;  // ten are usual, and after so many ε is too small for double
    double reach = sinkhorn::kNewtonReach;
    fit_p();
    for (std::int64_t step = 0; step < kSteps && !out_of_steps(); ++step) {
      ++iterations_;
      fit(Measure::q);
      measures_.move(Measure::q, 1);
      const double objective = fit_p();
      error_ = fit(Measure::q);
      if (error_ <= tolerance) return true;
      newton_step(objective, reach);
    }
    return false;
  }

  /// One step from the dual objective `before`, halved until that grows. Steps that could have been longer make the next ones
  /// longer: nearly separate parts of a plan may have far to go.
  DPO_HD_INLINE void newton_step(double before, double& reach) {
    constexpr int kMaxHalvings = 20;
    measures_.newton_direction();
    const double slope = measures_.bound_direction(reach), rounding = 1e-14 * range_ / epsilon_;
    measures_.keep_start();
    double length = 1;
    for (int halvings = 0; halvings < kMaxHalvings; ++halvings, length /= 2) {
      measures_.step(length);
      if (fit_p() >= before + 1e-4 * length * slope - rounding) break;
    }
    const double next = length == 1 ? 2 * reach : length * reach, most = larger(sinkhorn::kNewtonReach, range_ / epsilon_);
    reach = larger(sinkhorn::kNewtonReach, next < most ? next : most);
  }

  Measures& measures_;
  SinkhornOptions options_;
  double range_, epsilon_, error_ = 0;
  std::int64_t iterations_ = 0;
  bool symmetric_, kernel_made_ = false;
};

}  // namespace dpo::math
