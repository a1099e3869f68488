#include "native/cpu/transport.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "native/cpu/storage.h"
#include "test/native/accuracy.h"

namespace dpo::cpu {
namespace {

using Row = std::vector<double>;
using Indices = std::vector<std::int64_t>;
using test::Real;

constexpr double kInf = std::numeric_limits<double>::infinity();

std::mt19937_64& generator() {
  static std::mt19937_64 engine(20250607);
  return engine;
}

Row normal(std::size_t count, double scale) {
  std::normal_distribution<double> distribution;
  Row row(count);
  for (double& x : row) x = scale * distribution(generator());
  return row;
}

Row uniform(std::size_t count) {
  std::uniform_real_distribution<double> distribution(0, 1);
  Row row(count);
  for (double& x : row) x = distribution(generator());
  return row;
}

Row log_softmax(Row x) {
  const double max = *std::max_element(x.begin(), x.end());
  Real sum = 0;
  for (const double z : x) sum += std::exp(Real(z) - max);
  for (double& z : x) z = static_cast<double>(Real(z) - max - std::log(sum));
  return x;
}

Row masses(const Row& log_p) {
  Row p;
  for (const double x : log_p) p.push_back(std::exp(x));
  return p;
}

/// C_ij = step·|i − j|^power.
Row line_cost(std::size_t n, double step, double power = 1) {
  Row cost(n * n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) cost[i * n + j] = step * std::pow(i > j ? i - j : j - i, power);
  }
  return cost;
}

double dot(const Row& a, const Row& b) {
  Real sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] == 0 ? 0 : Real(a[i]) * b[i];
  return static_cast<double>(sum);
}

double range_of(const Row& cost) {
  const auto [least, most] = std::minmax_element(cost.begin(), cost.end());
  return *most - *least;
}

struct Solution {
  TransportResult result;
  Row f, g;
};

Solution solve(TransportProblem problem, const Row& log_p, const Row& log_q, const Row& cost) {
  Solution solution{{}, Row(log_p.size()), Row(log_q.size())};
  TransportWorkspace workspace;
  problem.log_p = log_p, problem.log_q = log_q, problem.cost = cost;
  solution.result = solve_transport(problem, workspace, solution.f, solution.g);
  return solution;
}

TransportProblem sinkhorn(double epsilon, double tolerance = 1e-6) {
  TransportProblem problem;
  problem.epsilon = epsilon;
  problem.tolerance = tolerance;
  return problem;
}

TransportProblem exact() {
  TransportProblem problem;
  problem.method = TransportMethod::exact;
  return problem;
}

double exact_value(const Row& log_p, const Row& log_q, const Row& cost) {
  return solve(exact(), log_p, log_q, cost).result.value;
}

struct Case {
  Row log_p, log_q, cost;
};

/// Rows flat and peaked, with and without mass missing; costs of a metric and of no structure at all, also below 0.
std::vector<Case> cases(std::size_t n) {
  std::vector<Case> all;
  for (const double scale : {0.3, 2.0, 8.0}) {
    for (const bool gaps : {false, true}) {
      Row x = normal(n, scale), y = normal(n, scale);
      for (std::size_t i = 1; gaps && i < n; ++i) (i % 3 == 0 ? x : y)[i] = i % 3 < 2 ? -kInf : y[i];
      Row shifted = uniform(n * n);
      for (double& c : shifted) c = 3 * c - 1;
      for (const Row& cost : {uniform(n * n), line_cost(n, 1.0 / static_cast<double>(n)), shifted}) {
        all.push_back({log_softmax(x), log_softmax(y), cost});
      }
    }
  }
  return all;
}

/// P_ij = p_i q_j e^((f_i + g_j − C_ij)/ε).
Row entropic_plan(const Case& c, const Solution& s, double epsilon) {
  const std::size_t n = c.log_p.size();
  Row plan(n * n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      plan[i * n + j] = std::exp(c.log_p[i] + c.log_q[j] + (s.f[i] + s.g[j] - c.cost[i * n + j]) / epsilon);
    }
  }
  return plan;
}

