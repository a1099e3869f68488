// Sinkhorn's iteration on logarithms: everything here is in units of ε, φ = f/ε and γ = g/ε.
//
// Most steps are matrix products with a kernel e^(φ⁰_i + γ⁰_j − C_ij/ε) that holds potentials absorbed some steps ago, and so
// neither overflows nor loses what counts; when the potentials have drifted too far from those, one step is done by log-sum-exp
// and the kernel is made anew (Schmitzer 2019, "Stabilized sparse scaling algorithms for entropy regularized transport
// problems"). ε goes down from the range of the costs. Steps are over-relaxed by what the observed rate of convergence asks for
// (Lehmann et al. 2022, "A note on overrelaxation in the Sinkhorn algorithm"). Where even that takes long, which is where ε is
// small, Newton's method on the dual finishes (Brauer et al. 2017, "A Sinkhorn-Newton method for entropic optimal transport").
#include <type_traits>

#include "native/cpu/gemm.h"
#include "native/cpu/transport_solvers.h"
#include "native/math/log_sum_exp.h"

namespace dpo::cpu {
namespace {

using Side = TransportWorkspace::Side;
using V = Vec<double>;

constexpr std::size_t kStep = lanes<double>;
constexpr double kScaling = 4;            // of ε, from one stage to the next
constexpr double kStageTolerance = 1e-2;  // for all ε but the last
constexpr double kMaxDrift = 100;         // of potentials from the absorbed ones
constexpr std::int64_t kSymmetricSteps = 100;
constexpr std::int64_t kPatience = 100;     // steps of one stage before Newton's method takes over
constexpr std::int64_t kNewtonSteps = 200;  // of one stage; ten are usual, and after so many ε is too small for double
constexpr double kNewtonReach = 20;         // of a first step, for any potential
constexpr double kRidge = 1e-13;            // added to the scaled Hessian, whose eigenvalues are in [0, 1]
constexpr int kMaxHalvings = 20;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// ln Σ_j e^(log_mass_j + potential_j − cost_j/ε).
class LogSum {
 public:
  void raise(V x) { max_ = max(x, max_); }
  void add(V x) { sum_ += exp(x - max_); }
  V value() const { return max_ + log(sum_); }

 private:
  V max_ = broadcast(-kInfinity), sum_ = {};
};

class Sinkhorn {
 public:
  Sinkhorn(const TransportProblem& problem, TransportWorkspace& workspace, double range)
      : problem_(problem), p_(workspace.p), q_(workspace.q), newton_(workspace.newton), range_(range) {
    prepare(p_);
    prepare(q_);
  }

  bool solve();

  std::int64_t iterations() const { return iterations_; }
  double error() const { return error_; }

  /// Σ p f + Σ q g, the dual objective where the row marginals are met.
  double value() const { return problem_.epsilon * (mean(p_) + mean(q_)); }

 private:
  static void prepare(Side& side) {
    const std::size_t count = padded(side.points.size());
    for (auto* values : {&side.potential, &side.target, &side.absorbed, &side.weight}) values->assign(count, 0.0);
    side.kernel.resize(side.cost.size());
  }

  static double mean(const Side& side) {
    double sum = 0;
    for (std::size_t i = 0; i < side.points.size(); ++i) sum += side.mass[i] * side.potential[i];
    return sum;
  }

  bool out_of_steps() const { return iterations_ >= problem_.max_iterations; }

  void set_epsilon(double epsilon);
  bool converge(double tolerance);
  bool converge_symmetric(double tolerance);
  bool converge_newton(double tolerance);
  double fit_p();
  void newton_direction();
  void make_hessian();
  void newton_step(double& reach);
  double fit(Side& to, Side& from);
  bool fit_by_kernel(Side& to, Side& from) const;
  void fit_by_logarithms(Side& to, const Side& from) const;
  void absorb(Side& to, Side& from);
  void make_kernel(Side& side, const Side& other) const;

  const TransportProblem& problem_;
  Side &p_, &q_;
  TransportWorkspace::Newton& newton_;
  double range_, epsilon_ = 0, error_ = 0;
  std::int64_t iterations_ = 0;
  bool kernel_made_ = false;
};

/// How far steps go beyond what plain Sinkhorn iterations do, from the errors that they leave.
class Relaxation {
 public:
  double factor() const { return factor_; }

