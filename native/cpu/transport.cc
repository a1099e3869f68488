#include "native/cpu/transport.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "native/cpu/transport_solvers.h"
#include "native/math/softmax_ratios.h"

namespace dpo::cpu {
namespace {

using Side = TransportWorkspace::Side;
using V = Vec<double>;

constexpr std::size_t kStep = lanes<double>;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

void load_masses(std::span<const double> log_masses, Side& side) {
  side.points.clear();
  side.mass.clear();
  side.log_mass.clear();
  for (std::size_t i = 0; i < log_masses.size(); ++i) {
    const double mass = std::exp(log_masses[i]);
    if (mass < math::kLeastMass) continue;
    side.points.push_back(static_cast<std::int64_t>(i));
    side.mass.push_back(mass);
    side.log_mass.push_back(log_masses[i]);
  }
  side.mass.resize(padded(side.points.size()), 0.0);
}

/// cost(i, j) for every point i of `side` and j of `other`.
template <class Cost>
void load_costs(Side& side, const Side& other, const Cost& cost) {
  const std::size_t points = other.points.size(), width = padded(points);
  side.cost.resize(side.points.size() * width);
  double* row = side.cost.data();
  for (const std::int64_t i : side.points) {
    for (std::size_t j = 0; j < width; ++j) row[j] = cost(i, other.points[std::min(j, points - 1)]);
    row += width;
  }
}

}  // namespace

math::CostRange load_sides(const TransportProblem& problem, TransportWorkspace& workspace) {
  const auto n = static_cast<std::int64_t>(problem.log_p.size());
  load_masses(problem.log_p, workspace.p);
  load_masses(problem.log_q, workspace.q);
  math::CostRange range;
  for (const std::int64_t i : workspace.p.points) {
    for (const std::int64_t j : workspace.q.points) range.add(problem.cost[i * n + j]);
  }
  load_costs(workspace.p, workspace.q, [&](auto i, auto j) { return problem.cost[i * n + j] - range.lowest; });
  load_costs(workspace.q, workspace.p, [&](auto j, auto i) { return problem.cost[i * n + j] - range.lowest; });
  return range;
}

namespace {

TransportResult solve_plain(const TransportProblem& problem, TransportWorkspace& workspace, std::span<double> f,
                            std::span<double> g) {
  return problem.method == TransportMethod::exact ? exact_transport(problem, workspace, f, g)
                                                  : sinkhorn_transport(problem, workspace, f, g);
}

bool is_symmetric(std::span<const double> matrix, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (matrix[i * n + j] != matrix[j * n + i]) return false;
    }
  }
  return true;
}

/// Takes ½·OT(p, p) off the result, and its gradient off `potential`.
void subtract_self_transport(const TransportProblem& problem, std::span<const double> log_p, bool symmetric,
                             TransportWorkspace& workspace, TransportResult& result, std::span<double> potential) {
  TransportProblem self = problem;
  self.log_p = self.log_q = log_p;
  workspace.self_f.resize(potential.size());
  workspace.self_g.resize(symmetric ? 0 : potential.size());
  const TransportResult of_self = solve_plain(self, workspace, workspace.self_f, workspace.self_g);
  result.value = math::less_self(result.value, of_self.value);
  result.converged &= of_self.converged;
  result.iterations = std::max(result.iterations, of_self.iterations);
  result.marginal_error = std::max(result.marginal_error, of_self.marginal_error);
  for (std::size_t i = 0; i < potential.size(); ++i) {
    potential[i] -= math::self_potential(symmetric, workspace.self_f[i], symmetric ? 0 : workspace.self_g[i]);
  }
}

/// f − m and g + m with m = Σ p f.
void centre(std::span<const double> log_p, std::span<double> f, std::span<double> g) {
  double mean = 0;
  for (std::size_t i = 0; i < f.size(); ++i) mean += std::exp(log_p[i]) * f[i];
  for (double& potential : f) potential -= mean;
  for (double& potential : g) potential += mean;
}

}  // namespace

TransportResult solve_transport(const TransportProblem& problem, TransportWorkspace& workspace, std::span<double> f,
                                std::span<double> g) {
  TransportResult result = solve_plain(problem, workspace, f, g);
  if (problem.debias) {
    const bool symmetric = is_symmetric(problem.cost, problem.log_p.size());
    subtract_self_transport(problem, problem.log_p, symmetric, workspace, result, f);
    subtract_self_transport(problem, problem.log_q, symmetric, workspace, result, g);
  }
  centre(problem.log_p, f, g);
  return result;
}