TEST(Sinkhorn, PlanHasTheMarginalsAndTheValue) {
  for (const std::size_t n : {2, 5, 17, 64, 101}) {
    for (const Case& c : cases(n)) {
      for (const double epsilon : {1.0, 0.05, 0.01}) {
        const Solution s = solve(sinkhorn(epsilon, 1e-11), c.log_p, c.log_q, c.cost);
        ASSERT_TRUE(s.result.converged);
        EXPECT_LE(s.result.marginal_error, 1e-11);
        const Row plan = entropic_plan(c, s, epsilon), p = masses(c.log_p), q = masses(c.log_q);
        double error = 0, primal = 0;
        for (std::size_t i = 0; i < n; ++i) {
          double row = 0, column = 0;
          for (std::size_t j = 0; j < n; ++j) {
            row += plan[i * n + j];
            column += plan[j * n + i];
            // P·C + ε·P·ln(P/(p q)) with the logarithm as it was put in.
            primal += plan[i * n + j] * (s.f[i] + s.g[j]);
          }
          error += std::fabs(row - p[i]) + std::fabs(column - q[i]);
        }
        EXPECT_LE(error, 1e-10);
        EXPECT_NEAR(s.result.value, primal, 1e-10);
        EXPECT_NEAR(dot(p, s.f), 0, 1e-13);
        EXPECT_NEAR(s.result.value, dot(q, s.g), 1e-12);
      }
    }
  }
}

TEST(Sinkhorn, TwoPointsInClosedForm) {
  // By symmetry f = g is constant: e^(2f/ε)·(1 + e^(−1/ε))/2 = 1.
  const Row half = {std::log(0.5), std::log(0.5)};
  for (const double epsilon : {10.0, 1.0, 0.1, 0.001}) {
    const double expected = -epsilon * std::log((1 + std::exp(-1 / epsilon)) / 2);
    EXPECT_NEAR(solve(sinkhorn(epsilon, 1e-14), half, half, {0, 1, 1, 0}).result.value, expected, 1e-15 * (1 + epsilon));
  }
}

TEST(Sinkhorn, TendsToTheExactValueFromAbove) {
  for (const std::size_t n : {6, 40}) {
    for (const Case& c : cases(n)) {
      const double limit = exact_value(c.log_p, c.log_q, c.cost), slack = 2e-9 * range_of(c.cost);
      double before = kInf, entropy = 0;
      for (const double x : c.log_p) entropy -= x > -kInf ? std::exp(x) * x : 0;
      for (const double epsilon : {3.0, 0.3, 0.03, 0.003, 0.0003}) {
        const Solution s = solve(sinkhorn(epsilon, 1e-9), c.log_p, c.log_q, c.cost);
        ASSERT_TRUE(s.result.converged) << epsilon;
        EXPECT_GE(s.result.value, limit - slack);
        EXPECT_LE(s.result.value, limit + epsilon * entropy + slack);
        EXPECT_LE(s.result.value, before + slack);
        before = s.result.value;
      }
    }
  }
}

// Plain iterations take thousands to tens of thousands of steps for these.
TEST(Sinkhorn, SmallEpsilonConvergesInTheDefaultNumberOfSteps) {
  for (const std::size_t n : {32, 96}) {
    for (int round = 0; round < 4; ++round) {
      const Row log_p = log_softmax(normal(n, 1)), log_q = log_softmax(normal(n, 1));
      const Row cost = line_cost(n, 1);
      const Solution s = solve(sinkhorn(0.02), log_p, log_q, cost);
      EXPECT_TRUE(s.result.converged);
      EXPECT_LE(s.result.iterations, 1000);
      const double limit = exact_value(log_p, log_q, cost);
      EXPECT_GE(s.result.value, limit - 2e-6 * range_of(cost));
      EXPECT_LE(s.result.value, limit + 0.02 * std::log(n) + 2e-6 * range_of(cost));
    }
  }
}

