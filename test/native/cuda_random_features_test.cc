// random_features and its pull-back on the CUDA backend against plain loops in double, in every launch order, and over several
// chunks of rows.
#include <gtest/gtest.h>

#include <cmath>

#include "native/simt/grid.h"
#include "test/native/cuda_support.h"

namespace dpo {
namespace {

using Numbers = std::vector<double>;

struct Shape {
  std::int64_t rows, depth, count;
};

Numbers widened(const std::vector<float>& values) { return {values.begin(), values.end()}; }

class CudaRandomFeatures : public testing::Test {
 protected:
  ~CudaRandomFeatures() override { simt::launch_order() = simt::Order::forward; }

  void make(const Shape& shape) {
    shape_ = shape;
    x_ = widened(numbers(shape.rows * shape.depth, 1, 1));
    frequencies_ = widened(numbers(shape.count * shape.depth, 2, 2));
    upstream_ = widened(numbers(shape.rows * 2 * shape.count, 1, 3));
  }

  dpo_status transform(dpo_job& job, bool normalize, Numbers& features) {
    features.assign(static_cast<std::size_t>(shape_.rows * 2 * shape_.count), 0);
    dpo_random_features_args args{};
    args.x = tensor_of(x_, {shape_.rows, shape_.depth}, DPO_F64);
    args.frequencies = tensor_of(frequencies_, {shape_.count, shape_.depth}, DPO_F64);
    args.normalize = normalize;
    args.features = tensor_of(features, {shape_.rows, 2 * shape_.count}, DPO_F64);
    return dpo_backend_open(&host_services())->random_features(&job, &args);
  }
  dpo_status pull_back(dpo_job& job, bool normalize, Numbers& grad_x, Numbers& grad_frequencies) {
    grad_x.assign(x_.size(), 0);
    grad_frequencies.assign(frequencies_.size(), 0);
    dpo_random_features_vjp_args args{};
    args.x = tensor_of(x_, {shape_.rows, shape_.depth}, DPO_F64);
    args.frequencies = tensor_of(frequencies_, {shape_.count, shape_.depth}, DPO_F64);
    args.upstream = tensor_of(upstream_, {shape_.rows, 2 * shape_.count}, DPO_F64);
    args.normalize = normalize;
    args.grad_x = tensor_of(grad_x, {shape_.rows, shape_.depth}, DPO_F64);
    args.grad_frequencies = tensor_of(grad_frequencies, {shape_.count, shape_.depth}, DPO_F64);
    return dpo_backend_open(&host_services())->random_features_vjp(&job, &args);
  }

  /// The seen row, what it was multiplied by, and its phases.
  struct Row {
    Numbers seen, phases;
    double scale = 1;
  };
  Row row(std::int64_t r, bool normalize) const {
    Row row;
    for (std::int64_t i = 0; i < shape_.depth; ++i) row.seen.push_back(x_[static_cast<std::size_t>(r * shape_.depth + i)]);
    if (normalize) {
      double length = 0;
      for (const double value : row.seen) length = std::hypot(length, value);
      row.scale = 1 / length;
      for (double& value : row.seen) value *= row.scale;
    }
    for (std::int64_t k = 0; k < shape_.count; ++k) {
      double phase = 0;
      for (std::int64_t i = 0; i < shape_.depth; ++i)
        phase += frequencies_[static_cast<std::size_t>(k * shape_.depth + i)] * row.seen[static_cast<std::size_t>(i)];
      row.phases.push_back(phase);
    }
    return row;
  }

  void expect_features(bool normalize) {
    Numbers features;
    dpo_job job;
    ASSERT_EQ(transform(job, normalize, features), DPO_OK) << job.status.message;
    const double scale = 1 / std::sqrt(static_cast<double>(shape_.count));
    for (std::int64_t r = 0; r < shape_.rows; ++r) {
      const Row row = this->row(r, normalize);
      for (std::int64_t k = 0; k < shape_.count; ++k) {
        const std::int64_t at = r * 2 * shape_.count + k;
        const double phase = row.phases[static_cast<std::size_t>(k)];
        ASSERT_NEAR(features[static_cast<std::size_t>(at)], scale * std::cos(phase), 1e-13);
        ASSERT_NEAR(features[static_cast<std::size_t>(at + shape_.count)], scale * std::sin(phase), 1e-13);
      }
    }
  }

