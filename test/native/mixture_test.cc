#include "native/math/mixture.h"

#include <gtest/gtest.h>

#include <vector>

#include "test/native/accuracy.h"

namespace dpo::math {
namespace {

using test::Real;

struct Tree {
  std::int64_t groups;
  std::vector<std::int32_t> parents;
  std::vector<double> logits;

  MixtureTree view() const { return {groups, static_cast<std::int64_t>(parents.size()) - groups, parents.data(), logits.data()}; }
  std::vector<double> log_shares() const {
    std::vector<double> shares(parents.size());
    mixture_log_shares(view(), shares.data());
    return shares;
  }
  std::vector<double> log_weights() const {
    std::vector<double> weights(parents.size());
    mixture_log_weights(view(), log_shares().data(), weights.data());
    return weights;
  }
  std::vector<double> entropies() const {
    std::vector<double> entropies(static_cast<std::size_t>(groups));
    mixture_entropies(view(), log_shares().data(), entropies.data());
    return entropies;
  }
};

/// The tree of the paper: two groups of two kernels.
Tree hmk() { return {3, {-1, 0, 0, 1, 1, 2, 2}, {0, 0.3, -0.4, 1.2, 0.1, -0.7, 0.5}}; }

/// Groups of one, groups beside kernels, and three levels.
Tree uneven() { return {4, {-1, 0, 1, 0, 0, 1, 2, 3, 2}, {9, 0.2, -1, 0.7, 0.4, 0.8, -0.3, 5, 0.6}}; }

const std::vector<Tree> kTrees = {{1, {-1, 0}, {0, 3}}, {1, {-1, 0, 0, 0}, {0, 1, -2, 0.5}}, hmk(), uneven()};

TEST(Mixture, SharesOfEachGroupAndWeightsOfKernelsAddUpToOne) {
  for (const Tree& tree : kTrees) {
    const auto shares = tree.log_shares(), weights = tree.log_weights();
    for (std::int32_t group = 0; group < tree.groups; ++group) {
      Real sum = 0;
      for (std::size_t node = 1; node < shares.size(); ++node)
        sum += tree.parents[node] == group ? std::exp(Real(shares[node])) : 0;
      EXPECT_NEAR(double(sum), 1, 1e-15);
    }
    Real sum = 0;
    for (std::size_t node = static_cast<std::size_t>(tree.groups); node < weights.size(); ++node)
      sum += std::exp(Real(weights[node]));
    EXPECT_NEAR(double(sum), 1, 1e-15);
  }
}

TEST(Mixture, WeightsAreProductsOfShares) {
  const Tree tree = hmk();
  const Real local = 1 / (1 + std::exp(Real(-0.4) - Real(0.3))), rbf = 1 / (1 + std::exp(Real(0.1) - Real(1.2)));
  EXPECT_NEAR(tree.log_weights()[3], double(std::log(local * rbf)), 1e-15);
  EXPECT_NEAR(tree.log_weights()[4], double(std::log(local * (1 - rbf))), 1e-15);
}

TEST(Mixture, EntropyIsThatOfTheShares) {
  for (const Tree& tree : kTrees) {
    const auto shares = tree.log_shares(), entropies = tree.entropies();
    for (std::size_t group = 0; group < entropies.size(); ++group) {
      Real entropy = 0;
      for (std::size_t node = 1; node < shares.size(); ++node) {
        if (tree.parents[node] == std::int32_t(group)) entropy -= std::exp(Real(shares[node])) * Real(shares[node]);
      }
      EXPECT_NEAR(entropies[group], double(entropy), 1e-15);
    }
  }
  const Tree even{1, {-1, 0, 0, 0, 0}, {0, 2, 2, 2, 2}};
  EXPECT_NEAR(std::exp(even.entropies()[0]), 4, 1e-14);
}

/// ln Σ_m w_m·e^values[m] + entropy_upstream·Σ_groups H.
double objective(const Tree& tree, const std::vector<double>& values, double entropy_upstream) {
  LogSumExp<double> sum{};
  const auto weights = tree.log_weights();
  for (std::size_t m = 0; m < values.size(); ++m) sum.add(weights[static_cast<std::size_t>(tree.groups) + m] + values[m]);
  double total = sum.value();
  for (const double entropy : tree.entropies()) total += entropy_upstream * entropy;
  return total;
}

TEST(Mixture, PullBackEqualsFiniteDifferences) {
  for (const Tree& tree : kTrees) {
    const std::size_t groups = static_cast<std::size_t>(tree.groups), members = tree.parents.size() - groups;
    std::vector<double> values(members);
    for (std::size_t m = 0; m < members; ++m) values[m] = -0.8 * double(m % 3) - 0.1;
    for (const double entropy_upstream : {0.0, 0.7}) {
      std::vector<double> grads(tree.parents.size());
      const double total = objective(tree, values, 0);
      const auto weights = tree.log_weights();
      for (std::size_t m = 0; m < members; ++m) grads[groups + m] = std::exp(weights[groups + m] + values[m] - total);
      mixture_pull_back(tree.view(), tree.log_shares().data(), tree.entropies().data(), entropy_upstream, grads.data());
      EXPECT_EQ(grads[0], 0);
      for (std::size_t node = 1; node < grads.size(); ++node) {
        const auto value = [&](double logit) {
          Tree moved = tree;
          moved.logits[node] = logit;
          return objective(moved, values, entropy_upstream);
        };
        EXPECT_NEAR(grads[node], test::five_point_slope(value, tree.logits[node], 1e-3), 1e-9) << "node " << node;
      }
    }
  }
}

TEST(Mixture, LogitsThatLeaveOneMemberEverythingStayFinite) {
  const Tree tree{1, {-1, 0, 0, 0}, {0, 700, -700, -1e300}};
  const auto shares = tree.log_shares(), entropies = tree.entropies();
  EXPECT_EQ(shares[1], 0);
  EXPECT_EQ(shares[2], -1400);
  EXPECT_EQ(entropies[0], 0);
  std::vector<double> grads{0, 0.5, 0.25, 0.25};
  mixture_pull_back(tree.view(), shares.data(), entropies.data(), 3, grads.data());
  EXPECT_EQ(grads, (std::vector<double>{0, -0.5, 0.25, 0.25}));
}

TEST(Mixture, GradientsOfAGroupAddUpToZero) {
  for (const Tree& tree : kTrees) {
    std::vector<double> grads(tree.parents.size(), 0.3);
    mixture_pull_back(tree.view(), tree.log_shares().data(), tree.entropies().data(), 0.4, grads.data());
    for (std::int32_t group = 0; group < tree.groups; ++group) {
      double sum = 0;
      for (std::size_t node = 1; node < grads.size(); ++node) sum += tree.parents[node] == group ? grads[node] : 0;
      EXPECT_NEAR(sum, 0, 1e-14);
    }
  }
}

}  // namespace
}  // namespace dpo::math
