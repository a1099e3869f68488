// Transport on a cost by the CUDA backend against plain loops in double, in every launch order: supports of one warp and of
// several, ties among the likeliest words, words without mass, ε so small that Newton's method has to finish, and debiased costs
// of no symmetry.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "native/math/divergences.h"
#include "native/math/transport_kinds.h"
#include "native/simt/grid.h"
#include "test/native/cuda_support.h"

namespace dpo {
namespace {

using math::TransportMethod;
using math::TransportMetric;
using Row = std::vector<double>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Case {
  std::int64_t columns, top_k;  // top_k: of embeddings; 0: a cost
  TransportMetric metric;
  bool debias;
  double epsilon;
};

constexpr std::int64_t kRows = 3, kDepth = 19;

double log_sum_exp(const Row& x) {
  const double max = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const double value : x) sum += std::exp(value - max);
  return max + std::log(sum);
}

Row log_softmax(Row x) {
  const double sum = log_sum_exp(x);
  for (double& value : x) value -= sum;
  return x;
}

struct Potentials {
  Row f, g;
  double value;
};

/// f_i = −ε ln Σ_j q_j e^((g_j − C_ij)/ε) and likewise g, in turns until they stay.
Potentials plain_sinkhorn(const Row& log_p, const Row& log_q, const Row& cost, double epsilon) {
  const std::size_t n = log_p.size();
  Potentials found{Row(n), Row(n), 0};
  Row terms(n);
  for (double change = 1; change > 1e-14;) {
    change = 0;
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) terms[j] = log_q[j] + (found.g[j] - cost[i * n + j]) / epsilon;
      const double next = -epsilon * log_sum_exp(terms);
      change = std::max(change, std::fabs(next - found.f[i]));
      found.f[i] = next;
    }
    for (std::size_t j = 0; j < n; ++j) {
      for (std::size_t i = 0; i < n; ++i) terms[i] = log_p[i] + (found.f[i] - cost[i * n + j]) / epsilon;
      found.g[j] = -epsilon * log_sum_exp(terms);
    }
  }
  for (std::size_t i = 0; i < n; ++i) found.value += std::exp(log_p[i]) * found.f[i] + std::exp(log_q[i]) * found.g[i];
  return found;
}

struct Expected {
  double value;
  Row gradient;
};

Expected plain_transport(const Row& log_p, const Row& log_q, const Row& cost, const Case& of) {
  Potentials found = plain_sinkhorn(log_p, log_q, cost, of.epsilon);
  if (of.debias) {
    const Potentials p = plain_sinkhorn(log_p, log_p, cost, of.epsilon), q = plain_sinkhorn(log_q, log_q, cost, of.epsilon);
    found.value -= (p.value + q.value) / 2;
    for (std::size_t i = 0; i < found.f.size(); ++i) found.f[i] -= (p.f[i] + p.g[i]) / 2;
  }
  double mean = 0;
  for (std::size_t i = 0; i < found.f.size(); ++i) mean += std::exp(log_p[i]) * found.f[i];
  Expected expected{found.value, {}};
  for (std::size_t i = 0; i < found.f.size(); ++i) expected.gradient.push_back(std::exp(log_p[i]) * (found.f[i] - mean));
  return expected;
}

/// The likeliest words of a row, the first ones of equals.
std::vector<std::size_t> likeliest(const Row& x, std::int64_t count) {
  std::vector<std::size_t> order(x.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return x[a] > x[b]; });
  order.resize(std::min(order.size(), static_cast<std::size_t>(count)));
  std::erase_if(order, [&](std::size_t i) { return x[i] == -kInfinity; });
  return order;
}

std::vector<std::size_t> support_of(const Row& x, const Row& y, std::int64_t top_k) {
  std::vector<std::size_t> words = likeliest(x, top_k), others = likeliest(y, top_k);
  words.insert(words.end(), others.begin(), others.end());
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  return words;
}

double distance(const float* u, const float* v, TransportMetric metric) {
  double square = 0, inner = 0, uu = 0, vv = 0;
  for (std::int64_t e = 0; e < kDepth; ++e) {
    const double a = u[e], b = v[e];
    square += (a - b) * (a - b), inner += a * b, uu += a * a, vv += b * b;
  }
  if (metric == TransportMetric::cosine) return uu * vv == 0 ? 1 : 1 - inner / std::sqrt(uu * vv);
  return metric == TransportMetric::euclidean ? std::sqrt(square) : square;
}

/// A call with everything that it reads.
struct Problem {
  Case of;
  Row policy, reference, cost, upstream = {1, -2, 0.5}, target_upstream = {0.25, 0, -1}, values = Row(kRows), gradient;
  std::vector<std::int32_t> targets;
  std::vector<float> embeddings;

  explicit Problem(const Case& which) : of(which) {
    const std::int64_t count = kRows * of.columns;
    const std::vector<float> x = numbers(count, 2, 1), y = numbers(count, 2, 2), c = numbers(of.columns * of.columns, 0.5, 3);
    policy.assign(x.begin(), x.end());
    reference.assign(y.begin(), y.end());
    gradient.resize(static_cast<std::size_t>(count));
    targets.assign(kRows, static_cast<std::int32_t>(of.columns - 1));
    for (const float value : c) cost.push_back(value + 0.5);
    embeddings = numbers(of.columns * kDepth, 1, 4);
    if (of.top_k == 0) return;
    for (double& logit : policy) logit = std::round(logit * 2) / 2;
    for (std::int64_t i = 1; i < of.columns; i += 5) reference[static_cast<std::size_t>(i)] = -kInfinity;
    std::fill_n(embeddings.begin() + kDepth, kDepth, 0.f);
  }

