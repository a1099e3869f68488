// pair_kernel of the CUDA backend, in every launch order: values against plain loops, gradients against differences of values,
// and more rows than are worked on at a time against the same rows on their own.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "native/math/log_kernels.h"
#include "native/simt/grid.h"
#include "test/native/cuda_support.h"

namespace dpo {
namespace {

using math::LogKernel;

std::vector<double> wide(std::int64_t count, double half, std::uint32_t seed) {
  const std::vector<float> values = numbers(count, half, seed);
  return {values.begin(), values.end()};
}

/// A mixture of a kernel for each way from rows to a formula, and what all of it is made of.
struct Mixture {
  static constexpr std::int64_t kMembers = 7, kWidth = 3, kLandmarks = 40, kRank = 2;
  std::int64_t depth;
  std::vector<double> sigma{1.5}, scale{4}, polynomial{2, 9}, lambdas{0.7, 0.4}, base_sigma{1.2};
  std::vector<double> factor, diagonal, frequencies, landmarks, projection;
  std::vector<std::int32_t> parents{-1, 0, 0, 0, 0, 0, 0, 0};
  std::vector<double> logits{0, 0.3, -0.2, 0.1, 0.4, -0.5, 0.2, -0.1};

  explicit Mixture(std::int64_t of)
      : depth(of),
        factor(wide(of * kWidth, 0.5, 3)),
        diagonal(wide(of, 0.7, 4)),
        frequencies(wide(kWidth * of, 0.3, 5)),
        landmarks(wide(kLandmarks * of, 0.6, 6)),
        projection(wide(kRank * kLandmarks, 0.5, 7)) {}

  dpo_kernel kernel(bool normalize) {
    dpo_kernel made{};
    made.normalize = normalize;
    const auto add = [&](LogKernel kind, std::vector<double>* parameters) -> dpo_kernel_member& {
      dpo_kernel_member& member = made.members[made.member_count++];
      member.formula.kind = static_cast<std::int32_t>(kind);
      member.formula.floor = 1e-3;
      if (parameters) member.formula.parameters = tensor_of(*parameters, {std::ssize(*parameters)}, DPO_F64);
      return member;
    };
    add(LogKernel::rbf, &sigma);
    add(LogKernel::laplacian, &scale);
    add(LogKernel::polynomial, &polynomial);
    add(LogKernel::mahalanobis, nullptr).map = tensor_of(factor, {depth, kWidth}, DPO_F64);
    add(LogKernel::mahalanobis, nullptr).map = tensor_of(diagonal, {depth}, DPO_F64);
    dpo_kernel_member& spectral = add(LogKernel::spectral, &lambdas);
    spectral.map = tensor_of(projection, {kRank, kLandmarks}, DPO_F64);
    spectral.landmarks = tensor_of(landmarks, {kLandmarks, depth}, DPO_F64);
    spectral.base.kind = static_cast<std::int32_t>(LogKernel::rbf);
    spectral.base.parameters = tensor_of(base_sigma, {1}, DPO_F64);
    add(LogKernel::random_fourier, nullptr).map = tensor_of(frequencies, {kWidth, depth}, DPO_F64);
    made.group_count = 1;
    made.parents = tensor_of(parents, {1 + kMembers}, DPO_I32);
    made.logits = tensor_of(logits, {1 + kMembers}, DPO_F64);
    return made;
  }
};

/// Two right-hand sides.
struct Rows {
  std::int64_t rows, depth;
  std::vector<double> u, v, w, upstream;

  Rows(std::int64_t count, std::int64_t width)
      : rows(count),
        depth(width),
        u(wide(count * width, 0.4, 1)),
        v(wide(count * width, 0.4, 2)),
        w(wide(count * width, 0.4, 8)),
        upstream(wide(2 * count, 1, 9)) {}

