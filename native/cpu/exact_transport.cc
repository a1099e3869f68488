// Exact transport by the network simplex: a basis is a spanning tree of the graph of rows (p's points) and columns (q's), whose
// arcs carry all flow. A pivot lets in an arc of negative reduced cost C_ij − f_i − g_j and takes out one of the circle that it
// closes. Trees are kept strongly feasible, so that pivots without flow cannot go round in circles (Cunningham 1976; Ahuja,
// Magnanti & Orlin 1993, "Network Flows", sections 11.5 and 11.6).
#include <cmath>
#include <numeric>

#include "native/cpu/transport_solvers.h"

namespace dpo::cpu {
namespace {

using Side = TransportWorkspace::Side;
using V = Vec<double>;

constexpr std::size_t kStep = lanes<double>;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kNone = -1;
constexpr double kOptimal = 1e-14;           // reduced costs this far below 0, relative to the range of the costs, are rounding
constexpr std::int64_t kMaxPivots = 1000;    // for every point; about ten are usual
constexpr std::int64_t kPricedCosts = 1024;  // looked at between two pivots, if an arc to let in is among them

/// Nodes are rows, then columns. Node v's arc to its parent carries the flow tree.flow[v].
class NetworkSimplex {
 public:
  NetworkSimplex(TransportWorkspace& workspace, double range)
      : p_(workspace.p),
        q_(workspace.q),
        tree_(workspace.tree),
        rows_(static_cast<std::int64_t>(p_.points.size())),
        columns_(static_cast<std::int64_t>(q_.points.size())),
        width_(static_cast<std::int64_t>(padded(q_.points.size()))),
        tolerance_(kOptimal * range) {}

  /// Whether it came to an end, as it always should.
  bool solve();

  double total_cost() const;
  std::int64_t pivots() const { return pivots_; }

 private:
  struct Arc {
    std::int64_t row = kNone, column = kNone;
  };

  bool is_row(std::int64_t node) const { return node < rows_; }
  double cost(std::int64_t node, std::int64_t other) const {
    return is_row(node) ? p_.cost[node * width_ + other - rows_] : p_.cost[other * width_ + node - rows_];
  }
  double& potential(std::int64_t node) { return is_row(node) ? p_.potential[node] : q_.potential[node - rows_]; }

  void start();
  std::int64_t cheapest_open_column(std::int64_t row) const;
  void attach(std::int64_t node, std::int64_t parent, double flow);
  void detach(std::int64_t node);
  void price_subtree(std::int64_t top);
  bool find_entering(Arc& arc);
  std::int64_t find_apex(const Arc& arc) const;
  void pivot(const Arc& arc);

