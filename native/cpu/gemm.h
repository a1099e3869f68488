// Matrix products on one thread: C = A B or C += A B, packed and blocked for the caches. Callers run several at once on different
// parts of C.
//
// Rule for bitwise equal results: every element of C is computed by one fixed chain, depth blocks of GemmTile<T>::depth in order,
// a sum from zero inside each block, each block added to C. So C depends neither on how callers cut its rows and columns (at any
// place where the operands allow a cut), nor on which operand was packed beforehand, nor on cutting the depth at multiples of
// GemmTile<T>::depth with Update::accumulate.
//
// Operands are packed into panels: GemmTile<T>::rows rows of A, or ::cols columns of B, contiguous for each depth index.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "simd.h"
#include "storage.h"

namespace dpo::cpu {

/// Element (i, j) is data[i * row_stride + j * col_stride]; a transpose swaps the strides.
template <Storage S>
struct MatrixView {
  const S* data;
  std::int64_t row_stride;
  std::int64_t col_stride;

  MatrixView transposed() const { return {data, col_stride, row_stride}; }
  MatrixView at(std::int64_t row, std::int64_t col) const {
    return {data + row * row_stride + col * col_stride, row_stride, col_stride};
  }
};

/// Rows or columns begin <= i < end.
struct Range {
  std::int64_t begin;
  std::int64_t end;

  std::int64_t size() const { return end - begin; }
};

enum class Update { overwrite, accumulate };

/// The part of C that one micro-kernel call computes in registers, and the cache blocks around it.
template <class T>
struct GemmTile {
  static constexpr bool many_registers = kVectorRegisters >= 32;
  static constexpr int vectors = 3;
  static constexpr int rows = many_registers ? 8 : 4;
  static constexpr int cols = vectors * lanes<T>;
  // One panel of B stays in a first-level cache of 48 KiB (36 KiB with AVX-512, 18 KiB with AVX2), with room for the panels of A
  // that pass by.
  static constexpr std::int64_t depth = 192;
  // One block of A and one of B together take less than half of a 2 MiB second-level cache.
  static constexpr std::int64_t block_rows = 256;
  static constexpr std::int64_t block_cols = 768 / cols * cols;
};

namespace detail {

constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// One step of a transpose: swaps the off-diagonal blocks of every 2 x 2 arrangement of Block x Block blocks in rows `low` and
// `low + Block`.
template <int Block, class V, std::size_t... I>
[[gnu::always_inline]] inline void swap_blocks(V& low, V& high, std::index_sequence<I...>) {
  constexpr int N = pack_size<V>;
  const V a = low;
  const V b = high;
  low = __builtin_shufflevector(a, b, ((I & Block) != 0 ? N + static_cast<int>(I) - Block : static_cast<int>(I))...);
  high = __builtin_shufflevector(a, b, ((I & Block) != 0 ? N + static_cast<int>(I) : static_cast<int>(I) + Block)...);
}

template <int Block, class V, std::size_t N>
[[gnu::always_inline]] inline void transpose(V (&tile)[N]) {
#pragma GCC unroll 16
  for (std::size_t i = 0; i < N; ++i) {
    if ((i & Block) == 0) {
      swap_blocks<Block>(tile[i], tile[i + Block], std::make_index_sequence<N>{});
    }
  }
  if constexpr (Block > 1) {
    transpose<Block / 2>(tile);
  }
}

inline constexpr int kCacheLine = 64;

// How many depth indices ahead of its loads packing prefetches contiguous panels. (Transposing packs reads along the depth, which
// the hardware prefetches better alone.)
inline constexpr int kPrefetchRows = 8;

// Packs a whole panel whose Width neighbours are contiguous.
template <int N, int Width, class T, Storage S>
inline void pack_contiguous(const S* from, std::int64_t along, std::int64_t depth, T* to) {
  for (std::int64_t k = 0; k < depth; ++k) {
    const S* row = from + k * along;
#pragma GCC unroll 16
    for (int i = 0; i < Width; i += kCacheLine / static_cast<int>(sizeof(S))) {
      __builtin_prefetch(row + kPrefetchRows * along + i);
    }
#pragma GCC unroll 16
    for (int i = 0; i < Width; i += N) {
      const auto values = load_pack<N>(row + i);
      std::memcpy(to + k * Width + i, &values, sizeof(values));
    }
  }
}

// Packs N neighbours (stride `across`) of a panel for `depth` indices that are contiguous.
template <int N, int Width, class T, Storage S>
inline void pack_transposed(const S* from, std::int64_t across, std::int64_t depth, T* to) {
  std::int64_t k = 0;
  for (; k + N <= depth; k += N) {
    Pack<T, N> tile[N];
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) {
      tile[i] = load_pack<N>(from + i * across + k);
    }
    transpose<N / 2>(tile);
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) {
      std::memcpy(to + (k + i) * Width, &tile[i], sizeof(tile[i]));
    }
  }
  for (; k < depth; ++k) {
    for (int i = 0; i < N; ++i) {
      to[k * Width + i] = to_compute(from[i * across + k]);
    }
  }
}