// Masses down to e^-100, and parts of a plan that exchange next to nothing.
TEST(Sinkhorn, WidelySpreadMassesConverge) {
  for (const std::size_t n : {2, 16, 50}) {
    for (const double epsilon : {0.05, 0.01, 0.001}) {
      for (const double nearness : {1.0, 1e-4}) {
        const Row x = normal(n, 30), step = normal(n, nearness);
        Row y = x;
        for (std::size_t i = 0; i < n; ++i) y[i] += step[i];
        const Row log_p = log_softmax(x), log_q = log_softmax(y), cost = line_cost(n, 1.0 / static_cast<double>(n));
        const Solution s = solve(sinkhorn(epsilon), log_p, log_q, cost);
        EXPECT_TRUE(s.result.converged) << n << " " << epsilon << " " << nearness;
        const double limit = exact_value(log_p, log_q, cost);
        EXPECT_GE(s.result.value, limit - 2e-6);
        EXPECT_LE(s.result.value, limit + epsilon * std::log(n) + 2e-6);
      }
    }
  }
}

TEST(Sinkhorn, LargeCostsAndOffsetsDoNotOverflow) {
  const std::size_t n = 20;
  const Row log_p = log_softmax(normal(n, 2)), log_q = log_softmax(normal(n, 2));
  Row cost = uniform(n * n), large = cost, shifted = cost;
  for (double& c : large) c *= 1e200;
  for (double& c : shifted) c += 1e6;
  const double value = solve(sinkhorn(0.05, 1e-10), log_p, log_q, cost).result.value;
  const Solution scaled = solve(sinkhorn(0.05e200, 1e-10), log_p, log_q, large);
  EXPECT_TRUE(scaled.result.converged);
  EXPECT_NEAR(scaled.result.value / 1e200, value, 1e-9);
  EXPECT_NEAR(solve(sinkhorn(0.05, 1e-8), log_p, log_q, shifted).result.value - 1e6, value, 1e-7);
}

TEST(Sinkhorn, SaysWhenItDoesNotConverge) {
  const Row log_p = log_softmax(normal(30, 1)), log_q = log_softmax(normal(30, 1)), cost = uniform(900);
  TransportProblem problem = sinkhorn(0.01);
  problem.max_iterations = 5;
  const Solution short_of_steps = solve(problem, log_p, log_q, cost);
  EXPECT_FALSE(short_of_steps.result.converged);
  EXPECT_EQ(short_of_steps.result.iterations, 5);
  for (const double epsilon : {1e-13, 1e-30, 1e-305, 5e-324}) {
    EXPECT_FALSE(solve(sinkhorn(epsilon), log_p, log_q, cost).result.converged) << epsilon;
  }
}

TEST(Transport, CostOutOfRangeGivesNan) {
  const Row half = {std::log(0.5), std::log(0.5)};
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), kInf, -kInf, 1e301}) {
    for (const TransportProblem& problem : {sinkhorn(0.05), exact()}) {
      const Solution s = solve(problem, half, half, {0, 1, bad, 0});
      EXPECT_TRUE(std::isnan(s.result.value));
      EXPECT_FALSE(s.result.converged);
    }
  }
}

TEST(ExactTransport, DualsAreFeasibleAndMeetTheValue) {
  for (const std::size_t n : {1, 2, 3, 9, 33, 128}) {
    for (const Case& c : cases(n)) {
      const Solution s = solve(exact(), c.log_p, c.log_q, c.cost);
      ASSERT_TRUE(s.result.converged);
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) EXPECT_LE(s.f[i] + s.g[j], c.cost[i * n + j] + 1e-13);
      }
      // No plan costs less than these duals, so a value equal to theirs is the least, and its plan complementary to them.
      EXPECT_NEAR(s.result.value, dot(masses(c.log_p), s.f) + dot(masses(c.log_q), s.g), 1e-13);
      EXPECT_NEAR(dot(masses(c.log_p), s.f), 0, 1e-14);
    }
  }
}

TEST(ExactTransport, TiesEverywhere) {
  for (const std::size_t n : {4, 16, 60}) {
    const Row flat(n, -std::log(n));
    for (const double levels : {1.0, 2.0, 4.0}) {
      Row cost = uniform(n * n);
      for (double& c : cost) c = std::round(c * levels);
      const Solution s = solve(exact(), flat, flat, cost);
      ASSERT_TRUE(s.result.converged);
      EXPECT_NEAR(s.result.value, dot(masses(flat), s.f) + dot(masses(flat), s.g), 1e-13);
    }
  }
}