  void observe(double error) {
    if (count_ == 0) first_ = error;
    if (++count_ < kWindow) return;
    adapt(std::pow(error / first_, 1.0 / (kWindow - 1)));
    count_ = 0;
  }

 private:
  static constexpr int kWindow = 8;
  static constexpr double kMost = 1.9;  // with 2 nothing settles

  /// `rate` is what one iteration leaves of the error. With relaxation ω and the plain iteration's rate θ it is the larger root
  /// of (rate + ω − 1)² = rate·ω²·θ, or ω − 1 when that has no real root; ω = 2/(1 + √(1 − θ)) makes it the smallest.
  void adapt(double rate) {
    const double excess = factor_ - 1;
    if (!(rate < 1)) {
      factor_ = 1;
    } else if (rate > excess) {
      const double plain_rate = (rate + excess) * (rate + excess) / (rate * factor_ * factor_);
      factor_ = std::min(kMost, 2 / (1 + std::sqrt(std::max(0.0, 1 - plain_rate))));
    }
  }

  double factor_ = 1, first_ = 0;
  int count_ = 0;
};

double largest_distance(const std::vector<double>& a, const std::vector<double>& b) {
  V largest = {};
  for (std::size_t i = 0; i < a.size(); i += kStep) {
    const V difference = load(&a[i]) - load(&b[i]);
    largest = max(largest, max(difference, -difference));
  }
  return horizontal_max(largest);
}

/// L1 distance from the marginal that `side` should have: each of its masses is off by the factor e^(potential − target).
double marginal_error(const Side& side) {
  V sum = {};
  for (std::size_t i = 0; i < side.mass.size(); i += kStep) {
    // e^500 is error enough, and e^1000 would be infinite, of which places past the end could not have none.
    const V excess = exp(min(broadcast(500.0), load(&side.potential[i]) - load(&side.target[i]))) - 1.0;
    sum += load(&side.mass[i]) * max(excess, -excess);
  }
  return horizontal_sum(sum);
}

/// potential += factor·(target − potential).
void move(Side& side, double factor) {
  for (std::size_t i = 0; i < side.mass.size(); i += kStep) {
    const V potential = load(&side.potential[i]), target = load(&side.target[i]);
    store(&side.potential[i], factor == 1 ? target : potential + factor * (target - potential));
  }
}

void Sinkhorn::set_epsilon(double epsilon) {
  for (Side* side : {&p_, &q_}) {
    for (double& potential : side->potential) potential *= epsilon_ / epsilon;
  }
  epsilon_ = epsilon;
  kernel_made_ = false;
}

/// sums = Σ_j weight_j · row j of a matrix whose rows have sums.size() elements. Rows are read from end to end, several at once.
void weighted_row_sum(const double* matrix, std::span<const double> weights, std::span<double> sums) {
  const auto add = [&](std::size_t j, auto rows) {
    const double* const first = matrix + j * sums.size();
    for (std::size_t i = 0; i < sums.size(); i += kStep) {
      V sum = load(&sums[i]);
      for (std::size_t row = 0; row < rows; ++row) sum += weights[j + row] * load(first + row * sums.size() + i);
      store(&sums[i], sum);
    }
  };
  std::fill(sums.begin(), sums.end(), 0.0);
  std::size_t j = 0;
  for (; j + 8 <= weights.size(); j += 8) add(j, std::integral_constant<std::size_t, 8>{});
  for (; j < weights.size(); ++j) add(j, std::integral_constant<std::size_t, 1>{});
}

/// to.target = −ln Σ_j e^(from.log_mass_j + from.potential_j − C_j/ε), and the error of the marginal at to's present potential.
double Sinkhorn::fit(Side& to, Side& from) {
  if (!kernel_made_ || !fit_by_kernel(to, from)) {
    fit_by_logarithms(to, from);
    absorb(to, from);
  }
  return marginal_error(to);
}

bool Sinkhorn::fit_by_kernel(Side& to, Side& from) const {
  if (!(largest_distance(from.potential, from.absorbed) <= kMaxDrift)) return false;
  for (std::size_t j = 0; j < from.mass.size(); j += kStep) {
    store(&from.weight[j], load(&from.mass[j]) * exp(load(&from.potential[j]) - load(&from.absorbed[j])));
  }
  weighted_row_sum(from.kernel.data(), std::span(from.weight).first(from.points.size()), to.target);
  for (std::size_t i = 0; i < to.target.size(); i += kStep) {
    store(&to.target[i], load(&to.absorbed[i]) - log(load(&to.target[i])));
  }
  return largest_distance(to.target, to.absorbed) <= kMaxDrift;
}

void Sinkhorn::fit_by_logarithms(Side& to, const Side& from) const {
  const std::size_t points = from.points.size(), width = to.mass.size();
  const double rate = 1 / epsilon_;
  for (std::size_t i = 0; i < width; i += kStep) {
    const auto exponent = [&](std::size_t j) {
      return (from.log_mass[j] + from.potential[j]) - rate * load(&from.cost[j * width + i]);
    };
    LogSum sum;
    for (std::size_t j = 0; j < points; ++j) sum.raise(exponent(j));
    for (std::size_t j = 0; j < points; ++j) sum.add(exponent(j));
    store(&to.target[i], -sum.value());
  }
}

void Sinkhorn::absorb(Side& to, Side& from) {
  to.absorbed = to.target;
  from.absorbed = from.potential;
  make_kernel(to, from);
  make_kernel(from, to);
  kernel_made_ = true;
}

void Sinkhorn::make_kernel(Side& side, const Side& other) const {
  const std::size_t width = other.mass.size();
  const double rate = 1 / epsilon_;
  for (std::size_t i = 0; i < side.points.size(); ++i) {
    for (std::size_t j = 0; j < width; j += kStep) {
      const std::size_t at = i * width + j;
      store(&side.kernel[at], exp((side.absorbed[i] + load(&other.absorbed[j])) - rate * load(&side.cost[at])));
    }
  }
}

/// Alternates until, with p's potential fitted to q's, the marginal on q's side is met as well.
bool Sinkhorn::converge(double tolerance) {
  Relaxation relaxation;
  for (std::int64_t step = 0; step < kPatience && !out_of_steps(); ++step) {
    ++iterations_;
    const bool whole = fit(p_, q_) <= tolerance || step == 0 || relaxation.factor() == 1;
    move(p_, whole ? 1 : relaxation.factor());
    error_ = fit(q_, p_);
    if (whole && error_ <= tolerance) return true;
    move(q_, relaxation.factor());
    relaxation.observe(error_);
  }
  return false;
}

/// p = q and C = Cᵀ: both potentials are one, and each step goes half of the way (Feydy et al. 2019). Costs far from a metric's
/// may need long, and are left to converge().
bool Sinkhorn::converge_symmetric(double tolerance) {
  for (std::int64_t step = 0; step < kSymmetricSteps && !out_of_steps(); ++step) {
    ++iterations_;
    fit(p_, q_);
    p_.potential = q_.potential;
    error_ = marginal_error(p_);
    if (error_ <= tolerance) {
      move(p_, 1);
      return true;
    }
    move(p_, 0.5);
    q_.potential = p_.potential;
  }
  return false;
}

/// Fits p's potential and returns the dual objective, ⟨φ, p⟩ + ⟨γ, q⟩.
double Sinkhorn::fit_p() {
  fit(p_, q_);
  move(p_, 1);
  return mean(p_) + mean(q_);
}

/// Newton steps on q's potential take turns with Sinkhorn's, which even out what is far from any quadratic.
bool Sinkhorn::converge_newton(double tolerance) {
  double reach = kNewtonReach;
  fit_p();
  for (std::int64_t step = 0; step < kNewtonSteps && !out_of_steps(); ++step) {
    ++iterations_;
    fit(q_, p_);
    move(q_, 1);
    fit_p();
    error_ = fit(q_, p_);
    if (error_ <= tolerance) return true;
    newton_step(reach);
  }
  return false;
}

/// Solves A x = b for a symmetric A (n rows of `width`, the lower triangle counts) by Cholesky's factor, which takes A's place,
/// and x b's. Squares on the factor's diagonal are at least `least`.
void solve_positive(double* a, std::size_t n, std::size_t width, double least, double* b) {
  const auto row = [&](std::size_t i) { return a + i * width; };
  const auto dot = [](const double* x, const double* y, std::size_t count) {
    V sum = {};
    std::size_t k = 0;
    for (; k + kStep <= count; k += kStep) sum += load(x + k) * load(y + k);
    const int rest = static_cast<int>(count - k);
    if (rest > 0) sum += load_partial(x + k, rest, 0.0) * load_partial(y + k, rest, 0.0);
    return horizontal_sum(sum);
  };
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < i; ++j) row(i)[j] = (row(i)[j] - dot(row(i), row(j), j)) / row(j)[j];
    row(i)[i] = std::sqrt(std::max(least, row(i)[i] - dot(row(i), row(i), i)));
    b[i] = (b[i] - dot(row(i), b, i)) / row(i)[i];
  }
  for (std::size_t i = n; i-- > 0;) {
    b[i] /= row(i)[i];
    for (std::size_t j = 0; j < i; ++j) b[j] -= b[i] * row(i)[j];
  }
}

