// Cholesky factors, triangular systems and eigenvectors of the CUDA backend against their definitions, and the pull-backs against
// differences, in every launch order.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "native/simt/grid.h"
#include "test/native/cuda_support.h"

namespace dpo {
namespace {

using Numbers = std::vector<double>;

constexpr std::int64_t kRows = 37;

const dpo_backend& backend() { return *dpo_backend_open(&host_services()); }

Numbers some(std::int64_t count, std::uint32_t seed) {
  const std::vector<float> values = numbers(count, 1, seed);
  return {values.begin(), values.end()};
}

double at(const Numbers& a, std::int64_t columns, std::int64_t i, std::int64_t j) {
  return a[static_cast<std::size_t>(i * columns + j)];
}

/// A matrix [n, n] by its elements.
template <class Element>
Numbers matrix(std::int64_t n, const Element& element) {
  Numbers values;
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) values.push_back(element(i, j));
  }
  return values;
}

Numbers symmetric(std::int64_t n, std::uint32_t seed) {
  const Numbers a = some(n * n, seed);
  return matrix(n, [&](std::int64_t i, std::int64_t j) { return at(a, n, std::max(i, j), std::min(i, j)); });
}

Numbers definite(std::int64_t n, std::uint32_t seed) {
  const Numbers a = symmetric(n, seed);
  return matrix(n, [&](std::int64_t i, std::int64_t j) { return at(a, n, i, j) + (i == j ? static_cast<double>(n) : 0); });
}

/// [n, k]·[k, m], either transposed.
Numbers product(const Numbers& a, bool a_transposed, const Numbers& b, bool b_transposed, std::int64_t n, std::int64_t k,
                std::int64_t m) {
  Numbers values;
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < m; ++j) {
      double sum = 0;
      for (std::int64_t p = 0; p < k; ++p)
        sum += (a_transposed ? at(a, n, p, i) : at(a, k, i, p)) * (b_transposed ? at(b, k, j, p) : at(b, m, p, j));
      values.push_back(sum);
    }
  }
  return values;
}

void expect_near(const Numbers& one, const Numbers& other, double bound, const char* what) {
  ASSERT_EQ(one.size(), other.size());
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], other[i], bound) << what << " " << i;
}

double dot(const Numbers& one, const Numbers& other) {
  double sum = 0;
  for (std::size_t i = 0; i < one.size(); ++i) sum += one[i] * other[i];
  return sum;
}

dpo_tensor square(Numbers& values, std::int64_t n) { return tensor_of(values, {n, n}, DPO_F64); }

struct Factor {
  Numbers lower, jitter = {-1};
  dpo_job job;
  dpo_status status;

  Factor(Numbers a, std::int64_t n, double share) : lower(a.size(), 7) {
    dpo_cholesky_args args{};
    args.a = square(a, n);
    args.jitter = share;
    args.factor = square(lower, n);
    args.used_jitter = tensor_of(jitter, {1}, DPO_F64);
    status = backend().cholesky(&job, &args);
  }
};

struct Eigen {
  Numbers values, vectors;
  dpo_status status;

  Eigen(Numbers a, std::int64_t n) : values(static_cast<std::size_t>(n)), vectors(a.size()) {
    dpo_eigh_args args{};
    args.a = square(a, n);
    args.values = tensor_of(values, {n}, DPO_F64);
    args.vectors = square(vectors, n);
    dpo_job job;
    status = backend().eigh(&job, &args);
  }

  dpo_status pull_back(dpo_job& job, Numbers& upstream_values, Numbers& upstream_vectors, Numbers& gradient) {
    const auto n = static_cast<std::int64_t>(values.size());
    dpo_eigh_vjp_args args{};
    args.values = tensor_of(values, {n}, DPO_F64);
    args.vectors = square(vectors, n);
    if (!upstream_values.empty()) args.upstream_values = tensor_of(upstream_values, {n}, DPO_F64);
    if (!upstream_vectors.empty()) args.upstream_vectors = square(upstream_vectors, n);
    args.grad_a = square(gradient, n);
    return backend().eigh_vjp(&job, &args);
  }
};

/// The derivative of f(a + t·step) at t = 0.
template <class F>
double slope(const Numbers& a, const Numbers& step, const F& f) {
  const double t = 1e-5;
  Numbers ahead = a, behind = a;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ahead[i] += t * step[i];
    behind[i] -= t * step[i];
  }
  return (f(ahead) - f(behind)) / (2 * t);
}

class CudaLinearAlgebra : public testing::TestWithParam<simt::Order> {
 protected:
  CudaLinearAlgebra() { simt::launch_order() = GetParam(); }
  ~CudaLinearAlgebra() override { simt::launch_order() = simt::Order::forward; }
};

