#include "native/cpu/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <random>
#include <span>
#include <tuple>
#include <vector>

namespace dpo::cpu {
namespace {

template <class T>
struct CacheLineAllocator {
  using value_type = T;
  CacheLineAllocator() = default;
  template <class U>
  explicit CacheLineAllocator(const CacheLineAllocator<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64})); }
  void deallocate(T* p, std::size_t) { ::operator delete (p, std::align_val_t{64}); }
  bool operator==(const CacheLineAllocator&) const { return true; }
};

template <class T>
using Buffer = std::vector<T, CacheLineAllocator<T>>;

std::size_t count(std::int64_t n) { return static_cast<std::size_t>(n); }

// A matrix in memory exactly as large as it has to be, so that a sanitizer sees reads beyond it.
enum class Layout { rows, columns, strided };

template <class S>
struct Matrix {
  std::vector<S> data;
  std::int64_t rows, cols;
  MatrixView<S> view;

  Matrix(std::int64_t m, std::int64_t n, Layout layout, unsigned seed) : rows(m), cols(n) {
    const std::int64_t row_stride = layout == Layout::rows ? n : layout == Layout::columns ? 1 : 2 * n + 1;
    const std::int64_t col_stride = layout == Layout::rows ? 1 : layout == Layout::columns ? m : 2;
    data.resize(count(m > 0 && n > 0 ? (m - 1) * row_stride + (n - 1) * col_stride + 1 : 0));
    std::mt19937 random(seed);
    std::uniform_real_distribution<compute_t<S>> values(-1, 1);
    for (S& value : data) {
      value = to_storage<S>(values(random));
    }
    view = {data.data(), row_stride, col_stride};
  }

  double at(std::int64_t i, std::int64_t j) const {
    return static_cast<double>(to_compute(data[count(i * view.row_stride + j * view.col_stride)]));
  }
};

constexpr std::int64_t kPadding = 3;

// C with padding after each row, all of it filled with a known value.
template <class T>
std::vector<T> result_matrix(std::int64_t m, std::int64_t n) {
  return std::vector<T>(count(m * (n + kPadding)), T(0.5));
}

template <class A, class B>
void check(std::int64_t m, std::int64_t n, std::int64_t depth, Layout a_layout, Layout b_layout, Update update) {
  using T = compute_t<A>;
  SCOPED_TRACE(testing::Message() << m << "x" << n << "x" << depth << " layouts " << static_cast<int>(a_layout)
                                  << static_cast<int>(b_layout) << " update " << static_cast<int>(update));
  const Matrix<A> a(m, depth, a_layout, 1);
  const Matrix<B> b(depth, n, b_layout, 2);
  const std::int64_t stride = n + kPadding;
  Buffer<T> workspace(gemm_workspace<T>);
  const std::span<T> work(workspace);
  auto c = result_matrix<T>(m, n);
  gemm(a.view, b.view, m, n, depth, c.data(), stride, update, work);

  const double epsilon = std::numeric_limits<T>::epsilon();
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < stride; ++j) {
      double sum = update == Update::accumulate ? 0.5 : 0;
      double size = std::abs(sum);
      if (j < n) {
        for (std::int64_t k = 0; k < depth; ++k) {
          sum += a.at(i, k) * b.at(k, j);
          size += std::abs(a.at(i, k) * b.at(k, j));
        }
      } else {
        sum = 0.5;
      }
      ASSERT_NEAR(static_cast<double>(c[count(i * stride + j)]), sum,
                  epsilon * (2 + std::sqrt(static_cast<double>(depth))) * size)
          << i << "," << j;
    }
  }

  // Packing beforehand must not change a bit.
  Buffer<T> lhs_buffer(PackedLhs<T>::size(m, depth));
  Buffer<T> rhs_buffer(PackedRhs<T>::size(n, depth));
  PackedLhs<T> lhs(lhs_buffer, m, depth);
  PackedRhs<T> rhs(rhs_buffer, n, depth);
  lhs.pack(a.view);
  rhs.pack(b.view);
  auto both = result_matrix<T>(m, n);
  auto left = result_matrix<T>(m, n);
  auto right = result_matrix<T>(m, n);
  gemm(lhs, {0, m}, rhs, {0, n}, both.data(), stride, update);
  gemm(lhs, {0, m}, b.view, n, left.data(), stride, update, work);
  gemm(a.view, m, rhs, {0, n}, right.data(), stride, update, work);
  EXPECT_EQ(both, c);
  EXPECT_EQ(left, c);
  EXPECT_EQ(right, c);
}

using Shape = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
const Shape kShapes[] = {{1, 1, 1},    {41, 401, 7}, {1, 401, 41},  {41, 1, 401}, {7, 47, 257}, {9, 49, 255}, {16, 96, 512},
                         {3, 5, 1000}, {8, 48, 16},  {33, 65, 300}, {5, 3, 0},    {0, 4, 5},    {4, 0, 5},    {61, 37, 529}};

TEST(Gemm, AgreesWithTheDefinitionOnAwkwardShapes) {
  for (const auto& [m, n, depth] : kShapes) {
    for (const Update update : {Update::overwrite, Update::accumulate}) {
      check<float, float>(m, n, depth, Layout::rows, Layout::columns, update);
      check<double, double>(m, n, depth, Layout::rows, Layout::rows, update);
    }
  }
}

TEST(Gemm, CrossesCacheBlocks) {
  check<float, float>(GemmTile<float>::block_rows + 5, 70, 300, Layout::rows, Layout::columns, Update::overwrite);
  check<float, float>(13, GemmTile<float>::block_cols + 70, 300, Layout::columns, Layout::rows, Update::accumulate);
  check<double, double>(GemmTile<double>::block_rows + 5, 40, 260, Layout::columns, Layout::columns, Update::accumulate);
}

