#include "native/cpu/kernel_maps.h"

#include <algorithm>
#include <span>

#include "native/cpu/gemm.h"

namespace dpo::cpu {
namespace {

using Rhs = PackedRhs<double>;

Rhs packed(double* buffer, std::int64_t extent, std::int64_t depth) {
  return {std::span<double>(buffer, Rhs::size(extent, depth)), extent, depth};
}

double* pack_columns(dpo_job* job, Matrix a, std::int64_t depth, std::int64_t width) {
  auto* buffer = allocate<double>(job, static_cast<std::int64_t>(Rhs::size(width, depth)));
  if (buffer) packed(buffer, width, depth).pack(MatrixView<double>{a.data, a.row_stride, a.col_stride});
  return buffer;
}

std::span<double> gemm_span(double* workspace) { return {workspace, gemm_workspace<double>}; }

}  // namespace

std::int64_t LinearMap::workspace() { return static_cast<std::int64_t>(gemm_workspace<double>); }

bool LinearMap::pack(dpo_job* job, Matrix a, std::int64_t depth, std::int64_t width) {
  depth_ = depth;
  width_ = width;
  packed_ = pack_columns(job, a, depth, width);
  packed_transpose_ = pack_columns(job, {a.data, a.col_stride, a.row_stride}, width, depth);
  return packed_ && packed_transpose_;
}

void LinearMap::apply(const double* x, std::int64_t stride, std::int64_t rows, double* to, double* workspace) const {
  gemm(MatrixView<double>{x, stride, 1}, rows, packed(packed_, width_, depth_), Range{0, width_}, to, width_, Update::overwrite,
       gemm_span(workspace));
}

void LinearMap::pull_back(const double* grads, std::int64_t rows, bool overwrite, double* x_grads, std::int64_t stride,
                          double* workspace) const {
  gemm(MatrixView<double>{grads, width_, 1}, rows, packed(packed_transpose_, depth_, width_), Range{0, depth_}, x_grads, stride,
       overwrite ? Update::overwrite : Update::accumulate, gemm_span(workspace));
  for (std::int64_t r = 0; overwrite && r < rows; ++r) std::fill(x_grads + r * stride + depth_, x_grads + (r + 1) * stride, 0.0);
}

void LinearMap::pull_back_matrix(const double* x, std::int64_t stride, const double* grads, std::int64_t rows, double* a_grad,
                                 double* workspace) const {
  gemm(MatrixView<double>{x, 1, stride}, MatrixView<double>{grads, width_, 1}, depth_, width_, rows, a_grad, width_,
       Update::accumulate, gemm_span(workspace));
}

}  // namespace dpo::cpu