namespace {

/// Appends the indices of the k largest values.
void append_top_k(std::span<const double> values, std::size_t k, std::vector<std::int64_t>& indices) {
  const auto before = [&](std::int64_t a, std::int64_t b) { return values[a] != values[b] ? values[a] > values[b] : a < b; };
  const std::size_t begin = indices.size(), full = begin + 2 * k + 64;
  double kth = -kInfinity;  // what a value has to exceed: equal ones come later, and lose
  const auto keep_k = [&] {
    const auto last = indices.begin() + static_cast<std::ptrdiff_t>(begin + k - 1);
    std::nth_element(indices.begin() + static_cast<std::ptrdiff_t>(begin), last, indices.end(), before);
    kth = values[*last];
    indices.resize(begin + k);
  };
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!(values[i] > kth)) continue;
    indices.push_back(static_cast<std::int64_t>(i));
    if (indices.size() == full) keep_k();
  }
  if (indices.size() > begin + k) keep_k();
}

}  // namespace

void top_k_union(std::span<const double> p, std::span<const double> q, std::int64_t k, std::vector<std::int64_t>& support) {
  support.clear();
  append_top_k(p, static_cast<std::size_t>(k), support);
  append_top_k(q, static_cast<std::size_t>(k), support);
  std::sort(support.begin(), support.end());
  support.erase(std::unique(support.begin(), support.end()), support.end());
}

void restrict_cost(const dpo_tensor& matrix, std::span<const std::int64_t> support, std::span<double> cost) {
  dispatch_storage(matrix.dtype, [&]<class S>() {
    double* to = cost.data();
    for (const std::int64_t i : support) {
      const S* row = static_cast<const S*>(matrix.data) + i * matrix.shape[1];
      for (const std::int64_t j : support) *to++ = static_cast<double>(to_compute(row[j]));
    }
  });
}

namespace {

/// Rows of embeddings in double, as many as fill whole tiles, each padded by zeros to whole vectors.
struct EmbeddingRows {
  static constexpr std::size_t kTile = 4;

  std::vector<double>& values;
  std::size_t count, rows, width;

  EmbeddingRows(const dpo_tensor& embeddings, std::span<const std::int64_t> support, std::vector<double>& storage)
      : values(storage),
        count(support.size()),
        rows((count + kTile - 1) / kTile * kTile),
        width(padded(static_cast<std::size_t>(embeddings.shape[1]))) {
    const std::int64_t columns = embeddings.shape[1];
    values.assign(rows * width, 0.0);
    dispatch_storage(embeddings.dtype, [&]<class S>() {
      for (std::size_t i = 0; i < count; ++i) {
        const S* from = static_cast<const S*>(embeddings.data) + support[i] * columns;
        double* to = row(i);
        for (std::int64_t e = 0; e < columns; ++e) to[e] = static_cast<double>(to_compute(from[e]));
      }
    });
  }

  double* row(std::size_t i) const { return &values[i * width]; }

  /// Divides rows by their lengths, except rows of zeros, of which `is_zero` tells.
  void normalise(std::vector<double>& is_zero) const {
    is_zero.assign(count, 0.0);
    for (std::size_t i = 0; i < count; ++i) {
      const double length = norm(i);
      is_zero[i] = length == 0;
      if (length > 0) std::for_each(row(i), row(i) + width, [=](double& x) { x /= length; });
    }
  }

  /// cost += Σ (u − v)² over the dimensions begin <= e < end, for the tile of kTile rows from i and two columns from j on.
  void add_squares(std::size_t i, std::size_t j, std::size_t begin, std::size_t end, std::span<double> cost) const {
    V sums[kTile][2] = {};
    for (std::size_t e = begin; e < end; e += kStep) {
      const V columns[2] = {load(row(j) + e), load(row(j + 1) + e)};
      for (std::size_t a = 0; a < kTile; ++a) {
        const V x = load(row(i + a) + e);
        for (std::size_t b = 0; b < 2; ++b) sums[a][b] += (x - columns[b]) * (x - columns[b]);
      }
    }
    for (std::size_t a = 0; a < kTile && i + a < count; ++a) {
      for (std::size_t b = 0; b < 2 && j + b < count; ++b) cost[(i + a) * count + j + b] += horizontal_sum(sums[a][b]);
    }
  }