TEST(ExactTransport, EqualsTheBestPermutation) {
  for (const std::size_t n : {2, 3, 4, 5, 6}) {
    const Row flat(n, -std::log(n));
    for (int round = 0; round < 20; ++round) {
      const Row cost = uniform(n * n);
      std::vector<std::size_t> order(n);
      std::iota(order.begin(), order.end(), std::size_t{0});
      double best = kInf;
      do {
        double sum = 0;
        for (std::size_t i = 0; i < n; ++i) sum += cost[i * n + order[i]] / static_cast<double>(n);
        best = std::min(best, sum);
      } while (std::next_permutation(order.begin(), order.end()));
      EXPECT_NEAR(exact_value(flat, flat, cost), best, 1e-15);
    }
  }
}

TEST(ExactTransport, OnALineEqualsTheDistanceOfCumulatedMasses) {
  for (const std::size_t n : {2, 7, 50, 300, 512}) {
    for (const double scale : {0.0, 1.0, 20.0}) {
      const Row log_p = log_softmax(normal(n, scale)), log_q = log_softmax(normal(n, 1));
      Real expected = 0, difference = 0;
      for (std::size_t i = 0; i < n; ++i) {
        difference += std::exp(Real(log_p[i])) - std::exp(Real(log_q[i]));
        expected += std::fabs(difference);
      }
      const double step = 1.0 / static_cast<double>(n);
      EXPECT_NEAR(exact_value(log_p, log_q, line_cost(n, step)), static_cast<double>(expected) * step, 1e-13);
    }
  }
}

TEST(Transport, OnePoint) {
  for (TransportProblem problem : {sinkhorn(0.05), exact()}) {
    const Solution s = solve(problem, {0.0}, {0.0}, {3.0});
    EXPECT_TRUE(s.result.converged);
    EXPECT_EQ(s.result.value, 3);
    EXPECT_EQ(s.f[0], 0);
    problem.debias = true;
    EXPECT_EQ(solve(problem, {0.0}, {0.0}, {3.0}).result.value, 0);
  }
}

TEST(Transport, OneHotAndDisjointRows) {
  const std::size_t n = 6;
  const Row cost = uniform(n * n);
  const Row hot2 = {-kInf, -kInf, 0, -kInf, -kInf, -kInf}, hot4 = {-kInf, -kInf, -kInf, -kInf, 0, -kInf};
  const Row even = log_softmax({0.3, -kInf, -0.4, -kInf, 1.1, -kInf}), odd = log_softmax({-kInf, 0.2, -kInf, 0.9, -kInf, -2});
  for (const TransportProblem& problem : {sinkhorn(0.05, 1e-12), exact()}) {
    EXPECT_NEAR(solve(problem, hot2, hot4, cost).result.value, cost[2 * n + 4], 1e-15);
    // All mass goes to one place, so the plan is p itself.
    double expected = 0;
    for (std::size_t i = 0; i < n; ++i) expected += std::exp(even[i]) * cost[i * n + 4];
    EXPECT_NEAR(solve(problem, even, hot4, cost).result.value, expected, 1e-14);
    const Solution s = solve(problem, even, odd, cost);
    EXPECT_TRUE(s.result.converged);
    for (std::size_t i = 0; i < n; ++i) EXPECT_TRUE(std::isfinite(s.f[i]) && std::isfinite(s.g[i]));
  }
}

TEST(Transport, PotentialOfAPointWithoutMassIsTheLimitOfLittleMass) {
  const std::size_t n = 5;
  const Row cost = uniform(n * n), log_q = log_softmax(normal(n, 1));
  Row x = normal(n, 1), y = x;
  x[3] = -kInf;
  y[3] = -60;
  for (const TransportProblem& problem : {sinkhorn(0.1, 1e-13), exact()}) {
    const Row without = solve(problem, log_softmax(x), log_q, cost).f, little = solve(problem, log_softmax(y), log_q, cost).f;
    for (std::size_t i = 0; i < n; ++i) EXPECT_NEAR(without[i], little[i], 1e-11);
  }
}

