// landmarks of the CUDA backend against plain loops over native/core/landmark_choice.h, in every launch order: the same rows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "native/core/landmark_choice.h"
#include "native/simt/grid.h"
#include "test/native/cuda_support.h"

namespace dpo {
namespace {

using Indices = std::vector<std::int32_t>;

struct Shape {
  std::int64_t rows, depth, count;
};

class CudaLandmarks : public testing::TestWithParam<Shape> {
 protected:
  ~CudaLandmarks() override { simt::launch_order() = simt::Order::forward; }

  Indices choose(std::vector<double>& x, std::int32_t method, std::vector<double>* scores = nullptr) {
    Indices indices(static_cast<std::size_t>(GetParam().count));
    args_.x = tensor_of(x, {GetParam().rows, GetParam().depth}, DPO_F64);
    args_.method = method;
    args_.seed = 3;
    args_.scores = scores ? tensor_of(*scores, {GetParam().rows}, DPO_F64) : dpo_tensor{};
    args_.indices = tensor_of(indices, {GetParam().count}, DPO_I32);
    dpo_job job;
    EXPECT_EQ(dpo_backend_open(&host_services())->landmarks(&job, &args_), DPO_OK) << job.status.message;
    return indices;
  }

  Indices far_apart(const std::vector<double>& x) const {
    const auto [rows, depth, count] = GetParam();
    const Philox random = landmark_random(args_);
    const std::int64_t blocks = kmeans::blocks(rows);
    std::vector<double> nearest(static_cast<std::size_t>(rows), INFINITY), sums(static_cast<std::size_t>(blocks));
    Indices chosen;
    const auto sum_of = [](const double* weights, std::int64_t size) {
      return math::lane_sum(0, size, [=](double sum, std::int64_t k) { return sum + weights[k]; });
    };
    const auto next = [&](std::int64_t i) {
      double left = kmeans::passed(random, i, sum_of(sums.data(), blocks));
      const std::int64_t block = kmeans::pass(sums.data(), blocks, left), begin = block * kmeans::kBlockRows;
      const std::int64_t size = std::min(kmeans::kBlockRows, rows - begin);
      if (block < blocks) {
        const std::int64_t at = kmeans::pass(nearest.data() + begin, size, left);
        if (at < size) return begin + at;
      }
      for (std::int64_t row = rows; row-- > 0;) {
        if (nearest[static_cast<std::size_t>(row)] > 0) return row;
      }
      std::int64_t row = 0;
      while (std::find(chosen.begin(), chosen.end(), row) != chosen.end()) ++row;
      return row;
    };
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t row = i == 0 ? kmeans::first_row(random, rows) : next(i);
      chosen.push_back(static_cast<std::int32_t>(row));
      for (std::int64_t r = 0; r < rows; ++r) {
        const double *from = x.data() + r * depth, *to = x.data() + row * depth;
        const double distance = math::lane_sum(
            0, depth, [=](double sum, std::int64_t k) { return kmeans::add_squared_difference(sum, from[k], to[k]); });
        double& before = nearest[static_cast<std::size_t>(r)];
        before = std::min(before, distance);
      }
      for (std::int64_t block = 0; block < blocks; ++block) {
        const std::int64_t begin = block * kmeans::kBlockRows;
        sums[static_cast<std::size_t>(block)] = sum_of(nearest.data() + begin, std::min(kmeans::kBlockRows, rows - begin));
      }
    }
    return chosen;
  }

  Indices sampled(const std::vector<double>* scores) const {
    std::vector<RankedRow> ranked;
    for (std::int64_t row = 0; row < GetParam().rows; ++row)
      ranked.push_back(RankedRow::of(landmark_random(args_), row, scores ? (*scores)[static_cast<std::size_t>(row)] : 1));
    std::sort(ranked.begin(), ranked.end());
    Indices chosen;
    for (std::int64_t i = 0; i < GetParam().count; ++i)
      chosen.push_back(static_cast<std::int32_t>(ranked[static_cast<std::size_t>(i)].row));
    return chosen;
  }

  dpo_landmarks_args args_{};
};

TEST_P(CudaLandmarks, AreThoseOfPlainLoops) {
  const auto [rows, depth, count] = GetParam();
  const std::vector<float> given = numbers(rows * depth, 2, 7), weights = numbers(rows, 1, 8);
  std::vector<double> x(given.begin(), given.end()), scores;
  for (const float weight : weights) scores.push_back(std::max(0.0, static_cast<double>(weight)));
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    const Indices uniform = choose(x, DPO_LANDMARKS_UNIFORM);
    EXPECT_EQ(uniform, sampled(nullptr));
    const Indices leverage = choose(x, DPO_LANDMARKS_LEVERAGE, &scores);
    EXPECT_EQ(leverage, sampled(&scores));
    const Indices kmeans = choose(x, DPO_LANDMARKS_KMEANS);
    EXPECT_EQ(kmeans, far_apart(x));
  }
}

TEST_P(CudaLandmarks, OfEqualRowsAreAllDifferent) {
  std::vector<double> x(static_cast<std::size_t>(GetParam().rows * GetParam().depth), 0.5);
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    Indices chosen = choose(x, DPO_LANDMARKS_KMEANS);
    EXPECT_EQ(chosen, far_apart(x));
    std::sort(chosen.begin(), chosen.end());
    EXPECT_EQ(std::adjacent_find(chosen.begin(), chosen.end()), chosen.end());
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaLandmarks,
                         testing::Values(Shape{1, 1, 1}, Shape{2, 3, 2}, Shape{37, 5, 37}, Shape{300, 40, 9}, Shape{700, 2, 4}));

}  // namespace
}  // namespace dpo