TEST_P(CudaLinearAlgebra, FactorsTheLowerTriangle) {
  const Numbers a = definite(kRows, 1);
  Numbers spoiled = a;
  for (std::int64_t i = 0; i < kRows; ++i) {
    for (std::int64_t j = i + 1; j < kRows; ++j) spoiled[static_cast<std::size_t>(i * kRows + j)] = 1e6;
  }
  const Factor factor(spoiled, kRows, 1e-6);
  ASSERT_EQ(factor.status, DPO_OK);
  EXPECT_EQ(factor.jitter[0], 0);
  expect_near(product(factor.lower, false, factor.lower, true, kRows, kRows, kRows), a, 1e-12, "a");
  for (std::int64_t i = 0; i < kRows; ++i) {
    EXPECT_GT(at(factor.lower, kRows, i, i), 0);
    for (std::int64_t j = i + 1; j < kRows; ++j) EXPECT_EQ(at(factor.lower, kRows, i, j), 0);
  }
}

TEST_P(CudaLinearAlgebra, AddsJitterUntilThereIsAFactor) {
  // Diagonals of mean 2; the least eigenvalue needs the first, the second, the third addition.
  const double least[] = {-1.9e-6, -1.9e-5, -1.9e-4}, added[] = {2e-6, 2e-5, 2e-4};
  for (int i = 0; i < 3; ++i) {
    const Factor factor({4 + least[i], 0, 0, least[i]}, 2, 1e-6);
    ASSERT_EQ(factor.status, DPO_OK) << i;
    EXPECT_NEAR(factor.jitter[0], added[i], 1e-14 * added[i]) << i;
    EXPECT_NEAR(factor.lower[3] * factor.lower[3], least[i] + added[i], 1e-12) << i;
  }
  for (const double share : {0.0, 1e-6}) {
    const Factor none({1, 2, 2, 1}, 2, share);
    EXPECT_EQ(none.status, DPO_ERR_NOT_PSD);
    EXPECT_EQ(none.lower, Numbers(4, 7));
    EXPECT_EQ(none.jitter, Numbers(1, -1));
  }
}

TEST_P(CudaLinearAlgebra, PullsFactorsBack) {
  const std::int64_t n = 6;
  const Numbers a = definite(n, 2), step = symmetric(n, 3);
  Numbers upstream = some(n * n, 4), gradient(a.size());
  Factor factor(a, n, 0);
  dpo_cholesky_vjp_args args{};
  args.factor = square(factor.lower, n);
  args.upstream = square(upstream, n);
  args.grad_a = square(gradient, n);
  dpo_job job;
  ASSERT_EQ(backend().cholesky_vjp(&job, &args), DPO_OK);
  EXPECT_NEAR(dot(gradient, step), slope(a, step, [&](const Numbers& moved) { return dot(Factor(moved, n, 0).lower, upstream); }),
              1e-8);
}

TEST_P(CudaLinearAlgebra, SolvesSystemsAndPullsThemBack) {
  constexpr std::int64_t kColumns = 3;
  for (const bool lower : {true, false}) {
    for (const bool transpose : {false, true}) {
      Numbers a = definite(kRows, 5), b = some(kRows * kColumns, 6), upstream = some(kRows * kColumns, 7);
      Numbers x(b.size()), grad_a(a.size()), grad_b(b.size());
      const auto right = [](Numbers& values) { return tensor_of(values, {kRows, kColumns}, DPO_F64); };
      const auto read = [&](std::int64_t i, std::int64_t j) { return lower ? j <= i : j >= i; };
      const Numbers triangle = matrix(kRows, [&](std::int64_t i, std::int64_t j) { return read(i, j) ? at(a, kRows, i, j) : 0; });
      dpo_job jobs[2];
      dpo_solve_triangular_args args{square(a, kRows), right(b), lower, transpose, right(x)};
      ASSERT_EQ(backend().solve_triangular(&jobs[0], &args), DPO_OK);
      expect_near(product(triangle, transpose, x, false, kRows, kRows, kColumns), b, 1e-12, "b");
      dpo_solve_triangular_vjp_args pull{square(a, kRows),      right(x),     right(upstream), lower, transpose,
                                         square(grad_a, kRows), right(grad_b)};
      ASSERT_EQ(backend().solve_triangular_vjp(&jobs[1], &pull), DPO_OK);
      expect_near(product(triangle, !transpose, grad_b, false, kRows, kRows, kColumns), upstream, 1e-12, "upstream");
      const Numbers outer = product(transpose ? x : grad_b, false, transpose ? grad_b : x, true, kRows, kColumns, kRows);
      const Numbers wanted =
          matrix(kRows, [&](std::int64_t i, std::int64_t j) { return read(i, j) ? -at(outer, kRows, i, j) : 0; });
      expect_near(grad_a, wanted, 1e-14, "grad_a");
    }
  }
}