// Packs `valid` neighbours of a panel, any strides, and zeros up to N.
template <int N, int Width, class T, Storage S>
inline void pack_strided(const S* from, std::int64_t across, std::int64_t along, std::int64_t valid, std::int64_t depth, T* to) {
  for (std::int64_t k = 0; k < depth; ++k) {
    for (int i = 0; i < N; ++i) {
      to[k * Width + i] = i < valid ? to_compute(from[i * across + k * along]) : T{};
    }
  }
}

// Packs `count` neighbours into panels of Width: to[k * Width + i] = from[i * across + k * along].
template <int Width, class T, Storage S>
inline void pack_panels(const S* from, std::int64_t across, std::int64_t along, std::int64_t count, std::int64_t depth, T* to) {
  // The widest vector that divides the panel.
  constexpr int N = std::min(lanes<T>, Width & -Width);
  for (std::int64_t begin = 0; begin < count; begin += Width) {
    const S* panel = from + begin * across;
    T* packed = to + begin * depth;
    const auto valid = std::min<std::int64_t>(Width, count - begin);
    if (valid == Width && across == 1) {
      pack_contiguous<N, Width>(panel, along, depth, packed);
      continue;
    }
    for (std::int64_t i = 0; i < valid; i += N) {
      if (valid - i >= N && along == 1) {
        pack_transposed<N, Width>(panel + i * across, across, depth, packed + i);
      } else {
        pack_strided<N, Width>(panel + i * across, across, along, std::min<std::int64_t>(N, valid - i), depth, packed + i);
      }
    }
  }
}

inline void prefetch_for_write(const void* from, int bytes) {
  for (int line = 0; line < bytes; line += kCacheLine) {
    __builtin_prefetch(static_cast<const char*>(from) + line, 1);
  }
}

// C[Rows x cols] (+)= panel of A times panel of B, cols at most Vectors full vectors.
template <class T, int Rows, int Vectors>
void micro_kernel(const T* a, const T* b, std::int64_t depth, T* c, std::int64_t stride, int cols, Update update) {
  using Tile = GemmTile<T>;
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
    prefetch_for_write(c + r * stride, Vectors * kVectorBytes);
  }
  Vec<T> sum[Rows][Vectors] = {};
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec<T> right[Vectors];
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) {
      right[v] = load(b + v * lanes<T>);
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const Vec<T> left = broadcast(a[r]);
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) {
        sum[r][v] += left * right[v];
      }
    }
    a += Tile::rows;
    b += Tile::cols;
  }
  const int last = cols - (Vectors - 1) * lanes<T>;
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
    T* row = c + r * stride;
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) {
      T* to = row + v * lanes<T>;
      if (v + 1 < Vectors || last == lanes<T>) {
        store(to, update == Update::accumulate ? load(to) + sum[r][v] : sum[r][v]);
      } else {
        store_partial(to, last, update == Update::accumulate ? load_partial(to, last, T{}) + sum[r][v] : sum[r][v]);
      }
    }
  }
}

template <class T>
using MicroKernel = void (*)(const T*, const T*, std::int64_t, T*, std::int64_t, int, Update);

template <class T, std::size_t... I>
constexpr auto micro_kernels(std::index_sequence<I...>) {
  constexpr int V = GemmTile<T>::vectors;
  return std::array<MicroKernel<T>, sizeof...(I)>{micro_kernel<T, static_cast<int>(I) / V + 1, static_cast<int>(I) % V + 1>...};
}

// One block of packed A times one block of packed B.
template <class T>
inline void multiply_block(const T* a, const T* b, std::int64_t rows, std::int64_t cols, std::int64_t depth, T* c,
                           std::int64_t stride, Update update) {
  using Tile = GemmTile<T>;
  static constexpr auto kernels =
      micro_kernels<T>(std::make_index_sequence<static_cast<std::size_t>(Tile::rows * Tile::vectors)>{});
  for (std::int64_t j = 0; j < cols; j += Tile::cols) {
    const int n = static_cast<int>(std::min<std::int64_t>(Tile::cols, cols - j));
    const int vectors = (n + lanes<T> - 1) / lanes<T>;
    for (std::int64_t i = 0; i < rows; i += Tile::rows) {
      const int m = static_cast<int>(std::min<std::int64_t>(Tile::rows, rows - i));
      const auto kernel = kernels[static_cast<std::size_t>((m - 1) * Tile::vectors + vectors - 1)];
      kernel(a + i * depth, b + j * depth, depth, c + i * stride + j, stride, n, update);
    }
  }
}

