#include "native/cpu/kernel_maps.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "native/cpu/gemm.h"
#include "native/cpu/kernel_rows.h"

namespace dpo::cpu {
namespace {

using Rhs = PackedRhs<double>;

// The part of a narrow product that is in registers at a time.
constexpr int kTileRows = kVectorRegisters >= 32 ? 4 : 2;
constexpr int kTileColumns = 4;

Rhs packed(double* buffer, std::int64_t extent, std::int64_t depth) {
  return {std::span<double>(buffer, Rhs::size(extent, depth)), extent, depth};
}

double* pack_columns(dpo_job* job, Matrix a, std::int64_t depth, std::int64_t width) {
  auto* buffer = allocate<double>(job, static_cast<std::int64_t>(Rhs::size(width, depth)));
  if (buffer) packed(buffer, width, depth).pack(MatrixView<double>{a.data, a.row_stride, a.col_stride});
  return buffer;
}

double* copy_columns(dpo_job* job, Matrix a, std::int64_t depth, std::int64_t width) {
  const std::int64_t stride = row_stride(depth);
  auto* columns = allocate<double>(job, width * stride);
  for (std::int64_t j = 0; columns && j < width; ++j) {
    double* column = columns + j * stride;
    for (std::int64_t i = 0; i < depth; ++i) column[i] = a.data[i * a.row_stride + j * a.col_stride];
    std::fill(column + depth, column + stride, 0.0);
  }
  return columns;
}

std::span<double> gemm_span(double* workspace) { return {workspace, gemm_workspace<double>}; }

/// Calls visit<n>(i) for tiles of n ≤ Size, the last one smaller.
template <int Size, class Visit>
void for_each_tile(std::int64_t count, const Visit& visit) {
  std::int64_t i = 0;
  for (; i + Size <= count; i += Size) visit.template operator()<Size>(i);
  for (; i < count; ++i) visit.template operator()<1>(i);
}

template <int Size>
constexpr std::int64_t tile_count(std::int64_t count) {
  return count / Size + count % Size;
}

/// to [Rows, Columns], rows `to_stride` apart, = inner products of rows and columns, both `stride` apart. Fetches a line of
/// memory every `ahead_step` bytes from `ahead` on beside each vector.
template <int Rows, int Columns>
void multiply_tile(const double* rows, const double* columns, std::int64_t stride, double* to, std::int64_t to_stride,
                   const char* ahead, std::int64_t ahead_step) {
  Vec<double> sums[Rows][Columns] = {};
  for (std::int64_t i = 0; i < stride; i += lanes<double>) {
    __builtin_prefetch(ahead);
    ahead += ahead_step;
    Vec<double> right[Columns];
#pragma GCC unroll 8
    for (int c = 0; c < Columns; ++c) right[c] = load(columns + c * stride + i);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vec<double> left = load(rows + r * stride + i);
#pragma GCC unroll 8
      for (int c = 0; c < Columns; ++c) sums[r][c] += left * right[c];
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int c = 0; c < Columns; ++c) to[r * to_stride + c] = horizontal_sum(sums[r][c]);
  }
}

/// Vectors i … i + Vectors of Rows rows, `stride` apart, = or += grads·columns.
template <int Rows, int Vectors>
void combine_tile(const double* grads, const double* columns, std::int64_t width, std::int64_t stride, bool overwrite,
                  double* to) {
  Vec<double> sums[Rows][Vectors] = {};
  for (std::int64_t k = 0; k < width; ++k) {
    Vec<double> right[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) right[v] = load(columns + k * stride + v * lanes<double>);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vec<double> left = broadcast(grads[r * width + k]);
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) sums[r][v] += left * right[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      double* at = to + r * stride + v * lanes<double>;
      store(at, overwrite ? sums[r][v] : load(at) + sums[r][v]);
    }
  }
}

}  // namespace

bool LinearMap::prepare(dpo_job* job, Matrix a, std::int64_t depth, std::int64_t width) {
  depth_ = depth;
  width_ = width;
  stride_ = row_stride(depth);
  if (narrow()) {
    // Columns that are laid out as wanted already are taken as they are.
    const bool ready = a.row_stride == 1 && a.col_stride == stride_;
    columns_ = ready ? a.data : copy_columns(job, a, depth, width);
    return columns_ != nullptr;
  }
  packed_ = pack_columns(job, a, depth, width);
  packed_transpose_ = pack_columns(job, {a.data, a.col_stride, a.row_stride}, width, depth);
  return packed_ && packed_transpose_;
}

std::int64_t LinearMap::workspace() const { return narrow() ? 0 : matrix_workspace(); }

std::int64_t LinearMap::matrix_workspace() { return static_cast<std::int64_t>(gemm_workspace<double>); }

void LinearMap::apply(const double* x, std::int64_t rows, double* to, double* workspace, ReadAhead next) const {
  if (!narrow()) {
    gemm(MatrixView<double>{x, stride_, 1}, rows, packed(packed_, width_, depth_), Range{0, width_}, to, width_,
         Update::overwrite, gemm_span(workspace));
    return;
  }
  const std::int64_t tiles = tile_count<kTileRows>(rows) * tile_count<kTileColumns>(width_), vectors = stride_ / lanes<double>;
  const std::int64_t ahead_step = next.bytes / (tiles * vectors) + 1;
  const char* ahead = next.from;
  for_each_tile<kTileRows>(rows, [&]<int Rows>(std::int64_t r) {
    for_each_tile<kTileColumns>(width_, [&]<int Columns>(std::int64_t c) {
      multiply_tile<Rows, Columns>(x + r * stride_, columns_ + c * stride_, stride_, to + r * width_ + c, width_, ahead,
                                   ahead_step);
      ahead += vectors * ahead_step;
    });
  });
}

void LinearMap::pull_back(const double* grads, std::int64_t rows, bool overwrite, double* x_grads, double* workspace) const {
  if (!narrow()) {
    gemm(MatrixView<double>{grads, width_, 1}, rows, packed(packed_transpose_, depth_, width_), Range{0, depth_}, x_grads,
         stride_, overwrite ? Update::overwrite : Update::accumulate, gemm_span(workspace));
    for (std::int64_t r = 0; overwrite && r < rows; ++r)
      std::fill(x_grads + r * stride_ + depth_, x_grads + (r + 1) * stride_, 0.0);
    return;
  }
  for_each_tile<kTileRows>(rows, [&]<int Rows>(std::int64_t r) {
    for_each_tile<kTileColumns>(stride_ / lanes<double>, [&]<int Vectors>(std::int64_t v) {
      const std::int64_t i = v * lanes<double>;
      combine_tile<Rows, Vectors>(grads + r * width_, columns_ + i, width_, stride_, overwrite, x_grads + r * stride_ + i);
    });
  });
}

void LinearMap::pull_back_matrix(const double* x, const double* grads, std::int64_t rows, double* a_grad,
                                 double* workspace) const {
  gemm(MatrixView<double>{x, 1, stride_}, MatrixView<double>{grads, width_, 1}, depth_, width_, rows, a_grad, width_,
       Update::accumulate, gemm_span(workspace));
}

}  // namespace dpo::cpu