TEST(Debiased, EqualsItsThreeTransports) {
  for (const bool symmetric : {true, false}) {
    const std::size_t n = 12;
    const Row log_p = log_softmax(normal(n, 1)), log_q = log_softmax(normal(n, 1));
    const Row cost = symmetric ? line_cost(n, 0.1, 2) : uniform(n * n);
    TransportProblem problem = sinkhorn(0.05, 1e-12);
    const double parts = solve(problem, log_p, log_q, cost).result.value -
                         (solve(problem, log_p, log_p, cost).result.value + solve(problem, log_q, log_q, cost).result.value) / 2;
    problem.debias = true;
    EXPECT_NEAR(solve(problem, log_p, log_q, cost).result.value, parts, 1e-15);
  }
}

TEST(Debiased, SelfTransportOfASymmetricCostAgreesWithTheGeneralIteration) {
  const std::size_t n = 40;
  const Row log_p = log_softmax(normal(n, 2));
  Row asymmetric = line_cost(n, 0.05);
  const TransportResult symmetric = solve(sinkhorn(0.05, 1e-12), log_p, log_p, asymmetric).result;
  asymmetric[1] += 1e-15;  // enough for another path
  const TransportResult general = solve(sinkhorn(0.05, 1e-12), log_p, log_p, asymmetric).result;
  EXPECT_NEAR(general.value, symmetric.value, 1e-13);
  EXPECT_LT(2 * symmetric.iterations, general.iterations);
}

TEST(Debiased, IsZeroForEqualRowsAndPositiveForOthers) {
  for (const std::size_t n : {1, 3, 20, 65}) {
    for (const double epsilon : {1.0, 0.05, 0.01}) {
      const Row log_p = log_softmax(normal(n, 2)), log_q = log_softmax(normal(n, 2));
      TransportProblem problem = sinkhorn(epsilon);
      problem.debias = true;
      for (const Row& cost : {line_cost(n, 1.0 / static_cast<double>(n)), uniform(n * n)}) {
        EXPECT_EQ(solve(problem, log_p, log_p, cost).result.value, 0);
      }
      const Solution s = solve(problem, log_p, log_p, line_cost(n, 1.0 / static_cast<double>(n)));
      EXPECT_EQ(s.f, Row(n, 0.0));
      if (n == 1) continue;
      EXPECT_GT(solve(problem, log_p, log_q, line_cost(n, 1.0 / static_cast<double>(n))).result.value, 0);
    }
  }
}

TEST(ExactTransport, IsZeroForEqualRows) {
  for (const std::size_t n : {1, 3, 65}) {
    const Row log_p = log_softmax(normal(n, 2));
    Row cost = uniform(n * n);
    for (std::size_t i = 0; i < n; ++i) cost[i * n + i] = 0;
    const Solution s = solve(exact(), log_p, log_p, cost);
    EXPECT_EQ(s.result.value, 0);
    EXPECT_EQ(s.f, Row(n, 0.0));
    for (std::size_t i = 0; i < n; ++i) cost[i * n + i] = 2;  // then staying is not free, and may not be best
    EXPECT_LT(exact_value(log_p, log_p, cost), n == 1 ? 2.1 : 2);
  }
}

TEST(Transport, WorkspaceLeavesNoTrace) {
  TransportWorkspace used;
  for (const std::size_t n : {50, 7, 23}) {
    for (const Case& c : cases(n)) {
      for (TransportProblem problem : {sinkhorn(0.05), sinkhorn(0.002), exact()}) {
        problem.log_p = c.log_p, problem.log_q = c.log_q, problem.cost = c.cost, problem.debias = true;
        Row f(n), g(n), f_fresh(n), g_fresh(n);
        TransportWorkspace fresh;
        EXPECT_EQ(solve_transport(problem, used, f, g).value, solve_transport(problem, fresh, f_fresh, g_fresh).value);
        EXPECT_EQ(f, f_fresh);
        EXPECT_EQ(g, g_fresh);
      }
    }
  }
}

// --- supports and costs ---

