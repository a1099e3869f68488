// The iteration of native/math/sinkhorn.h in whole vectors.
#include "native/math/sinkhorn.h"

#include <type_traits>

#include "native/cpu/gemm.h"
#include "native/cpu/transport_solvers.h"
#include "native/cpu/vector_functions.h"

namespace dpo::cpu {
namespace {

using Side = TransportWorkspace::Side;
using V = Vec<double>;
using E = VectorFunctions<double>;
using math::Measure;

constexpr std::size_t kStep = lanes<double>;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// ln Σ e^x.
class LogSum {
 public:
  void raise(V x) { max_ = max(x, max_); }
  void add(V x) { sum_ += exp(x - max_); }
  V value() const { return max_ + log(sum_); }

 private:
  V max_ = broadcast(-kInfinity), sum_ = {};
};

double largest_distance(const std::vector<double>& a, const std::vector<double>& b) {
  V largest = {};
  for (std::size_t i = 0; i < a.size(); i += kStep) {
    const V difference = load(&a[i]) - load(&b[i]);
    largest = max(largest, max(difference, -difference));
  }
  return horizontal_max(largest);
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

/// Both sides of a transport, as math::Sinkhorn wants them.
class Sides {
 public:
  explicit Sides(TransportWorkspace& workspace) : p_(workspace.p), q_(workspace.q), newton_(workspace.newton) {
    prepare(p_);
    prepare(q_);
  }

  bool fit_by_kernel(Measure to) { return fit_by_kernel(side(to), other(to)); }
  void fit_by_logarithms(Measure to, double epsilon) { fit_by_logarithms(side(to), other(to), 1 / epsilon); }

  void absorb(Measure to, double epsilon) {
    side(to).absorbed = side(to).target;
    other(to).absorbed = other(to).potential;
    make_kernel(p_, q_, 1 / epsilon);
    make_kernel(q_, p_, 1 / epsilon);
  }

  double marginal_error(Measure of) {
    const Side& side = this->side(of);
    V sum = {};
    for (std::size_t i = 0; i < side.mass.size(); i += kStep)
      sum += math::sinkhorn::marginal_error<E>(load(&side.mass[i]), load(&side.potential[i]), load(&side.target[i]));
    return horizontal_sum(sum);
  }

  void move(Measure of, double factor) {
    Side& side = this->side(of);
    for (std::size_t i = 0; i < side.mass.size(); i += kStep)
      store(&side.potential[i], math::sinkhorn::moved(load(&side.potential[i]), load(&side.target[i]), factor));
  }

  double mean(Measure of) {
    const Side& side = this->side(of);
    double sum = 0;
    for (std::size_t i = 0; i < side.points.size(); ++i) sum += side.mass[i] * side.potential[i];
    return sum;
  }

  void scale_potentials(double factor) {
    for (Side* side : {&p_, &q_}) {
      for (double& potential : side->potential) potential *= factor;
    }
  }

  void copy_potentials(Measure from, Measure to) { side(to).potential = side(from).potential; }

  void newton_direction();
  double bound_direction(double reach);
  void keep_start() { newton_.start = q_.potential; }
  void step(double length) {
    for (std::size_t j = 0; j < newton_.start.size(); ++j) q_.potential[j] = newton_.start[j] + length * newton_.direction[j];
  }

 private:
  static void prepare(Side& side) {
    const std::size_t count = padded(side.points.size());
    for (auto* values : {&side.potential, &side.target, &side.absorbed, &side.weight}) values->assign(count, 0.0);
    side.kernel.resize(side.cost.size());
  }

  Side& side(Measure of) { return of == Measure::p ? p_ : q_; }
  Side& other(Measure of) { return of == Measure::p ? q_ : p_; }

  static bool fit_by_kernel(Side& to, Side& from);
  static void fit_by_logarithms(Side& to, const Side& from, double rate);
  static void make_kernel(Side& side, const Side& other, double rate);
  void make_hessian();

  Side &p_, &q_;
  TransportWorkspace::Newton& newton_;
};

bool Sides::fit_by_kernel(Side& to, Side& from) {
  if (!(largest_distance(from.potential, from.absorbed) <= math::sinkhorn::kMaxDrift)) return false;
  for (std::size_t j = 0; j < from.mass.size(); j += kStep) {
    store(&from.weight[j], math::sinkhorn::weight<E>(load(&from.mass[j]), load(&from.potential[j]), load(&from.absorbed[j])));
  }
  weighted_row_sum(from.kernel.data(), std::span(from.weight).first(from.points.size()), to.target);
  for (std::size_t i = 0; i < to.target.size(); i += kStep) {
    store(&to.target[i], math::sinkhorn::fitted<E>(load(&to.absorbed[i]), load(&to.target[i])));
  }
  return largest_distance(to.target, to.absorbed) <= math::sinkhorn::kMaxDrift;
}

void Sides::fit_by_logarithms(Side& to, const Side& from, double rate) {
  const std::size_t points = from.points.size(), width = to.mass.size();
  for (std::size_t i = 0; i < width; i += kStep) {
    const auto exponent = [&](std::size_t j) {
      return math::sinkhorn::exponent(from.log_mass[j], from.potential[j], load(&from.cost[j * width + i]), rate);
    };
    LogSum sum;
    for (std::size_t j = 0; j < points; ++j) sum.raise(exponent(j));
    for (std::size_t j = 0; j < points; ++j) sum.add(exponent(j));
    store(&to.target[i], -sum.value());
  }
}

void Sides::make_kernel(Side& side, const Side& other, double rate) {
  const std::size_t width = other.mass.size();
  for (std::size_t i = 0; i < side.points.size(); ++i) {
    for (std::size_t j = 0; j < width; j += kStep) {
      const std::size_t at = i * width + j;
      const V cost = load(&side.cost[at]);
      store(&side.kernel[at], math::sinkhorn::kernel<E>(side.absorbed[i], load(&other.absorbed[j]), cost, rate));
    }
  }
}

void Sides::newton_direction() {
  const std::size_t columns = q_.points.size(), width = q_.mass.size();
  newton_.scale.assign(width, 0.0);
  newton_.direction.assign(width, 0.0);
  for (std::size_t j = 0; j < columns; ++j) {
    const math::sinkhorn::NewtonPoint point = math::sinkhorn::newton_point(q_.mass[j], q_.potential[j], q_.target[j]);
    newton_.scale[j] = point.scale;
    newton_.direction[j] = point.gradient;
  }
  make_hessian();
  solve_positive(newton_.hessian.data(), columns, width, math::sinkhorn::kRidge, newton_.direction.data());
  for (std::size_t j = 0; j < columns; ++j) newton_.direction[j] *= newton_.scale[j];
}

void Sides::make_hessian() {
  const std::size_t rows = p_.points.size(), columns = q_.points.size(), width = q_.mass.size();
  newton_.plan.resize(rows * width);
  newton_.hessian.resize(columns * width);
  newton_.gemm.resize(gemm_workspace<double>);
  for (std::size_t j = 0; j < width; ++j) {
    q_.weight[j] = math::sinkhorn::column_factor(q_.mass[j], q_.potential[j], q_.absorbed[j], newton_.scale[j]);
  }
  for (std::size_t i = 0; i < rows; ++i) {
    const double factor = math::sinkhorn::row_factor(p_.mass[i], p_.potential[i], p_.absorbed[i]);
    for (std::size_t j = 0; j < width; j += kStep) {
      store(&newton_.plan[i * width + j], factor * load(&p_.kernel[i * width + j]) * load(&q_.weight[j]));
    }
  }
  const auto stride = static_cast<std::int64_t>(width), count = static_cast<std::int64_t>(columns);
  const MatrixView<double> plan{newton_.plan.data(), stride, 1};
  gemm<double>(plan.transposed(), plan, count, count, static_cast<std::int64_t>(rows), newton_.hessian.data(), stride,
               Update::overwrite, newton_.gemm);
  for (std::size_t i = 0; i < columns; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      double& element = newton_.hessian[i * width + j];
      element = math::sinkhorn::hessian(i == j, element);
    }
  }
}

double Sides::bound_direction(double reach) {
  const std::size_t columns = q_.points.size();
  double centre = 0, slope = 0;
  for (std::size_t j = 0; j < columns; ++j) centre += q_.mass[j] * newton_.direction[j];
  for (std::size_t j = 0; j < columns; ++j) {
    newton_.direction[j] = math::sinkhorn::bounded(newton_.direction[j], centre, reach);
    slope += math::sinkhorn::slope(q_.mass[j], q_.potential[j], q_.target[j], newton_.direction[j]);
  }
  std::fill(newton_.direction.begin() + static_cast<std::ptrdiff_t>(columns), newton_.direction.end(),
            newton_.direction[columns - 1]);
  return slope;
}

/// p = q and C = Cᵀ between points with mass.
bool is_symmetric(const Side& p, const Side& q) { return p.points == q.points && p.log_mass == q.log_mass && p.cost == q.cost; }

/// Potentials of all places of the support in units of the cost: those of the side's own points are known, those of points
/// without mass follow from the other side's. cost(i, j) is that between place i on this side and place j on the other.
template <class Cost>
void write_potentials(const Side& side, const Side& other, double epsilon, std::span<double> to, const Cost& cost) {
  std::size_t point = 0;
  for (std::size_t i = 0; i < to.size(); ++i) {
    const bool known = point < side.points.size() && side.points[point] == static_cast<std::int64_t>(i);
    to[i] = known ? epsilon * side.potential[point++]
                  : math::soft_minimum(epsilon, other.points.size(), other.log_mass, other.potential,
                                       [&](std::size_t j) { return cost(i, other.points[j]); });
  }
}

}  // namespace

TransportResult sinkhorn_transport(const TransportProblem& problem, TransportWorkspace& workspace, std::span<double> f,
                                   std::span<double> g) {
  const math::CostRange range = load_sides(problem, workspace);
  if (!range.usable()) return unusable_cost();
  Sides sides(workspace);
  math::Sinkhorn<Sides> sinkhorn(sides, {problem.epsilon, problem.tolerance, problem.max_iterations}, range.width(),
                                 is_symmetric(workspace.p, workspace.q));
  const bool converged = sinkhorn.solve();
  const std::size_t n = problem.log_p.size();
  const auto cost = [&](std::size_t i, std::size_t j) { return problem.cost[i * n + j] - range.lowest; };
  write_potentials(workspace.p, workspace.q, problem.epsilon, f, cost);
  write_potentials(workspace.q, workspace.p, problem.epsilon, g, [&](std::size_t j, std::size_t i) { return cost(i, j); });
  for (double& potential : f) potential += range.lowest;
  return {range.lowest + sinkhorn.value(), converged, sinkhorn.iterations(), sinkhorn.error()};
}

}  // namespace dpo::cpu
