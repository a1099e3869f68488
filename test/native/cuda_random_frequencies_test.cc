// random_frequencies of the CUDA backend in every launch order: independent ones to the bit, orthogonal ones against
// Gram and Schmidt.
#include <gtest/gtest.h>

#include <cmath>

#include "native/core/spectral_density.h"
#include "native/math/lane_sum.h"
#include "native/simt/grid.h"
#include "test/native/cuda_support.h"

namespace dpo {
namespace {

using Rows = std::vector<double>;

class CudaRandomFrequencies : public testing::Test {
 protected:
  ~CudaRandomFrequencies() override { simt::launch_order() = simt::Order::forward; }

  dpo_random_frequencies_args args(std::int64_t rows, std::int64_t depth) {
    frequencies_.assign(static_cast<std::size_t>(rows * depth), 0);
    dpo_random_frequencies_args args{};
    args.sigma = 0.7;
    args.seed = 5;
    args.frequencies = tensor_of(frequencies_, {rows, depth}, DPO_F64);
    return args;
  }
  static dpo_status draw(dpo_job& job, const dpo_random_frequencies_args& args) {
    return dpo_backend_open(&host_services())->random_frequencies(&job, &args);
  }
  static double square_of(const SpectralDensity& density, std::int64_t row, std::int64_t count) {
    return math::lane_sum(0, count, [&](double sum, std::int64_t i) { return density.add_square(sum, row, count, i); });
  }

  Rows frequencies_;
};

TEST_F(CudaRandomFrequencies, IndependentOnesHaveTheBitsOfTheFormula) {
  constexpr std::int64_t kRows = 37, kDepth = 9;
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    for (const std::int32_t kind : {DPO_DENSITY_NORMAL, DPO_DENSITY_CAUCHY, DPO_DENSITY_STUDENT}) {
      dpo_random_frequencies_args args = this->args(kRows, kDepth);
      args.density = kind;
      args.freedom = 3;
      dpo_job job;
      ASSERT_EQ(draw(job, args), DPO_OK) << job.status.message;
      const auto density = SpectralDensity::of(args);
      for (std::int64_t i = 0; i < kRows * kDepth; ++i) {
        const double square = square_of(density, i / kDepth, density.length_count(false));
        EXPECT_EQ(frequencies_[static_cast<std::size_t>(i)], density.independent(i / kDepth, i % kDepth, square)) << kind;
      }
    }
  }
}

TEST_F(CudaRandomFrequencies, OrthogonalOnesAreThoseOfGramAndSchmidt) {
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    for (const std::int64_t depth : {1, 2, 7, 40}) {
      const std::int64_t rows = 2 * depth + 1;
      dpo_random_frequencies_args args = this->args(rows, depth);
      args.orthogonal = 1;
      dpo_job job;
      ASSERT_EQ(draw(job, args), DPO_OK) << job.status.message;
      const auto density = SpectralDensity::of(args);
      for (std::int64_t begin = 0; begin < rows; begin += depth) {
        // Columns of the normal rows of the block, made orthonormal in turn.
        std::vector<Rows> units;
        for (std::int64_t c = 0; c < depth; ++c) {
          Rows unit;
          for (std::int64_t i = 0; i < depth; ++i) unit.push_back(density.normal(begin + i, c));
          for (int pass = 0; pass < 2; ++pass) {
            for (const Rows& before : units) {
              double along = 0;
              for (std::size_t i = 0; i < unit.size(); ++i) along += unit[i] * before[i];
              for (std::size_t i = 0; i < unit.size(); ++i) unit[i] -= along * before[i];
            }
          }
          double square = 0;
          for (const double x : unit) square += x * x;
          for (double& x : unit) x /= std::sqrt(square);
          units.push_back(unit);
          if (begin + c >= rows) continue;
          for (std::int64_t i = 0; i < depth; ++i) {
            const double expected = density.orthogonal(unit[static_cast<std::size_t>(i)], square_of(density, begin + c, depth));
            EXPECT_NEAR(frequencies_[static_cast<std::size_t>((begin + c) * depth + i)], expected, 1e-9) << depth;
          }
        }
      }
    }
  }
}

TEST_F(CudaRandomFrequencies, RefuseASigmaThatMakesThemOverflow) {
  dpo_random_frequencies_args args = this->args(2, 3);
  args.sigma = 1e-310;
  dpo_job job;
  EXPECT_EQ(draw(job, args), DPO_ERR_RANGE);
  EXPECT_EQ(job.status.message, "sigma: frequencies overflow");
}

}  // namespace
}  // namespace dpo