Indices top_k_by_sorting(const Row& p, const Row& q, std::size_t k) {
  Indices chosen;
  for (const Row* row : {&p, &q}) {
    Indices order(row->size());
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return (*row)[a] > (*row)[b]; });
    for (std::size_t i = 0; i < std::min(k, order.size()); ++i) {
      if ((*row)[order[i]] > -kInf) chosen.push_back(order[i]);
    }
  }
  std::sort(chosen.begin(), chosen.end());
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  return chosen;
}

TEST(TopKUnion, EqualsSorting) {
  for (const std::size_t n : {1, 2, 10, 1000, 20000}) {
    for (const std::size_t k : {1, 2, 7, 64, 300}) {
      for (const bool ties : {false, true}) {
        Row p = normal(n, 2), q = normal(n, 2);
        for (std::size_t i = 0; ties && i < n; ++i) p[i] = std::round(p[i]), q[i] = i % 2 ? std::round(q[i]) : -kInf;
        Indices support;
        top_k_union(p, q, static_cast<std::int64_t>(k), support);
        EXPECT_EQ(support, top_k_by_sorting(p, q, k)) << n << " " << k;
      }
    }
  }
}

TEST(TopKUnion, AscendingAndDescendingRows) {
  Row up(5000), down(5000);
  std::iota(up.begin(), up.end(), 0.0);
  std::reverse_copy(up.begin(), up.end(), down.begin());
  Indices support;
  top_k_union(up, down, 2, support);
  EXPECT_EQ(support, (Indices{0, 1, 4998, 4999}));
}

TEST(TopKUnion, NeverChoosesMinusInfinity) {
  Indices support;
  top_k_union(Row{-kInf, -kInf, 1, -kInf}, Row{-kInf, 2, 0, -kInf}, 3, support);
  EXPECT_EQ(support, (Indices{1, 2}));
}

template <class S>
constexpr std::int32_t kDtype = DPO_F32;
template <>
constexpr std::int32_t kDtype<double> = DPO_F64;
template <>
constexpr std::int32_t kDtype<f16> = DPO_F16;
template <>
constexpr std::int32_t kDtype<bf16> = DPO_BF16;

template <class S>
struct Matrix {
  std::vector<S> values;
  dpo_tensor tensor;

  Matrix(const Row& from, std::int64_t rows, std::int64_t columns) {
    for (const double x : from) values.push_back(to_storage<S>(static_cast<compute_t<S>>(x)));
    tensor = {values.data(), {rows, columns}, 2, kDtype<S>, DPO_HOST};
  }
  Real at(std::int64_t row, std::int64_t column) const { return to_compute(values[row * tensor.shape[1] + column]); }
};

template <class S>
class EmbeddingCost : public testing::Test {};
using StorageTypes = testing::Types<float, double, f16, bf16>;
TYPED_TEST_SUITE(EmbeddingCost, StorageTypes);

TYPED_TEST(EmbeddingCost, EqualsItsDefinition) {
  for (const std::int64_t width : {1, 7, 64, 257, 600}) {
    const std::int64_t rows = 11;
    Row values = normal(rows * width, 1);
    std::fill(values.begin() + 4 * width, values.begin() + 5 * width, 0.0);                         // a row of zeros
    std::copy(values.begin() + 2 * width, values.begin() + 3 * width, values.begin() + 9 * width);  // equal rows
    const Matrix<TypeParam> embeddings(values, rows, width);
    const Indices support = {0, 2, 3, 4, 7, 9, 10};
    const std::size_t n = support.size();
    TransportWorkspace workspace;
    Row euclidean(n * n), sqeuclidean(n * n), cosine(n * n);
    embedding_cost(embeddings.tensor, support, TransportMetric::euclidean, workspace, euclidean);
    embedding_cost(embeddings.tensor, support, TransportMetric::sqeuclidean, workspace, sqeuclidean);
    embedding_cost(embeddings.tensor, support, TransportMetric::cosine, workspace, cosine);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        Real square = 0, inner = 0, u = 0, v = 0;
        for (std::int64_t e = 0; e < width; ++e) {
          const Real a = embeddings.at(support[i], e), b = embeddings.at(support[j], e);
          square += (a - b) * (a - b), inner += a * b, u += a * a, v += b * b;
        }
        const std::size_t at = i * n + j, mirrored = j * n + i;
        EXPECT_NEAR(sqeuclidean[at], static_cast<double>(square), 1e-14 * static_cast<double>(square));
        EXPECT_NEAR(euclidean[at], static_cast<double>(std::sqrt(square)), 1e-14 * static_cast<double>(std::sqrt(square)));
        const Real expected = i == j ? 0 : u * v == 0 ? 1 : 1 - inner / std::sqrt(u * v);
        EXPECT_NEAR(cosine[at], static_cast<double>(expected), 5e-15);
        for (const Row* cost : {&euclidean, &sqeuclidean, &cosine}) {
          EXPECT_EQ((*cost)[at], (*cost)[mirrored]);
          if (square == 0 && u > 0) {
            EXPECT_EQ((*cost)[at], 0);
          }
        }
      }
    }
  }
}