TEST_P(CudaLinearAlgebra, FindsEigenvectors) {
  const Numbers a = symmetric(kRows, 8);
  const Eigen eigen(a, kRows);
  ASSERT_EQ(eigen.status, DPO_OK);
  expect_near(product(eigen.vectors, true, eigen.vectors, false, kRows, kRows, kRows),
              matrix(kRows, [](std::int64_t i, std::int64_t j) { return i == j ? 1.0 : 0.0; }), 1e-13, "identity");
  const Numbers scaled = matrix(kRows, [&](std::int64_t i, std::int64_t j) {
    return at(eigen.vectors, kRows, i, j) * eigen.values[static_cast<std::size_t>(j)];
  });
  expect_near(product(a, false, eigen.vectors, false, kRows, kRows, kRows), scaled, 1e-13, "a·V");
  EXPECT_TRUE(std::is_sorted(eigen.values.begin(), eigen.values.end()));
  for (std::int64_t j = 0; j < kRows; ++j) {
    double peak = 0;
    for (std::int64_t i = 0; i < kRows; ++i) {
      if (std::fabs(at(eigen.vectors, kRows, i, j)) > std::fabs(peak)) peak = at(eigen.vectors, kRows, i, j);
    }
    EXPECT_GT(peak, 0) << j;
  }
}

TEST_P(CudaLinearAlgebra, ScalesEigenvaluesAndRefusesThoseThatOverflow) {
  for (const double scale : {0x1p-1020, 0x1p1018}) {
    const Eigen eigen({2 * scale, scale, scale, 2 * scale}, 2);
    ASSERT_EQ(eigen.status, DPO_OK);
    expect_near({eigen.values[0] / scale, eigen.values[1] / scale}, {1, 3}, 1e-15, "values");
  }
  EXPECT_EQ(Eigen({0, 0, 0, 0}, 2).values, Numbers(2, 0));
  EXPECT_EQ(Eigen(Numbers(4, 1.7e308), 2).status, DPO_ERR_RANGE);
}

TEST_P(CudaLinearAlgebra, PullsEigenvectorsBack) {
  const std::int64_t n = 6;
  const Numbers a = symmetric(n, 9), step = symmetric(n, 10);
  Numbers upstream_values = some(n, 11), upstream_vectors = some(n * n, 12), none, gradient(a.size());
  Eigen eigen(a, n);
  const auto of_values = [&](const Numbers& moved) { return dot(Eigen(moved, n).values, upstream_values); };
  const auto of_vectors = [&](const Numbers& moved) { return dot(Eigen(moved, n).vectors, upstream_vectors); };
  dpo_job jobs[3];
  ASSERT_EQ(eigen.pull_back(jobs[0], upstream_values, none, gradient), DPO_OK);
  const double first = dot(gradient, step);
  EXPECT_NEAR(first, slope(a, step, of_values), 1e-7);
  ASSERT_EQ(eigen.pull_back(jobs[1], none, upstream_vectors, gradient), DPO_OK);
  const double second = dot(gradient, step);
  EXPECT_NEAR(second, slope(a, step, of_vectors), 1e-7);
  ASSERT_EQ(eigen.pull_back(jobs[2], upstream_values, upstream_vectors, gradient), DPO_OK);
  EXPECT_NEAR(dot(gradient, step), first + second, 1e-12);
}

TEST_P(CudaLinearAlgebra, RefusesUpstreamsThatSeeEqualEigenvaluesTurn) {
  Eigen eigen({1, 0, 0, 0, 3, 0, 0, 0, 3}, 3);
  Numbers none, gradient(9, 7), turning = {0, 0, 0, 0, 0, 1, 0, 0, 0}, still = {0, 1, 0, 0, 0, 0, 0, 0, 0};
  dpo_job jobs[2];
  ASSERT_EQ(eigen.pull_back(jobs[0], none, turning, gradient), DPO_ERR_RANGE);
  EXPECT_EQ(jobs[0].status.index, 2);
  EXPECT_EQ(jobs[0].status.message, "upstream.vectors: eigenvalue 2 is repeated, and its vectors have no gradient");
  EXPECT_EQ(gradient, Numbers(9, 7));
  ASSERT_EQ(eigen.pull_back(jobs[1], none, still, gradient), DPO_OK);
  expect_near(gradient, {0, 0.25, 0, 0.25, 0, 0, 0, 0, 0}, 1e-15, "gradient");
}

INSTANTIATE_TEST_SUITE_P(Orders, CudaLinearAlgebra, testing::ValuesIn(kOrders));

}  // namespace
}  // namespace dpo