// What both packed operands share: `extent` rows of A or columns of B, in panels of Width, one depth block after the other.
template <class T, int Width>
class Packed {
 public:
  Packed(std::span<T> buffer, std::int64_t extent, std::int64_t depth) : data_(buffer.data()), extent_(extent), depth_(depth) {
    assert(buffer.size() >= size(extent, depth));
    assert(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64 == 0);
  }

  /// How many T the buffer needs.
  static std::size_t size(std::int64_t extent, std::int64_t depth) {
    return static_cast<std::size_t>(round_up(extent, Width) * depth);
  }

  std::int64_t extent() const { return extent_; }
  std::int64_t depth() const { return depth_; }

  /// The panels from row or column `begin` (a multiple of Width) on, for the depth block that starts at k.
  T* block(std::int64_t begin, std::int64_t k) const {
    return data_ + round_up(extent_, Width) * k + begin * std::min(GemmTile<T>::depth, depth_ - k);
  }

 protected:
  template <Storage S>
  void pack_part(const S* from, std::int64_t across, std::int64_t along, Range part) {
    assert(part.begin % Width == 0 && (part.end % Width == 0 || part.end == extent_));
    for (std::int64_t k = 0; k < depth_; k += GemmTile<T>::depth) {
      const auto depth = std::min(GemmTile<T>::depth, depth_ - k);
      pack_panels<Width>(from + part.begin * across + k * along, across, along, part.size(), depth, block(part.begin, k));
    }
  }

 private:
  T* data_;
  std::int64_t extent_;
  std::int64_t depth_;
};

}  // namespace detail

/// The left operand, packed once and used for several products, by several threads. The buffer (64-byte aligned) stays the
/// caller's.
template <class T>
class PackedLhs : public detail::Packed<T, GemmTile<T>::rows> {
 public:
  using detail::Packed<T, GemmTile<T>::rows>::Packed;

  /// Packs `rows` of a (rows.begin a multiple of GemmTile<T>::rows, rows.end too unless it is the last row), so that threads can
  /// share the work.
  template <Storage S>
  void pack(MatrixView<S> a, Range rows) {
    this->pack_part(a.data, a.row_stride, a.col_stride, rows);
  }
  template <Storage S>
  void pack(MatrixView<S> a) {
    pack(a, {0, this->extent()});
  }
};

/// The right operand, likewise, in panels of GemmTile<T>::cols columns.
template <class T>
class PackedRhs : public detail::Packed<T, GemmTile<T>::cols> {
 public:
  using detail::Packed<T, GemmTile<T>::cols>::Packed;

  template <Storage S>
  void pack(MatrixView<S> b, Range cols) {
    this->pack_part(b.data, b.col_stride, b.row_stride, cols);
  }
  template <Storage S>
  void pack(MatrixView<S> b) {
    pack(b, {0, this->extent()});
  }
};

/// How many T of workspace gemm() needs at most (64-byte aligned), whatever the shapes.
template <class T>
inline constexpr std::size_t gemm_workspace = static_cast<std::size_t>((GemmTile<T>::block_rows + GemmTile<T>::block_cols) *
                                                                       GemmTile<T>::depth);

namespace detail {

template <class T, int Width>
class PackedOperand {
 public:
  PackedOperand(const Packed<T, Width>& packed, Range part) : packed_(packed), begin_(part.begin) {
    assert(part.begin % Width == 0 && part.end <= packed.extent());
  }
  const T* block(Range part, Range depth) const { return packed_.block(begin_ + part.begin, depth.begin); }

 private:
  const Packed<T, Width>& packed_;
  std::int64_t begin_;
};

// An operand whose blocks are packed when they are needed. `across` steps through rows of A or columns of B, `along` through the
// depth.
template <class T, int Width, Storage S>
class ViewOperand {
 public:
  ViewOperand(const S* data, std::int64_t across, std::int64_t along, T* buffer)
      : data_(data), across_(across), along_(along), buffer_(buffer) {}

  const T* block(Range part, Range depth) const {
    pack_panels<Width>(data_ + part.begin * across_ + depth.begin * along_, across_, along_, part.size(), depth.size(), buffer_);
    return buffer_;
  }

