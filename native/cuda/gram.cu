#include "native/core/gram.h"

#include <algorithm>

#include "native/cuda/gram_call.h"
#include "native/cuda/gram_pull_back.h"
#include "native/cuda/operations.h"
#include "native/cuda/reduce.h"

namespace dpo::cuda {
namespace {

/// Tiles of elements that change places with their mirror images, by a block of as many threads as a few of their rows.
constexpr unsigned kSide = 32, kRowsAtOnce = 8, kTileThreads = kSide * kRowsAtOnce;

template <class T>
Grid tile_grid(const BlockPlace& at) {
  const auto tiles = [](std::int64_t extent) { return static_cast<unsigned>((extent + kSide - 1) / kSide); };
  return {{tiles(at.columns), tiles(at.rows), 1}, kTileThreads, kSide * (kSide + 1) * sizeof(T)};
}

/// A square tile of a block, in shared memory. One more than the side, so that columns are in different banks.
template <class T>
class SharedTile {
 public:
  __device__ explicit SharedTile(const BlockPlace& at)
      : tile_(static_cast<T*>(shared_memory())),
        row_(at.row + static_cast<std::int64_t>(blockIdx.y) * kSide),
        column_(at.column + static_cast<std::int64_t>(blockIdx.x) * kSide),
        rows_end_(at.row + at.rows),
        columns_end_(at.column + at.columns) {}

  __device__ std::int64_t first_row() const { return row_; }
  __device__ std::int64_t columns_end() const { return column_ + kSide; }
  __device__ T& at(std::int64_t row, std::int64_t column) const { return tile_[(row - row_) * (kSide + 1) + (column - column_)]; }

  /// Calls body(row, column) for its elements, neighbours in a row by neighbours among threads.
  template <class Body>
  __device__ void for_each(const Body& body) const {
    const std::int64_t column = column_ + threadIdx.x % kSide;
    for (std::int64_t row = row_ + threadIdx.x / kSide; row < std::min(rows_end_, row_ + kSide); row += kRowsAtOnce) {
      if (column < columns_end_) body(row, column);
    }
  }
  /// The same, neighbours in a column.
  template <class Body>
  __device__ void for_each_transposed(const Body& body) const {
    const std::int64_t row = row_ + threadIdx.x % kSide;
    for (std::int64_t column = column_ + threadIdx.x / kSide; column < std::min(columns_end_, column_ + kSide); column += kRowsAtOnce) {
      if (row < rows_end_) body(row, column);
    }
  }

 private:
  T* tile_;
  std::int64_t row_, column_, rows_end_, columns_end_;
};

/// Copies what is above the diagonal to its place below.
template <class T>
__global__ void mirror(T* matrix, std::int64_t stride, BlockPlace place) {
  const SharedTile<T> tile(place);
  if (tile.columns_end() <= tile.first_row()) return;
  tile.for_each([&](std::int64_t i, std::int64_t j) { tile.at(i, j) = matrix[i * stride + j]; });
  __syncthreads();
  tile.for_each_transposed([&](std::int64_t i, std::int64_t j) {
    if (i < j) matrix[j * stride + i] = tile.at(i, j);
  });
}

template <class S>
dpo_status forward(Call& call, const dpo_gram_args& args) {
  using T = compute_t<S>;
  GramCall<S> of(call, args.rows);
  if (!of.prepare(false)) return call.status();
  const GramPairs<T> pairs = of.pairs();
  const GramBlocks<T> blocks(call, pairs);
  T* gram = call.output<T>(args.gram);
  const std::int64_t stride = pairs.columns();
  for_each_block_above(pairs, [&](const BlockPlace& at) {
    blocks.make(at, {gram + at.row * stride + at.column, stride});
    if (pairs.same) call.launch(mirror<T>, tile_grid<T>(at), gram, stride, at);
  });
  return call.finish();
}

/// A block of the upstream.
template <class T, class U>
__global__ void take_upstream(const U* upstream, std::int64_t stride, BlockPlace place, BlockMemory<T> to) {
  SharedTile<T>(place).for_each([&](std::int64_t i, std::int64_t j) {
    to.data[(i - place.row) * to.stride + (j - place.column)] = static_cast<T>(upstream[i * stride + j]);
  });
}

/// A block of U + Uᵀ.
template <class T, class U>
__global__ void take_both_halves(const U* upstream, std::int64_t stride, BlockPlace place, BlockMemory<T> to) {
  const SharedTile<T> tile(place);
  tile.for_each_transposed([&](std::int64_t i, std::int64_t j) { tile.at(i, j) = static_cast<T>(upstream[j * stride + i]); });
  __syncthreads();
  tile.for_each([&](std::int64_t i, std::int64_t j) {
    to.data[(i - place.row) * to.stride + (j - place.column)] = static_cast<T>(upstream[i * stride + j]) + tile.at(i, j);
  });
}

template <class T, class U>
typename GramPullBack<T>::Fill fill_from(Call& call, const dpo_tensor& upstream, bool same) {
  const U* from = call.input<U>(upstream);
  return [&call, from, stride = upstream.shape[1], same](const BlockPlace& at, const BlockMemory<T>& to) {
    call.launch(same ? take_both_halves<T, U> : take_upstream<T, U>, tile_grid<T>(at), from, stride, at, to);
  };
}

/// Fails because of an upstream or matrix at hand that is not finite. Their check comes last and mostly costs nothing: any such
/// element shows in the sum of U·K.
bool check_upstream(Call& call, const dpo_gram_vjp_args& args, double sum) {
  if (std::isfinite(sum)) return call.ok();
  return check_finite(call, "upstream", args.upstream) && (!present(args.gram) || check_finite(call, "gram", args.gram));
}

template <class S>
dpo_status pull_back(Call& call, const dpo_gram_vjp_args& args) {
  using T = compute_t<S>;
  GramCall<S> of(call, args.rows);
  if (!of.prepare(true)) return call.status();
  const T* gram = of.plan().distances_from_values() ? call.input<T>(args.gram) : nullptr;
  const GramPairs<T> pairs = of.pairs();
  double* sums = of.zero_sums();
  GramPullBack<T>(call, pairs, gram, sums)
      .add(args.upstream.dtype == DPO_F64 ? fill_from<T, double>(call, args.upstream, pairs.same)
                                          : fill_from<T, float>(call, args.upstream, pairs.same));
  if (!check_upstream(call, args, call.read(sums + of.members().places().log_weights))) return call.status();
  const std::vector<double> totals = of.pull_back(args.grads, sums);
  return call.finish([&] { of.write_parameters(totals, args.grads.kernel); });
}

}  // namespace

dpo_status gram(dpo_job* job, const dpo_gram_args* args) {
  return run(job, [&](Call& call) {
    return dispatch_storage(args->rows.x.dtype, [&]<class S>() { return forward<S>(call, *args); });
  });
}

dpo_status gram_vjp(dpo_job* job, const dpo_gram_vjp_args* args) {
  return run(job, [&](Call& call) {
    return dispatch_storage(args->rows.x.dtype, [&]<class S>() { return pull_back<S>(call, *args); });
  });
}

}  // namespace dpo::cuda