/// The dual's gradient in γ is r = q − c, where c is the marginal of the plan P whose rows meet p, and its Hessian is
/// −(diag c − Pᵀ diag(1/p) P) = −S(I − MᵀM)S with S = diag √c and M_ij = P_ij/√(p_i c_j). The direction is S⁻¹(I − MᵀM)⁻¹S⁻¹r.
/// Where c is far below q the quadratic says nothing, and q's part in its place in S keeps the step within bounds.
void Sinkhorn::newton_direction() {
  const std::size_t columns = q_.points.size(), width = q_.mass.size();
  newton_.scale.assign(width, 0.0);
  newton_.direction.assign(width, 0.0);
  for (std::size_t j = 0; j < columns; ++j) {
    const double marginal = q_.mass[j] * std::exp(q_.potential[j] - q_.target[j]);
    newton_.scale[j] = 1 / std::sqrt(std::max(marginal, q_.mass[j] / kNewtonReach));
    newton_.direction[j] = (q_.mass[j] - marginal) * newton_.scale[j];
  }
  make_hessian();
  solve_positive(newton_.hessian.data(), columns, width, kRidge, newton_.direction.data());
  for (std::size_t j = 0; j < columns; ++j) newton_.direction[j] *= newton_.scale[j];
}

/// I − MᵀM and the ridge; M from the kernel.
void Sinkhorn::make_hessian() {
  const std::size_t rows = p_.points.size(), columns = q_.points.size(), width = q_.mass.size();
  newton_.plan.resize(rows * width);
  newton_.hessian.resize(columns * width);
  newton_.gemm.resize(gemm_workspace<double>);
  for (std::size_t j = 0; j < width; ++j) {
    q_.weight[j] = q_.mass[j] * std::exp(q_.potential[j] - q_.absorbed[j]) * newton_.scale[j];
  }
  for (std::size_t i = 0; i < rows; ++i) {
    const double weight = std::sqrt(p_.mass[i]) * std::exp(p_.potential[i] - p_.absorbed[i]);
    for (std::size_t j = 0; j < width; j += kStep) {
      store(&newton_.plan[i * width + j], weight * load(&p_.kernel[i * width + j]) * load(&q_.weight[j]));
    }
  }
  const auto stride = static_cast<std::int64_t>(width), count = static_cast<std::int64_t>(columns);
  const MatrixView<double> plan{newton_.plan.data(), stride, 1};
  gemm<double>(plan.transposed(), plan, count, count, static_cast<std::int64_t>(rows), newton_.hessian.data(), stride,
               Update::overwrite, newton_.gemm);
  for (double& element : newton_.hessian) element = -element;
  for (std::size_t j = 0; j < columns; ++j) newton_.hessian[j * width + j] += 1 + kRidge;
}