  Side &p_, &q_;
  TransportWorkspace::Tree& tree_;
  std::int64_t rows_, columns_, width_;
  double tolerance_;
  std::int64_t root_ = 0, next_row_ = 0, pivots_ = 0;
};

bool NetworkSimplex::solve() {
  start();
  const std::int64_t limit = kMaxPivots * (rows_ + columns_);
  for (Arc arc; find_entering(arc); ++pivots_) {
    if (pivots_ == limit) return false;
    pivot(arc);
  }
  return true;
}

/// Rows in turn send what they have to the cheapest columns with room. Whichever of the two is used up hangs from the other, and
/// where both are, it is the column: an arc without flow then leads from a row up to a column, as strong feasibility demands. The
/// last column is the root; it takes, and the last row gives, what rounding makes of the sums.
void NetworkSimplex::start() {
  const auto nodes = static_cast<std::size_t>(rows_ + columns_);
  for (auto* links : {&tree_.parent, &tree_.child, &tree_.next, &tree_.previous}) links->assign(nodes, kNone);
  tree_.depth.assign(nodes, 0);
  tree_.flow.assign(nodes, 0.0);
  p_.potential.assign(static_cast<std::size_t>(rows_), 0.0);
  q_.potential.assign(static_cast<std::size_t>(width_), -kInfinity);  // past the end, so that no arc there is let in
  p_.weight.assign(p_.mass.begin(), p_.mass.end());
  q_.weight.assign(q_.mass.begin(), q_.mass.end());
  std::int64_t open_columns = columns_;
  for (std::int64_t row = 0; row < rows_; ++row) {
    for (;;) {
      const std::int64_t column = cheapest_open_column(row);
      double &supply = p_.weight[row], &room = q_.weight[column];
      if (open_columns == 1 || (supply < room && row + 1 < rows_)) {
        attach(row, rows_ + column, supply);
        room -= supply;
        if (open_columns == 1) room = 1, root_ = rows_ + column;
        break;
      }
      attach(rows_ + column, row, room);
      supply = std::max(0.0, supply - room);
      room = 0;
      --open_columns;
    }
  }
  potential(root_) = 0;
  for (std::int64_t child = tree_.child[root_]; child != kNone; child = tree_.next[child]) price_subtree(child);
}

/// A column is open while it has room.
std::int64_t NetworkSimplex::cheapest_open_column(std::int64_t row) const {
  std::int64_t cheapest = kNone;
  double least = kInfinity;
  for (std::int64_t column = 0; column < columns_; ++column) {
    const double cost = p_.cost[row * width_ + column];
    if (q_.weight[column] > 0 && cost < least) {
      least = cost;
      cheapest = column;
    }
  }
  return cheapest;
}

void NetworkSimplex::attach(std::int64_t node, std::int64_t parent, double flow) {
  const std::int64_t next = tree_.child[parent];
  if (next != kNone) tree_.previous[next] = node;
  tree_.next[node] = next;
  tree_.previous[node] = kNone;
  tree_.child[parent] = node;
  tree_.parent[node] = parent;
  tree_.flow[node] = flow;
}

void NetworkSimplex::detach(std::int64_t node) {
  const std::int64_t previous = tree_.previous[node], next = tree_.next[node];
  (previous == kNone ? tree_.child[tree_.parent[node]] : tree_.next[previous]) = next;
  if (next != kNone) tree_.previous[next] = previous;
}

/// Depths and potentials from those of top's parent: reduced costs of arcs of the tree are 0.
void NetworkSimplex::price_subtree(std::int64_t top) {
  tree_.stack.assign(1, top);
  while (!tree_.stack.empty()) {
    const std::int64_t node = tree_.stack.back(), parent = tree_.parent[node];
    tree_.stack.pop_back();
    tree_.depth[node] = tree_.depth[parent] + 1;
    potential(node) = cost(node, parent) - potential(parent);
    for (std::int64_t child = tree_.child[node]; child != kNone; child = tree_.next[child]) tree_.stack.push_back(child);
  }
}

/// The most negative reduced cost of the next few rows; false if there is none in any row.
bool NetworkSimplex::find_entering(Arc& arc) {
  double least = -tolerance_;
  bool found = false;
  std::int64_t priced = 0;
  for (std::int64_t count = 0; count < rows_ && !(found && priced >= kPricedCosts); ++count, priced += width_) {
    const std::int64_t row = next_row_;
    next_row_ = row + 1 < rows_ ? row + 1 : 0;
    const double* const costs = &p_.cost[row * width_];
    const auto reduced = [&](std::int64_t j) { return load(costs + j) - load(&q_.potential[j]); };
    V lowest = broadcast(kInfinity);
    for (std::int64_t j = 0; j < width_; j += kStep) lowest = min(reduced(j), lowest);
    const double row_least = -horizontal_max(-lowest);
    if (!(row_least - p_.potential[row] < least)) continue;
    least = row_least - p_.potential[row];
    found = true;
    std::int64_t column = 0;
    while (costs[column] - q_.potential[column] != row_least) ++column;
    arc = {row, rows_ + column};
  }
  return found;
}

std::int64_t NetworkSimplex::find_apex(const Arc& arc) const {
  std::int64_t a = arc.row, b = arc.column;
  while (a != b) {
    std::int64_t& deeper = tree_.depth[a] >= tree_.depth[b] ? a : b;
    deeper = tree_.parent[deeper];
  }
  return a;
}

/// Flow goes from the row over the new arc to the column, from there up to the apex, and down to the row. It is taken off the
/// arcs of columns on the way up and off those of rows on the way down. Of the arcs that it leaves empty, the last one after the
/// apex goes: that keeps the tree strongly feasible.
void NetworkSimplex::pivot(const Arc& arc) {
  const std::int64_t apex = find_apex(arc);
  double amount = kInfinity;
  std::int64_t leaving = kNone;
  bool leaves_row_side = true;
  for (std::int64_t node = arc.row; node != apex; node = tree_.parent[node]) {
    if (is_row(node) && tree_.flow[node] < amount) {
      amount = tree_.flow[node];
      leaving = node;
    }
  }
  for (std::int64_t node = arc.column; node != apex; node = tree_.parent[node]) {
    if (!is_row(node) && tree_.flow[node] <= amount) {
      amount = tree_.flow[node];
      leaving = node;
      leaves_row_side = false;
    }
  }
  for (std::int64_t node = arc.row; node != apex; node = tree_.parent[node]) tree_.flow[node] += is_row(node) ? -amount : amount;
  for (std::int64_t node = arc.column; node != apex; node = tree_.parent[node]) {
    tree_.flow[node] += is_row(node) ? amount : -amount;
  }

  // The part of the tree below the leaving arc is hung up at its end of the new one.
  const std::int64_t top = leaves_row_side ? arc.row : arc.column;
  std::int64_t node = top, parent = leaves_row_side ? arc.column : arc.row;
  double flow = amount;
  for (bool last = false; !last;) {
    last = node == leaving;
    const std::int64_t old_parent = tree_.parent[node];
    const double old_flow = tree_.flow[node];
    detach(node);
    attach(node, parent, flow);
    parent = node;
    node = old_parent;
    flow = old_flow;
  }
  price_subtree(top);
}

double NetworkSimplex::total_cost() const {
  double sum = 0;
  for (std::int64_t node = 0; node < rows_ + columns_; ++node) {
    if (node != root_) sum += tree_.flow[node] * cost(node, tree_.parent[node]);
  }
  return sum;
}

/// Equal rows stay where they are if that costs nothing and no cost is below 0. Of the many potentials that prove such a plan
/// best, f = g = 0 is taken: p = q is a minimum, where the gradient should be 0.
bool stays_in_place(const TransportProblem& problem, const math::CostRange& range) {
  const std::size_t n = problem.log_p.size();
  if (range.lowest < 0 || !std::equal(problem.log_p.begin(), problem.log_p.end(), problem.log_q.begin())) return false;
  for (std::size_t i = 0; i < n; ++i) {
    if (problem.cost[i * n + i] != 0) return false;
  }
  return true;
}

double minimum_over(const Side& side, const auto& cost) {
  double least = kInfinity;
  for (std::size_t j = 0; j < side.points.size(); ++j) least = std::min(least, cost(side.points[j]) - side.potential[j]);
  return least;
}

}  // namespace

TransportResult exact_transport(const TransportProblem& problem, TransportWorkspace& workspace, std::span<double> f,
                                std::span<double> g) {
  const math::CostRange range = load_sides(problem, workspace);
  if (!range.usable()) return unusable_cost();
  TransportResult result;
  if (stays_in_place(problem, range)) {
    workspace.q.potential.assign(workspace.q.points.size(), 0.0);
  } else {
    NetworkSimplex simplex(workspace, range.highest - range.lowest);
    result.converged = simplex.solve();
    result.iterations = simplex.pivots();
    result.value = range.lowest + simplex.total_cost();
  }
  // From q's potential, those of all points, with mass or without: none is above what the constraints allow.
  const std::size_t n = problem.log_p.size();
  for (std::size_t i = 0; i < f.size(); ++i) {
    f[i] = minimum_over(workspace.q, [&](std::size_t j) { return problem.cost[i * n + j]; });
  }
  for (std::size_t j = 0; j < g.size(); ++j) {
    g[j] = kInfinity;
    for (std::size_t i = 0; i < n; ++i) g[j] = std::min(g[j], problem.cost[i * n + j] - f[i]);
  }
  return result;
}

}  // namespace dpo::cpu