TEST(Gemm, TakesEveryLayout) {
  for (const Layout a : {Layout::rows, Layout::columns, Layout::strided}) {
    for (const Layout b : {Layout::rows, Layout::columns, Layout::strided}) {
      check<float, float>(29, 101, 67, a, b, Update::accumulate);
      check<double, double>(29, 101, 67, a, b, Update::overwrite);
      check<bf16, bf16>(29, 101, 67, a, b, Update::overwrite);
      check<f16, f16>(29, 101, 67, a, b, Update::accumulate);
    }
  }
}

TEST(Gemm, MixesStorageTypes) {
  check<float, bf16>(17, 50, 33, Layout::rows, Layout::columns, Update::overwrite);
  check<bf16, float>(17, 50, 33, Layout::columns, Layout::rows, Update::accumulate);
  check<f16, bf16>(17, 50, 33, Layout::rows, Layout::rows, Update::overwrite);
  check<float, f16>(17, 50, 33, Layout::columns, Layout::columns, Update::accumulate);
}

// However a caller cuts C into tiles, whichever operand is packed by whom, and where it cuts the depth: the same bits.
template <class T>
void check_cuts() {
  using Tile = GemmTile<T>;
  const std::int64_t m = 5 * Tile::rows + 3;
  const std::int64_t n = 3 * Tile::cols + 5;
  const std::int64_t depth = 2 * Tile::depth + 37;
  const Matrix<T> a(m, depth, Layout::rows, 3);
  const Matrix<T> b(depth, n, Layout::columns, 4);
  Buffer<T> workspace(gemm_workspace<T>);
  const std::span<T> work(workspace);
  std::vector<T> whole(count(m * n));
  gemm(a.view, b.view, m, n, depth, whole.data(), n, Update::overwrite, work);

  Buffer<T> lhs_buffer(PackedLhs<T>::size(m, depth));
  Buffer<T> rhs_buffer(PackedRhs<T>::size(n, depth));
  PackedLhs<T> lhs(lhs_buffer, m, depth);
  PackedRhs<T> rhs(rhs_buffer, n, depth);
  for (std::int64_t i = 0; i < m; i += 2 * Tile::rows) {
    lhs.pack(a.view, {i, std::min(i + 2 * Tile::rows, m)});
  }
  for (std::int64_t j = 0; j < n; j += Tile::cols) {
    rhs.pack(b.view, {j, std::min(j + Tile::cols, n)});
  }
  for (const std::int64_t row_tiles : {1, 2, 4}) {
    for (const std::int64_t col_tiles : {1, 2}) {
      std::vector<T> cut(count(m * n));
      for (std::int64_t i = 0; i < m; i += row_tiles * Tile::rows) {
        for (std::int64_t j = 0; j < n; j += col_tiles * Tile::cols) {
          gemm(lhs, {i, std::min(i + row_tiles * Tile::rows, m)}, rhs, {j, std::min(j + col_tiles * Tile::cols, n)},
               cut.data() + i * n + j, n, Update::overwrite);
        }
      }
      EXPECT_EQ(cut, whole) << row_tiles << " x " << col_tiles << " tiles";
    }
  }

  // Unpacked operands can be cut anywhere.
  for (const auto& [rows, cols] :
       {std::pair<std::int64_t, std::int64_t>{1, n}, {m, 1}, {7, 13}, {Tile::rows + 1, Tile::cols - 1}}) {
    std::vector<T> cut(count(m * n));
    for (std::int64_t i = 0; i < m; i += rows) {
      for (std::int64_t j = 0; j < n; j += cols) {
        gemm(a.view.at(i, 0), b.view.at(0, j), std::min(rows, m - i), std::min(cols, n - j), depth, cut.data() + i * n + j, n,
             Update::overwrite, work);
      }
    }
    EXPECT_EQ(cut, whole) << rows << " x " << cols << " elements";
  }

  std::vector<T> in_depth(count(m * n));
  for (std::int64_t k = 0; k < depth; k += Tile::depth) {
    gemm(a.view.at(0, k), b.view.at(k, 0), m, n, std::min(Tile::depth, depth - k), in_depth.data(), n,
         k == 0 ? Update::overwrite : Update::accumulate, work);
  }
  EXPECT_EQ(in_depth, whole);

  // The transposed problem multiplies the same pairs in the same order.
  std::vector<T> transposed(count(m * n));
  gemm(b.view.transposed(), a.view.transposed(), n, m, depth, transposed.data(), m, Update::overwrite, work);
  bool same = true;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      same = same && transposed[count(j * m + i)] == whole[count(i * n + j)];
    }
  }
  EXPECT_TRUE(same);
}

TEST(Gemm, ResultsDoNotDependOnHowTheWorkIsCut) {
  check_cuts<float>();
  check_cuts<double>();
}

TEST(Gemm, NanAndInfinityStayInTheirRowAndColumn) {
  const std::int64_t m = 19, n = 53, depth = 40;
  Matrix<float> a(m, depth, Layout::rows, 5);
  const Matrix<float> b(depth, n, Layout::rows, 6);
  a.data[count(4 * depth + 11)] = std::numeric_limits<float>::quiet_NaN();
  Buffer<float> workspace(gemm_workspace<float>);
  std::vector<float> c(count(m * n), std::numeric_limits<float>::quiet_NaN());
  gemm(a.view, b.view, m, n, depth, c.data(), n, Update::overwrite, std::span<float>(workspace));
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      EXPECT_EQ(std::isnan(c[count(i * n + j)]), i == 4);
    }
  }
}

}  // namespace
}  // namespace dpo::cpu
