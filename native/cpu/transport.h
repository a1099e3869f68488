// Optimal transport between two distributions on one finite support, with the gradient in the first of them (SPEC 4,
// wasserstein).
// The transports are those of native/math/transport.h, or exact:
//            OT(p, q) = min_P ⟨P, C⟩ = max ⟨f, p⟩ + ⟨g, q⟩ subject to f_i + g_j ≤ C_ij; f is a subgradient.
//
// Functions throw nothing but std::bad_alloc.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "native/core/divergence.h"
#include "native/math/transport_kinds.h"

namespace dpo::cpu {

using math::TransportMethod;
using math::TransportMetric;

/// Both rows hold n normalised log-probabilities (−inf: no mass). cost is [n, n], element i·n + j for moving from i to j: any
/// finite numbers, symmetric or not.
struct TransportProblem {
  std::span<const double> log_p, log_q;
  std::span<const double> cost;
  TransportMethod method = TransportMethod::sinkhorn;
  double epsilon = 0.05;
  bool debias = false;
  std::int64_t max_iterations = 1000;  // of Sinkhorn, over all values of ε together
  double tolerance = 1e-6;             // of Sinkhorn: L1 error of the marginals
};

/// `iterations` are Sinkhorn's, or the pivots of an exact transport. They and `marginal_error` are the largest of the three
/// transports that a debiased one consists of.
struct TransportResult {
  double value = 0;
  bool converged = true;
  std::int64_t iterations = 0;
  double marginal_error = 0;
};

/// Working memory, kept from call to call; one for each thread.
struct TransportWorkspace {
  /// One side of a transport: points that carry mass, and what is known of them. Padding: see transport_solvers.h.
  struct Side {
    std::vector<std::int64_t> points;  // their places in the support
    std::vector<double> mass, log_mass;
    std::vector<double> cost;    // a row for every point of this side: the costs to all of the other side
    std::vector<double> kernel;  // Sinkhorn: likewise, e^(potentials − cost/ε)
    std::vector<double> potential, target, absorbed, weight;
  };
  Side p, q;

  /// Exact transport: a spanning tree of p's points, followed by q's; flow is on the arc to the parent.
  struct Tree {
    std::vector<std::int64_t> parent, child, next, previous, depth, stack;
    std::vector<double> flow;
  };
  Tree tree;

  /// Sinkhorn where it is slow: Newton's method.
  struct Newton {
    std::vector<double> scale, direction, start, plan, hessian, gemm;
  };
  Newton newton;

  // One row of logits.
  std::vector<std::int64_t> support;
  std::vector<double> log_p, log_q, embeddings, is_zero, cost;
  std::vector<double> f, self_f, self_g;
};

/// Solves the problem. f and g (n each, or empty: not wanted) receive ∂value/∂p and ∂value/∂q up to constants: f is centred to
/// Σ p f = 0, and for a transport without `debias` g is such that value = Σ q g. Points without mass get the potential that they
/// would have with a little of it.
/// A cost that is not finite, or costs that lie more than 1e300 apart, give the value NaN and converged = false.
TransportResult solve_transport(const TransportProblem& problem, TransportWorkspace& workspace, std::span<double> f,
                                std::span<double> g = {});

/// D(softmax x ‖ softmax y) of two rows of V logits (−inf allowed, at least one finite in each) over all V words, or over the
/// union of the top_k likeliest words of either row, to which both are then restricted and renormalised. `gradient` (V, or empty:
/// not wanted) receives dD/dx = p_j (f_j − Σ p f), and 0 for words outside of the support, which counts as fixed.
/// Of a row that does not converge neither value nor gradient are of use.
TransportResult transport_divergence(const dpo_transport_options& options, std::span<const double> x, std::span<const double> y,
                                     TransportWorkspace& workspace, std::span<double> gradient);

/// Into `support`: the indices of the k largest of p and of the k largest of q, each once, ascending. Equal values go by their
/// index, the lower one first; −inf is never chosen.
void top_k_union(std::span<const double> p, std::span<const double> q, std::int64_t k, std::vector<std::int64_t>& support);

/// Rows and columns `support` of a [V, V] f32 or f64 matrix.
void restrict_cost(const dpo_tensor& matrix, std::span<const std::int64_t> support, std::span<double> cost);

/// Distances between the rows `support` of a [V, E] tensor, computed in f64: symmetric, and exactly 0 between equal rows. The
/// cosine of a row of zeros with any other row counts as 0.
void embedding_cost(const dpo_tensor& embeddings, std::span<const std::int64_t> support, TransportMetric metric,
                    TransportWorkspace& workspace, std::span<double> cost);

}  // namespace dpo::cpu