TEST(RestrictCost, TakesRowsAndColumns) {
  const Row values = uniform(36);
  const Matrix<float> single(values, 6, 6);
  const Matrix<double> wide(values, 6, 6);
  const Indices support = {1, 2, 5};
  Row from_single(9), from_wide(9);
  restrict_cost(single.tensor, support, from_single);
  restrict_cost(wide.tensor, support, from_wide);
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t j = 0; j < 3; ++j) {
      EXPECT_EQ(from_single[i * 3 + j], static_cast<float>(values[support[i] * 6 + support[j]]));
      EXPECT_EQ(from_wide[i * 3 + j], values[support[i] * 6 + support[j]]);
    }
  }
}

// --- rows of logits ---

dpo_transport_options options(TransportMethod method, bool debias = false) {
  dpo_transport_options result{};
  result.method = static_cast<std::int32_t>(method);
  result.epsilon = 0.1;
  result.debias = debias;
  result.max_iterations = 5000;
  result.tolerance = 1e-13;
  return result;
}

double value_at(const dpo_transport_options& options, const Row& x, const Row& y) {
  TransportWorkspace workspace;
  const TransportResult result = transport_divergence(options, x, y, workspace, {});
  EXPECT_TRUE(result.converged);
  return result.value;
}

Row gradient_at(const dpo_transport_options& options, const Row& x, const Row& y) {
  TransportWorkspace workspace;
  Row gradient(x.size(), std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(transport_divergence(options, x, y, workspace, gradient).value, value_at(options, x, y));
  return gradient;
}

/// |analytic − numeric| relative to the largest element of the gradient.
void expect_slopes(const dpo_transport_options& options, const Row& x, const Row& y, double bound) {
  const Row gradient = gradient_at(options, x, y);
  double largest = 0;
  for (const double slope : gradient) largest = std::max(largest, std::fabs(slope));
  ASSERT_GT(largest, 0);
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i] == -kInf) {
      EXPECT_EQ(gradient[i], 0);
      continue;
    }
    const auto value = [&](double z) {
      Row moved = x;
      moved[i] = z;
      return value_at(options, moved, y);
    };
    EXPECT_NEAR(gradient[i], test::five_point_slope(value, x[i], 1e-3), bound * largest) << i;
  }
}

TEST(TransportDivergence, GradientEqualsFiniteDifferences) {
  for (const std::size_t n : {3, 9, 20}) {
    const Matrix<double> cost(uniform(n * n), n, n);
    Row x = normal(n, 1), y = normal(n, 1);
    x[1] = -kInf;
    y[2] = -kInf;
    for (dpo_transport_options o :
         {options(TransportMethod::sinkhorn), options(TransportMethod::sinkhorn, true), options(TransportMethod::exact)}) {
      o.cost = cost.tensor;
      expect_slopes(o, x, y, 1e-8);
    }
  }
}

TEST(TransportDivergence, GradientOfTheDebiasedSymmetricForm) {
  const std::size_t n = 12;
  const Matrix<double> cost(line_cost(n, 0.1), n, n);
  dpo_transport_options o = options(TransportMethod::sinkhorn, true);
  o.cost = cost.tensor;
  const Row x = normal(n, 1);
  Row y = x, direction = normal(n, 1);
  for (std::size_t i = 0; i < n; ++i) y[i] += 0.1 * direction[i];
  expect_slopes(o, x, normal(n, 1), 1e-8);
  expect_slopes(o, x, y, 1e-7);
}

