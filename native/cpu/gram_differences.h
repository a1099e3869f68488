// Matrices of distances of rows as sums over differences, from operands packed for gemm.h, and the sums of weighted differences
// that are their pull-back.
#pragma once

#include <cstdint>

#include "native/cpu/gemm.h"

namespace dpo::cpu {

/// (u − v)², or |u − v|.
enum class DifferenceTerm { square, magnitude };

namespace detail {

template <DifferenceTerm term, class V>
[[gnu::always_inline]] inline V difference_term(V difference) {
  if constexpr (term == DifferenceTerm::square) return difference * difference;
  return difference < 0 ? -difference : difference;
}

/// Half the derivative of the square, or that of the magnitude, 0 at 0.
template <DifferenceTerm term, class V>
[[gnu::always_inline]] inline V difference_slope(V difference) {
  if constexpr (term == DifferenceTerm::square) return difference;
  const V one = V{} + 1;
  return (difference > 0 ? one : V{}) - (difference < 0 ? one : V{});
}

/// to[r * stride + j] (+)= Σ_k term(a[k][r] − b[k][j]) for Rows rows of a panel of A and Vectors vectors of one of B.
template <DifferenceTerm term, class T, int Rows, int Vectors>
void add_differences(const T* a, const T* b, std::int64_t depth, T* to, std::int64_t stride, bool accumulate) {
  Vec<T> sums[Rows][Vectors] = {};
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec<T> right[Vectors];
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) right[v] = load(b + v * lanes<T>);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const Vec<T> left = broadcast(a[r]);
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) sums[r][v] += difference_term<term>(left - right[v]);
    }
    a += GemmTile<T>::rows;
    b += GemmTile<T>::cols;
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) {
      T* at = to + r * stride + v * lanes<T>;
      store(at, accumulate ? load(at) + sums[r][v] : sums[r][v]);
    }
  }
}

template <DifferenceTerm term, class T, int Rows>
void add_differences(const T* a, const T* b, std::int64_t depth, T* to, std::int64_t stride, bool accumulate, int vectors) {
  if (vectors == 1) return add_differences<term, T, Rows, 1>(a, b, depth, to, stride, accumulate);
  if (vectors == 2) return add_differences<term, T, Rows, 2>(a, b, depth, to, stride, accumulate);
  return add_differences<term, T, Rows, 3>(a, b, depth, to, stride, accumulate);
}

}  // namespace detail

/// to[i * stride + j] = Σ_k term(a_ik − b_jk) for rows of A and columns of B. Whole vectors of columns are written.
template <DifferenceTerm term, class T>
void sum_differences(const PackedLhs<T>& a, Range rows, const PackedRhs<T>& b, Range cols, T* to, std::int64_t stride) {
  using Tile = GemmTile<T>;
  static_assert(Tile::vectors == 3);
  for (std::int64_t k = 0; k < a.depth(); k += Tile::depth) {
    const std::int64_t depth = std::min(Tile::depth, a.depth() - k);
    for (std::int64_t j = cols.begin; j < cols.end; j += Tile::cols) {
      const int vectors = static_cast<int>((std::min<std::int64_t>(Tile::cols, cols.end - j) + lanes<T> - 1) / lanes<T>);
      const T* right = b.block(j, k);
      for (std::int64_t i = rows.begin; i < rows.end; i += Tile::rows) {
        const T* left = a.block(i, k);
        T* at = to + (i - rows.begin) * stride + (j - cols.begin);
        if (rows.end - i >= Tile::rows) {
          detail::add_differences<term, T, Tile::rows>(left, right, depth, at, stride, k > 0, vectors);
          continue;
        }
        for (std::int64_t r = 0; r < rows.end - i; ++r)
          detail::add_differences<term, T, 1>(left + r, right, depth, at + r * stride, stride, k > 0, vectors);
      }
    }
  }
}

/// grad [depth] += Σ_j weight_j·slope(row − other_j) for rows `others` of `depth` numbers.
template <DifferenceTerm term, class T>
void add_weighted_differences(const T* row, const T* others, std::int64_t count, std::int64_t depth, const T* weights,
                              std::int64_t weight_stride, T* grad) {
  const T scale = term == DifferenceTerm::square ? T(2) : T(1);
  for (std::int64_t k = 0; k < depth; k += lanes<T>) {
    const int n = static_cast<int>(std::min<std::int64_t>(lanes<T>, depth - k));
    const bool whole = n == lanes<T>;
    const Vec<T> mine = whole ? load(row + k) : load_partial(row + k, n, T(0));
    Vec<T> sum{};
    for (std::int64_t j = 0; j < count; ++j) {
      const T* at = others + j * depth + k;
      const Vec<T> other = whole ? load(at) : load_partial(at, n, T(0));
      sum += weights[j * weight_stride] * detail::difference_slope<term>(mine - other);
    }
    const Vec<T> before = whole ? load(grad + k) : load_partial(grad + k, n, T(0));
    store_partial(grad + k, n, before + scale * sum);
  }
}

}  // namespace dpo::cpu