  /// The lower triangle of ‖u − v‖², and what lies in its tiles.
  void add_squared_distances(std::span<double> cost) const {
    constexpr std::size_t kDepth = 256;  // dimensions of a few hundred rows that fit into the second-level cache
    for (std::size_t begin = 0; begin < width; begin += kDepth) {
      for (std::size_t i = 0; i < rows; i += kTile) {
        for (std::size_t j = 0; j < i + kTile; j += 2) add_squares(i, j, begin, std::min(width, begin + kDepth), cost);
      }
    }
  }

 private:
  double norm(std::size_t i) const {
    V sum = {};
    for (std::size_t e = 0; e < width; e += kStep) {
      const V x = load(row(i) + e);
      sum += x * x;
    }
    return std::sqrt(horizontal_sum(sum));
  }
};

}  // namespace

void embedding_cost(const dpo_tensor& embeddings, std::span<const std::int64_t> support, TransportMetric metric,
                    TransportWorkspace& workspace, std::span<double> cost) {
  const EmbeddingRows rows(embeddings, support, workspace.embeddings);
  const bool cosine = metric == TransportMetric::cosine;
  if (cosine) rows.normalise(workspace.is_zero);
  std::fill(cost.begin(), cost.end(), 0.0);
  rows.add_squared_distances(cost);
  const auto distance = [&](std::size_t i, std::size_t j) {
    return math::embedding_distance(metric, cost[i * support.size() + j],
                                    cosine && workspace.is_zero[i] + workspace.is_zero[j] > 0);
  };
  const std::size_t n = support.size();
  for (std::size_t i = 0; i < n; ++i) {
    cost[i * n + i] = 0;
    for (std::size_t j = 0; j < i; ++j) cost[j * n + i] = cost[i * n + j] = distance(i, j);
  }
}

namespace {

void choose_support(std::span<const double> x, std::span<const double> y, std::int64_t top_k,
                    std::vector<std::int64_t>& support) {
  if (top_k > 0) return top_k_union(x, y, top_k, support);
  support.resize(x.size());
  std::iota(support.begin(), support.end(), std::int64_t{0});
}

void log_softmax(std::span<const double> x, std::span<const std::int64_t> support, std::vector<double>& log_p) {
  math::LogSumExp<double> sum;
  for (const std::int64_t i : support) sum.add(x[i]);
  const math::Normalizer normalizer(sum);
  log_p.clear();
  for (const std::int64_t i : support) log_p.push_back(normalizer.log_prob(x[i]));
}

}  // namespace

TransportResult transport_divergence(const dpo_transport_options& options, std::span<const double> x, std::span<const double> y,
                                     TransportWorkspace& workspace, std::span<double> gradient) {
  const std::vector<std::int64_t>& support = workspace.support;
  choose_support(x, y, options.top_k, workspace.support);
  log_softmax(x, support, workspace.log_p);
  log_softmax(y, support, workspace.log_q);
  workspace.cost.resize(support.size() * support.size());
  if (options.cost.data) {
    restrict_cost(options.cost, support, workspace.cost);
  } else {
    embedding_cost(options.embeddings, support, static_cast<TransportMetric>(options.metric), workspace, workspace.cost);
  }
  const TransportProblem problem{.log_p = workspace.log_p,
                                 .log_q = workspace.log_q,
                                 .cost = workspace.cost,
                                 .method = static_cast<TransportMethod>(options.method),
                                 .epsilon = options.epsilon,
                                 .debias = options.debias != 0,
                                 .max_iterations = options.max_iterations,
                                 .tolerance = options.tolerance};
  workspace.f.resize(gradient.empty() ? 0 : support.size());
  const TransportResult result = solve_transport(problem, workspace, workspace.f);
  if (gradient.empty()) return result;
  std::fill(gradient.begin(), gradient.end(), 0.0);
  for (std::size_t i = 0; i < support.size(); ++i) gradient[support[i]] = std::exp(workspace.log_p[i]) * workspace.f[i];
  return result;
}

}  // namespace dpo::cpu