/// One step, no longer than `reach` because the dual is of second order only nearby, and halved until the dual grows. Steps that
/// could have been longer make the next ones longer: nearly separate parts of a plan may have far to go.
void Sinkhorn::newton_step(double& reach) {
  newton_direction();
  const std::size_t columns = q_.points.size();
  double centre = 0, slope = 0;
  for (std::size_t j = 0; j < columns; ++j) centre += q_.mass[j] * newton_.direction[j];
  for (std::size_t j = 0; j < columns; ++j) {
    newton_.direction[j] = std::clamp(newton_.direction[j] - centre, -reach, reach);
    slope += q_.mass[j] * (1 - std::exp(q_.potential[j] - q_.target[j])) * newton_.direction[j];
  }
  std::fill(newton_.direction.begin() + static_cast<std::ptrdiff_t>(columns), newton_.direction.end(),
            newton_.direction[columns - 1]);
  newton_.start = q_.potential;
  const double before = mean(p_) + mean(q_), rounding = 1e-14 * range_ / epsilon_;
  double length = 1;
  for (int halvings = 0; halvings < kMaxHalvings; ++halvings, length /= 2) {
    for (std::size_t j = 0; j < newton_.start.size(); ++j) q_.potential[j] = newton_.start[j] + length * newton_.direction[j];
    if (fit_p() >= before + 1e-4 * length * slope - rounding) break;
  }
  reach = std::clamp(length == 1 ? 2 * reach : length * reach, kNewtonReach, std::max(kNewtonReach, range_ / epsilon_));
}