 private:
  const S* data_;
  std::int64_t across_;
  std::int64_t along_;
  T* buffer_;
};

inline Range block_range(std::int64_t begin, std::int64_t size, std::int64_t end) { return {begin, std::min(begin + size, end)}; }

template <class T, class Lhs, class Rhs>
inline void gemm_blocks(const Lhs& lhs, const Rhs& rhs, std::int64_t m, std::int64_t n, std::int64_t depth, T* c,
                        std::int64_t stride, Update update) {
  using Tile = GemmTile<T>;
  const FlushSubnormals flush;
  if (depth == 0 && update == Update::overwrite) {
    for (std::int64_t i = 0; i < m; ++i) {
      std::fill_n(c + i * stride, n, T{});
    }
  }
  for (std::int64_t j = 0; j < n; j += Tile::block_cols) {
    const Range cols = block_range(j, Tile::block_cols, n);
    for (std::int64_t k = 0; k < depth; k += Tile::depth) {
      const Range part = block_range(k, Tile::depth, depth);
      const T* b = rhs.block(cols, part);
      for (std::int64_t i = 0; i < m; i += Tile::block_rows) {
        const Range rows = block_range(i, Tile::block_rows, m);
        multiply_block(lhs.block(rows, part), b, rows.size(), cols.size(), part.size(), c + i * stride + j, stride,
                       k == 0 ? update : Update::accumulate);
      }
    }
  }
}

template <class T>
using PackedLhsOperand = PackedOperand<T, GemmTile<T>::rows>;
template <class T>
using PackedRhsOperand = PackedOperand<T, GemmTile<T>::cols>;

template <class T, Storage S>
inline auto lhs_operand(MatrixView<S> a, T* buffer) {
  return ViewOperand<T, GemmTile<T>::rows, S>(a.data, a.row_stride, a.col_stride, buffer);
}
template <class T, Storage S>
inline auto rhs_operand(MatrixView<S> b, T* buffer) {
  return ViewOperand<T, GemmTile<T>::cols, S>(b.data, b.col_stride, b.row_stride, buffer);
}

}  // namespace detail

/// C (rows.size() x cols.size(), row-major, consecutive rows `stride` apart) = or += rows of A times columns of B, both packed.
/// rows.begin and cols.begin are multiples of GemmTile<T>::rows and ::cols; c is the element at (rows.begin, cols.begin).
template <class T>
void gemm(const PackedLhs<T>& a, Range rows, const PackedRhs<T>& b, Range cols, T* c, std::int64_t stride, Update update) {
  assert(a.depth() == b.depth());
  detail::gemm_blocks(detail::PackedLhsOperand<T>(a, rows), detail::PackedRhsOperand<T>(b, cols), rows.size(), cols.size(),
                      a.depth(), c, stride, update);
}

/// The same with B [a.depth() x n] packed block by block into `workspace`: gemm_workspace<T> elements.
template <class T, Storage S>
void gemm(const PackedLhs<T>& a, Range rows, MatrixView<S> b, std::int64_t n, T* c, std::int64_t stride, Update update,
          std::span<T> workspace) {
  assert(workspace.size() >= gemm_workspace<T>);
  detail::gemm_blocks(detail::PackedLhsOperand<T>(a, rows), detail::rhs_operand(b, workspace.data()), rows.size(), n, a.depth(),
                      c, stride, update);
}

/// The same with A [m x b.depth()] packed block by block.
template <class T, Storage S>
void gemm(MatrixView<S> a, std::int64_t m, const PackedRhs<T>& b, Range cols, T* c, std::int64_t stride, Update update,
          std::span<T> workspace) {
  assert(workspace.size() >= gemm_workspace<T>);
  detail::gemm_blocks(detail::lhs_operand(a, workspace.data()), detail::PackedRhsOperand<T>(b, cols), m, cols.size(), b.depth(),
                      c, stride, update);
}

/// C [m x n] = or += A [m x depth] B [depth x n], both packed block by block.
template <class T, Storage A, Storage B>
void gemm(MatrixView<A> a, MatrixView<B> b, std::int64_t m, std::int64_t n, std::int64_t depth, T* c, std::int64_t stride,
          Update update, std::span<T> workspace) {
  static_assert(std::same_as<compute_t<A>, T> && std::same_as<compute_t<B>, T>);
  assert(workspace.size() >= gemm_workspace<T>);
  T* const lhs_buffer = workspace.data() + GemmTile<T>::block_cols * GemmTile<T>::depth;
  detail::gemm_blocks(detail::lhs_operand(a, lhs_buffer), detail::rhs_operand(b, workspace.data()), m, n, depth, c, stride,
                      update);
}

}  // namespace dpo::cpu