  dpo_divergence_args args() {
    dpo_divergence_args args{};
    args.policy = tensor_of(policy, {kRows, of.columns}, DPO_F64);
    args.reference = tensor_of(reference, {kRows, of.columns}, DPO_F64);
    args.divergence.kind = static_cast<std::int32_t>(math::Divergence::transport);
    dpo_transport_options& options = args.divergence.transport;
    if (of.top_k > 0) options.embeddings = tensor_of(embeddings, {of.columns, kDepth}, DPO_F32);
    if (of.top_k == 0) options.cost = tensor_of(cost, {of.columns, of.columns}, DPO_F64);
    options.top_k = of.top_k;
    options.metric = static_cast<std::int32_t>(of.metric);
    options.epsilon = of.epsilon;
    options.debias = of.debias;
    options.max_iterations = 100000;
    options.tolerance = 1e-13;
    args.options = {1, 0};
    args.upstream = tensor_of(upstream, {kRows}, DPO_F64);
    args.targets = tensor_of(targets, {kRows}, DPO_I32);
    args.target_upstream = tensor_of(target_upstream, {kRows}, DPO_F64);
    args.values = tensor_of(values, {kRows}, DPO_F64);
    args.grad_policy = tensor_of(gradient, {kRows, of.columns}, DPO_F64);
    return args;
  }

  Row row_of(const Row& rows, std::int64_t row) const {
    return {rows.begin() + row * of.columns, rows.begin() + (row + 1) * of.columns};
  }

  /// The value, and the gradient with both upstreams.
  Expected expected(std::int64_t row) const {
    const Row x = row_of(policy, row), y = row_of(reference, row);
    const std::vector<std::size_t> words = support_of(x, y, of.top_k > 0 ? of.top_k : of.columns);
    Row p, q, costs;
    for (const std::size_t i : words) {
      p.push_back(x[i]), q.push_back(y[i]);
      for (const std::size_t j : words) {
        const double between =
            i == j ? 0 : distance(&embeddings[i * std::size_t{kDepth}], &embeddings[j * std::size_t{kDepth}], of.metric);
        costs.push_back(of.top_k > 0 ? between : cost[i * static_cast<std::size_t>(of.columns) + j]);
      }
    }
    const Expected among = plain_transport(log_softmax(p), log_softmax(q), costs, of);
    const auto at = static_cast<std::size_t>(row);
    Expected all{among.value, {}};
    for (const double log_prob : log_softmax(x)) all.gradient.push_back(-target_upstream[at] * std::exp(log_prob));
    all.gradient[static_cast<std::size_t>(targets[at])] += target_upstream[at];
    for (std::size_t place = 0; place < words.size(); ++place) all.gradient[words[place]] += upstream[at] * among.gradient[place];
    return all;
  }
};

dpo_status run(const dpo_divergence_args& args, dpo_job& job) {
  return dpo_backend_open(&host_services())->divergence(&job, &args);
}

class CudaTransport : public testing::TestWithParam<Case> {
 protected:
  ~CudaTransport() override { simt::launch_order() = simt::Order::forward; }
};

TEST_P(CudaTransport, EqualsPlainLoops) {
  Problem problem(GetParam());
  std::vector<Expected> expected;
  for (std::int64_t row = 0; row < kRows; ++row) expected.push_back(problem.expected(row));
  Row first;
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    dpo_job job;
    ASSERT_EQ(run(problem.args(), job), DPO_OK) << job.status.message;
    for (std::size_t row = 0; row < std::size_t{kRows}; ++row) {
      EXPECT_NEAR(problem.values[row], expected[row].value, 1e-11);
      for (std::size_t j = 0; j < expected[row].gradient.size(); ++j) {
        EXPECT_NEAR(problem.gradient[row * expected[row].gradient.size() + j], expected[row].gradient[j], 1e-10)
            << row << " " << j;
      }
    }
    if (first.empty()) first = problem.gradient;
    EXPECT_EQ(problem.gradient, first);
  }
}

constexpr TransportMetric kEuclidean = TransportMetric::euclidean;
INSTANTIATE_TEST_SUITE_P(Cases, CudaTransport,
                         testing::Values(Case{1, 0, kEuclidean, false, 0.1}, Case{9, 0, kEuclidean, false, 0.1},
                                         Case{20, 0, kEuclidean, false, 0.004}, Case{9, 0, kEuclidean, true, 0.1},
                                         Case{9, 9, kEuclidean, true, 0.5}, Case{40, 0, kEuclidean, false, 0.5},
                                         Case{100, 0, kEuclidean, false, 1}, Case{260, 0, kEuclidean, false, 3},
                                         Case{300, 4, kEuclidean, false, 0.5}, Case{40, 3, kEuclidean, false, 0.5},
                                         Case{50, 20, TransportMetric::sqeuclidean, true, 2},
                                         Case{37, 37, TransportMetric::cosine, false, 0.5}));

TEST(CudaTransportRefusals, NameTheRowAndTheMethod) {
  Problem problem(Case{5, 0, kEuclidean, false, 0.01});
  dpo_divergence_args args = problem.args();
  args.divergence.transport.max_iterations = 2;
  problem.targets[0] = DPO_IGNORED_TARGET;
  dpo_job not_converged;
  EXPECT_EQ(run(args, not_converged), DPO_ERR_RANGE);
  EXPECT_EQ(not_converged.status.message,
            "wasserstein: row 1 did not reach the tolerance; raise maxIterations, epsilon or tolerance");
  args.divergence.transport.method = static_cast<std::int32_t>(TransportMethod::exact);
  dpo_job exact;
  EXPECT_EQ(run(args, exact), DPO_ERR_BACKEND);
}

}  // namespace
}  // namespace dpo