bool same_measure(const Side& p, const Side& q) { return p.points == q.points && p.log_mass == q.log_mass; }

/// Whether C = Cᵀ between equal points.
bool symmetric_cost(const Side& p, const Side& q) { return p.cost == q.cost; }

bool Sinkhorn::solve() {
  const bool symmetric = same_measure(p_, q_) && symmetric_cost(p_, q_);
  epsilon_ = std::max(range_, problem_.epsilon);
  for (;;) {
    const bool last = epsilon_ <= problem_.epsilon;
    const double tolerance = last ? problem_.tolerance : std::max(problem_.tolerance, kStageTolerance);
    const bool converged = (symmetric && converge_symmetric(tolerance)) || converge(tolerance) || converge_newton(tolerance);
    if (last || !converged) return converged;
    set_epsilon(std::max(epsilon_ / kScaling, problem_.epsilon));
  }
}

/// −ε ln Σ_j e^(log_mass_j + (potential_j − C_j)/ε) over the points of `side`, with cost(j) = C_j of the support's place j.
template <class Cost>
double soft_minimum(const Side& side, double epsilon, const Cost& cost) {
  math::LogSumExp<double> sum;
  for (std::size_t j = 0; j < side.points.size(); ++j) {
    sum.add((side.log_mass[j] + side.potential[j]) - cost(side.points[j]) / epsilon);
  }
  return -epsilon * sum.value();
}

/// Potentials of all places of the support in units of the cost: those of the side's own points are known, those of points
/// without mass follow from the other side's. cost(i, j) is that between place i on this side and place j on the other.
template <class Cost>
void write_potentials(const Side& side, const Side& other, double epsilon, std::span<double> to, const Cost& cost) {
  std::size_t point = 0;
  for (std::size_t i = 0; i < to.size(); ++i) {
    const bool known = point < side.points.size() && side.points[point] == static_cast<std::int64_t>(i);
    to[i] = known ? epsilon * side.potential[point++] : soft_minimum(other, epsilon, [&](std::size_t j) { return cost(i, j); });
  }
}

}  // namespace

TransportResult sinkhorn_transport(const TransportProblem& problem, TransportWorkspace& workspace, std::span<double> f,
                                   std::span<double> g) {
  const CostRange range = load_sides(problem, workspace);
  if (!range.usable) return unusable_cost();
  Sinkhorn sinkhorn(problem, workspace, range.highest - range.lowest);
  const bool converged = sinkhorn.solve();
  const std::size_t n = problem.log_p.size();
  const auto cost = [&](std::size_t i, std::size_t j) { return problem.cost[i * n + j] - range.lowest; };
  write_potentials(workspace.p, workspace.q, problem.epsilon, f, cost);
  write_potentials(workspace.q, workspace.p, problem.epsilon, g, [&](std::size_t j, std::size_t i) { return cost(i, j); });
  for (double& potential : f) potential += range.lowest;
  return {range.lowest + sinkhorn.value(), converged, sinkhorn.iterations(), sinkhorn.error()};
}

}  // namespace dpo::cpu