  dpo_tensor of(std::vector<double>& values) const { return tensor_of(values, {rows, depth}, DPO_F64); }
  dpo_pair_kernel_args args(const dpo_kernel& kernel, std::vector<double>& log_k) {
    dpo_pair_kernel_args made{};
    made.u = of(u);
    made.side_count = 2;
    made.v[0] = of(v);
    made.v[1] = of(w);
    made.kernel = kernel;
    log_k.resize(static_cast<std::size_t>(2 * rows));
    made.log_k = tensor_of(log_k, {2, rows}, DPO_F64);
    return made;
  }
  /// Σ upstream·ln K.
  double objective(const dpo_kernel& kernel) {
    std::vector<double> log_k;
    const dpo_pair_kernel_args given = args(kernel, log_k);
    dpo_job job;
    EXPECT_EQ(dpo_backend_open(&host_services())->pair_kernel(&job, &given), DPO_OK) << job.status.message;
    double sum = 0;
    for (std::size_t i = 0; i < log_k.size(); ++i) sum += upstream[i] * log_k[i];
    return sum;
  }
};

class CudaPairKernel : public testing::TestWithParam<std::int64_t> {
 protected:
  ~CudaPairKernel() override { simt::launch_order() = simt::Order::forward; }
};

TEST_P(CudaPairKernel, GradientsAreThoseOfTheValues) {
  const std::int64_t depth = GetParam();
  for (const simt::Order order : kOrders) {
    simt::launch_order() = order;
    for (const bool normalize : {false, true}) {
      Mixture mixture(depth);
      Rows rows(3, depth);
      const dpo_kernel kernel = mixture.kernel(normalize);
      std::vector<double> log_k, grad_u(rows.u.size()), grad_v(rows.u.size()), grad_w(rows.u.size());
      std::vector<double> factor(mixture.factor.size()), diagonal(mixture.diagonal.size()), sigma(1), lambdas(2), logits(8);
      dpo_pair_kernel_vjp_args args{};
      args.forward = rows.args(kernel, log_k);
      args.upstream = tensor_of(rows.upstream, {2, rows.rows}, DPO_F64);
      args.grad_u = rows.of(grad_u);
      args.grad_v[0] = rows.of(grad_v);
      args.grad_v[1] = rows.of(grad_w);
      args.grad_kernel.parameters[0] = tensor_of(sigma, {1}, DPO_F64);
      args.grad_kernel.factors[3] = kernel.members[3].map;
      args.grad_kernel.factors[3].data = factor.data();
      args.grad_kernel.factors[4] = tensor_of(diagonal, {depth}, DPO_F64);
      args.grad_kernel.parameters[5] = tensor_of(lambdas, {2}, DPO_F64);
      args.grad_kernel.logits = tensor_of(logits, {8}, DPO_F64);
      dpo_job job;
      ASSERT_EQ(dpo_backend_open(&host_services())->pair_kernel_vjp(&job, &args), DPO_OK) << job.status.message;
      const auto expect_slope = [&](const char* of, std::vector<double>& values, const std::vector<double>& gradient,
                                    std::int64_t i) {
        constexpr double kStep = 1e-5;
        double& value = values[static_cast<std::size_t>(i)];
        const double middle = value;
        value = middle + kStep;
        const double above = rows.objective(kernel);
        value = middle - kStep;
        const double slope = (above - rows.objective(kernel)) / (2 * kStep);
        value = middle;
        EXPECT_NEAR(gradient[static_cast<std::size_t>(i)], slope, 1e-7) << of << " " << i;
      };
      for (const std::int64_t i : {std::int64_t{0}, depth, 3 * depth - 1}) {
        expect_slope("u", rows.u, grad_u, i);
        expect_slope("v", rows.v, grad_v, i);
        expect_slope("w", rows.w, grad_w, i);
      }
      expect_slope("factor", mixture.factor, factor, depth);
      expect_slope("diagonal", mixture.diagonal, diagonal, depth - 1);
      expect_slope("sigma", mixture.sigma, sigma, 0);
      expect_slope("lambdas", mixture.lambdas, lambdas, 1);
      expect_slope("logits", mixture.logits, logits, 4);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Depths, CudaPairKernel, testing::Values(5, 300));

TEST(CudaPairKernels, EqualPlainLoops) {
  constexpr std::int64_t kDepth = 37;
  Mixture mixture(kDepth);
  Rows rows(4, kDepth);
  dpo_kernel kernel = mixture.kernel(false);
  kernel.member_count = 2;
  mixture.parents.resize(3);
  std::vector<double> log_k;
  const dpo_pair_kernel_args args = rows.args(kernel, log_k);
  dpo_job job;
  ASSERT_EQ(dpo_backend_open(&host_services())->pair_kernel(&job, &args), DPO_OK) << job.status.message;
  const double of_rbf = 1 / (1 + std::exp(mixture.logits[2] - mixture.logits[1]));
  for (std::int64_t pair = 0; pair < 8; ++pair) {
    const double* u = rows.u.data() + pair % 4 * kDepth;
    const double* v = (pair < 4 ? rows.v : rows.w).data() + pair % 4 * kDepth;
    double r2 = 0, l1 = 0;
    for (std::int64_t i = 0; i < kDepth; ++i) {
      r2 += (u[i] - v[i]) * (u[i] - v[i]);
      l1 += std::fabs(u[i] - v[i]);
    }
    const double k = of_rbf * std::exp(-r2 / (2 * 1.5 * 1.5)) + (1 - of_rbf) * std::exp(-l1 / 4);
    EXPECT_NEAR(log_k[static_cast<std::size_t>(pair)], std::log(k), 1e-13) << pair;
  }
}

TEST(CudaPairKernels, RowsAreTheSameInAnyChunk) {
  constexpr std::int64_t kDepth = 2, kRows = 9, kLandmarks = 65536, kLast = 2;
  std::vector<double> landmarks = wide(kLandmarks * kDepth, 1, 1), projection = wide(kLandmarks, 1, 2), lambda{1}, sigma{0.5};
  for (double& value : projection) value = std::fabs(value);
  dpo_kernel kernel{};
  kernel.member_count = 1;
  kernel.members[0].formula.kind = static_cast<std::int32_t>(LogKernel::spectral);
  kernel.members[0].formula.floor = 1e-3;
  kernel.members[0].formula.parameters = tensor_of(lambda, {1}, DPO_F64);
  kernel.members[0].map = tensor_of(projection, {1, kLandmarks}, DPO_F64);
  kernel.members[0].landmarks = tensor_of(landmarks, {kLandmarks, kDepth}, DPO_F64);
  kernel.members[0].base.kind = static_cast<std::int32_t>(LogKernel::rbf);
  kernel.members[0].base.parameters = tensor_of(sigma, {1}, DPO_F64);
  std::vector<double> u = wide(kRows * kDepth, 1, 3), v = wide(kRows * kDepth, 1, 4), upstream = wide(kRows, 1, 5);
  struct Found {
    std::vector<double> log_k, grad_u, grad_v, lambda;
  };
  const auto run = [&](std::int64_t first, std::int64_t count) {
    std::vector<double> part_u(u.begin() + first * kDepth, u.begin() + (first + count) * kDepth),
        part_v(v.begin() + first * kDepth, v.begin() + (first + count) * kDepth),
        part_upstream(upstream.begin() + first, upstream.begin() + first + count);
    Found found{std::vector<double>(part_upstream.size()), std::vector<double>(part_u.size()), std::vector<double>(part_u.size()),
                std::vector<double>(1)};
    dpo_pair_kernel_vjp_args args{};
    args.forward.u = tensor_of(part_u, {count, kDepth}, DPO_F64);
    args.forward.side_count = 1;
    args.forward.v[0] = tensor_of(part_v, {count, kDepth}, DPO_F64);
    args.forward.kernel = kernel;
    args.forward.log_k = tensor_of(found.log_k, {1, count}, DPO_F64);
    args.upstream = tensor_of(part_upstream, {1, count}, DPO_F64);
    args.grad_u = tensor_of(found.grad_u, {count, kDepth}, DPO_F64);
    args.grad_v[0] = tensor_of(found.grad_v, {count, kDepth}, DPO_F64);
    args.grad_kernel.parameters[0] = tensor_of(found.lambda, {1}, DPO_F64);
    dpo_job job;
    EXPECT_EQ(dpo_backend_open(&host_services())->pair_kernel_vjp(&job, &args), DPO_OK) << job.status.message;
    return found;
  };
  const Found all = run(0, kRows), first = run(0, kRows - kLast), last = run(kRows - kLast, kLast);
  EXPECT_TRUE(std::equal(last.log_k.begin(), last.log_k.end(), all.log_k.end() - kLast));
  EXPECT_TRUE(std::equal(last.grad_u.begin(), last.grad_u.end(), all.grad_u.end() - kLast * kDepth));
  EXPECT_TRUE(std::equal(last.grad_v.begin(), last.grad_v.end(), all.grad_v.end() - kLast * kDepth));
  EXPECT_NEAR(all.lambda[0], first.lambda[0] + last.lambda[0], 1e-12);
}

}  // namespace
}  // namespace dpo
