#include "native/core/philox.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

namespace dpo {
namespace {

using Block = std::array<std::uint32_t, 4>;

// kat_vectors of the Random123 distribution, philox4x32 with 10 rounds.
TEST(Philox, GivesThePublishedVectors) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UniformsReachNeitherEnd) {
  EXPECT_EQ(unit_interval(0), 0x1p-53);
  EXPECT_EQ(unit_interval(~0ull), 1 - 0x1p-53);
  EXPECT_EQ(unit_interval(1ull << 63), 0.5 + 0x1p-53);
}

TEST(Philox, UniformsAreUniform) {
  const Philox random{7, 3};
  constexpr int kCount = 200000, kBins = 50;
  std::vector<int> bins(kBins);
  for (int i = 0; i < kCount; ++i) {
    const double u = random.uniform(i);
    ASSERT_GT(u, 0);
    ASSERT_LT(u, 1);
    ++bins[static_cast<std::size_t>(u * kBins)];
  }
  double chi2 = 0;
  for (const int seen : bins) chi2 += std::pow(seen - kCount / double{kBins}, 2) / (kCount / double{kBins});
  EXPECT_LT(chi2, 90);  // 49 degrees of freedom: exceeded once in 3000 seeds
  EXPECT_GT(chi2, 20);
}

TEST(Philox, NormalsAreNormal) {
  const Philox random{11, 0};
  constexpr int kCount = 200000;
  double sum = 0, squares = 0, cubes = 0, fourths = 0, products = 0;
  for (int i = 0; i < kCount; ++i) {
    const double x = random.normal(i);
    sum += x;
    squares += x * x;
    cubes += x * x * x;
    fourths += x * x * x * x;
    products += x * random.normal(i ^ 1);
  }
  const double error = 5 / std::sqrt(double{kCount});
  EXPECT_NEAR(sum / kCount, 0, error);
  EXPECT_NEAR(squares / kCount, 1, error * std::sqrt(2));
  EXPECT_NEAR(cubes / kCount, 0, error * std::sqrt(15));
  EXPECT_NEAR(fourths / kCount, 3, error * std::sqrt(96));
  EXPECT_NEAR(products / kCount, 0, error * std::sqrt(2));
}

TEST(Philox, SeedsAndStreamsAreSequencesOfTheirOwn) {
  std::set<std::uint64_t> seen;
  for (const std::uint64_t seed : {0ull, 1ull, 1ull << 32, ~0ull}) {
    for (const std::uint64_t stream : {0ull, 1ull, 1ull << 32}) {
      for (int i = 0; i < 100; ++i) seen.insert(Philox{seed, stream}.bits(i));
    }
  }
  EXPECT_EQ(seen.size(), 1200u);
}

}  // namespace
}  // namespace dpo