  void expect_gradients(bool normalize) {
    Numbers grad_x, grad_frequencies, expected(frequencies_.size());
    dpo_job job;
    ASSERT_EQ(pull_back(job, normalize, grad_x, grad_frequencies), DPO_OK) << job.status.message;
    const double scale = 1 / std::sqrt(static_cast<double>(shape_.count));
    for (std::int64_t r = 0; r < shape_.rows; ++r) {
      const Row row = this->row(r, normalize);
      Numbers grad(row.seen.size());
      for (std::int64_t k = 0; k < shape_.count; ++k) {
        const std::int64_t at = r * 2 * shape_.count + k;
        const double phase = row.phases[static_cast<std::size_t>(k)];
        const double slope = scale * (std::cos(phase) * upstream_[static_cast<std::size_t>(at + shape_.count)] -
                                      std::sin(phase) * upstream_[static_cast<std::size_t>(at)]);
        for (std::size_t i = 0; i < grad.size(); ++i) {
          const std::size_t w = static_cast<std::size_t>(k * shape_.depth) + i;
          grad[i] += slope * frequencies_[w];
          expected[w] += slope * row.seen[i];
        }
      }
      double along = 0;
      for (std::size_t i = 0; normalize && i < grad.size(); ++i) along += grad[i] * row.seen[i];
      for (std::size_t i = 0; i < grad.size(); ++i) {
        const double value = (grad[i] - along * row.seen[i]) * row.scale;
        ASSERT_NEAR(grad_x[static_cast<std::size_t>(r * shape_.depth) + i], value, 1e-12 * std::max(1.0, row.scale));
      }
    }
    for (std::size_t w = 0; w < expected.size(); ++w) ASSERT_NEAR(grad_frequencies[w], expected[w], 1e-9);
  }

  Shape shape_{};
  Numbers x_, frequencies_, upstream_;
};

TEST_F(CudaRandomFeatures, AndTheirGradientsEqualPlainLoops) {
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    for (const Shape& shape : {Shape{1, 1, 1}, Shape{3, 7, 2}, Shape{5, 300, 33}}) {
      for (const bool normalize : {false, true}) {
        make(shape);
        expect_features(normalize);
        expect_gradients(normalize);
      }
    }
  }
}

TEST_F(CudaRandomFeatures, OverSeveralChunksOfRowsToo) {
  make({1100, 1, 1024});
  expect_features(false);
  expect_gradients(false);
}

TEST_F(CudaRandomFeatures, OfRowsWhoseSquaresLeaveTheRange) {
  make({3, 4, 5});
  for (std::size_t i = 0; i < 4; ++i) x_[i] *= 1e200;
  for (std::size_t i = 4; i < 8; ++i) x_[i] *= 1e-200;
  expect_features(true);
}

TEST_F(CudaRandomFeatures, RefuseTheFirstRowWithoutPhases) {
  make({3, 4, 5});
  std::fill_n(x_.begin() + 4, 4, 0.0);
  std::fill_n(x_.begin() + 8, 4, 1e308);
  Numbers features;
  dpo_job zero, overflow;
  EXPECT_EQ(transform(zero, true, features), DPO_ERR_RANGE);
  EXPECT_EQ(zero.status.message, "x: row 1 is zero and cannot be normalised");
  EXPECT_EQ(zero.status.index, 4);
  EXPECT_EQ(transform(overflow, false, features), DPO_ERR_RANGE);
  EXPECT_EQ(overflow.status.message, "x, frequencies: phases of row 2 overflow");
  EXPECT_EQ(overflow.status.index, 8);
}

}  // namespace
}  // namespace dpo