TEST(TransportDivergence, GradientOverTheLikeliestWordsByEmbeddings) {
  const std::size_t words = 60, width = 9;
  const Matrix<float> embeddings(normal(words * width, 0.2), words, width);
  Row x = normal(words, 1), y = normal(words, 1);
  x[7] = -kInf;
  for (const TransportMetric metric : {TransportMetric::euclidean, TransportMetric::sqeuclidean, TransportMetric::cosine}) {
    for (dpo_transport_options o :
         {options(TransportMethod::sinkhorn), options(TransportMethod::sinkhorn, true), options(TransportMethod::exact)}) {
      o.embeddings = embeddings.tensor;
      o.metric = static_cast<std::int32_t>(metric);
      o.top_k = 8;
      expect_slopes(o, x, y, 1e-7);
      const Row gradient = gradient_at(o, x, y);
      const Indices support = top_k_by_sorting(x, y, 8);
      for (std::size_t i = 0; i < words; ++i) {
        if (!std::binary_search(support.begin(), support.end(), static_cast<std::int64_t>(i))) {
          EXPECT_EQ(gradient[i], 0);
        }
      }
    }
  }
}

TEST(TransportDivergence, TopKEqualsTheRestrictedRows) {
  const std::size_t words = 40, width = 5;
  const Row values = normal(words * width, 1);
  const Matrix<double> embeddings(values, words, width);
  const Row x = normal(words, 1), y = normal(words, 1);
  dpo_transport_options o = options(TransportMethod::sinkhorn);
  o.embeddings = embeddings.tensor;
  o.top_k = 6;
  const Indices support = top_k_by_sorting(x, y, 6);
  Row x_part, y_part, cost;
  for (const std::int64_t i : support) {
    x_part.push_back(x[i]), y_part.push_back(y[i]);
    for (const std::int64_t j : support) {
      double square = 0;
      for (std::size_t e = 0; e < width; ++e) square += std::pow(values[i * width + e] - values[j * width + e], 2);
      cost.push_back(std::sqrt(square));
    }
  }
  const double expected = solve(sinkhorn(0.1, 1e-13), log_softmax(x_part), log_softmax(y_part), cost).result.value;
  EXPECT_NEAR(value_at(o, x, y), expected, 1e-12);
}

TEST(TransportDivergence, ShiftsOfTheLogitsChangeNothing) {
  const std::size_t n = 24;
  const Matrix<float> cost(uniform(n * n), n, n);
  const Row x = normal(n, 1), y = normal(n, 1);
  for (dpo_transport_options o :
       {options(TransportMethod::sinkhorn), options(TransportMethod::sinkhorn, true), options(TransportMethod::exact)}) {
    o.cost = cost.tensor;
    const double value = value_at(o, x, y);
    const Row gradient = gradient_at(o, x, y);
    for (const double shift : {1e4, -1e4}) {
      Row moved = x, other = y;
      for (double& z : moved) z += shift;
      for (double& z : other) z -= shift;
      EXPECT_NEAR(value_at(o, moved, other), value, 1e-11);
      const Row moved_gradient = gradient_at(o, moved, other);
      for (std::size_t i = 0; i < n; ++i) EXPECT_NEAR(moved_gradient[i], gradient[i], 1e-10);
    }
  }
}

TEST(TransportDivergence, EqualRows) {
  const std::size_t words = 50, width = 6;
  const Matrix<bf16> embeddings(normal(words * width, 1), words, width);
  Row x = normal(words, 3);
  x[11] = -kInf;
  for (dpo_transport_options o : {options(TransportMethod::sinkhorn, true), options(TransportMethod::exact)}) {
    o.embeddings = embeddings.tensor;
    o.top_k = 20;
    o.tolerance = 1e-6;
    EXPECT_EQ(value_at(o, x, x), 0);
    EXPECT_EQ(gradient_at(o, x, x), Row(words, 0.0));
  }
}

}  // namespace
}  // namespace dpo::cpu
