#include "native/cuda/gram_call.h"
#include "native/cuda/gram_pull_back.h"
#include "native/cuda/operations.h"
#include "native/cuda/reduce.h"
#include "native/cuda/grid.h"
#include "native/cuda/row_packs.h"
#include "native/math/mmd_weights.h"

namespace dpo::cuda {
namespace {

/// sums [rows] = Σ over each row of a block. A block of threads a row.
template <class T>
__global__ void sum_rows_of(const T* values, BlockPlace at, bool skips_self, double* sums) {
  const std::int64_t self = at.row + blockIdx.x - at.column;
  Sum sum;
  for (std::int64_t j = threadIdx.x; j < at.columns; j += blockDim.x) {
    if (!skips_self || j != self) sum.value += static_cast<double>(values[blockIdx.x * at.columns + j]);
  }
  sum = merge_block(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum.value;
}

/// total += weight·Σ sums. One block.
__global__ void add_total(const double* sums, std::int64_t count, double weight, double* total) {
  Sum sum;
  for_each_index(count, [&](std::int64_t i) { sum.value += sums[i]; });
  sum = merge_block(sum);
  if (threadIdx.x == 0) *total += weight * sum.value;
}

template <class T>
__global__ void fill_weights(BlockPlace at, T weight, bool skips_self, BlockMemory<T> to) {
  for_each_element(at.rows, at.columns, [&](std::int64_t i, std::int64_t j, std::int64_t) {
    to.data[i * to.stride + j] = skips_self && at.row + i == at.column + j ? T(0) : weight;
  });
}

template <class S>
class Mmd {
 public:
  using T = compute_t<S>;

  Mmd(Call& call, const dpo_mmd_args& args) : call_(call), args_(args), of_(call, args.rows) {}

  dpo_status run() {
    const bool gradient = present(args_.grads.x);
    if (!of_.prepare(gradient)) return call_.status();
    return gradient ? gradients() : value();
  }

 private:
  template <class Body>
  void for_each_matrix(const Body& body) const {
    const bool unbiased = args_.unbiased != 0;
    const std::int64_t n = args_.rows.x.shape[0], m = args_.rows.y.shape[0];
    body(of_.pairs_of_x(), math::within_sample(n, unbiased));
    body(of_.pairs_of_y(), math::within_sample(m, unbiased));
    body(of_.pairs(), math::between_samples(n, m));
  }

  dpo_status value() {
    auto* total = call_.allocate<double>(1);
    call_.fill(total, 0, sizeof *total);
    for_each_matrix([&](const GramPairs<T>& pairs, math::PairWeight of) { add_sum(pairs, of, total); });
    const double mmd2 = call_.read(total);
    return call_.finish([&] { *static_cast<double*>(args_.mmd2.data) = mmd2; });
  }

  void add_sum(const GramPairs<T>& pairs, math::PairWeight of, double* total) const {
    const GramBlocks<T> blocks(call_, pairs);
    auto* block = call_.allocate<T>(pairs.block_size());
    auto* sums = call_.allocate<double>(pairs.block_rows());
    for_each_block_above(pairs, [&](const BlockPlace& at) {
      const double times = pairs.same && !pairs.on_diagonal(at) ? 2 : 1;
      const unsigned threads = row_threads(at.columns), summing = block_threads(at.rows);
      blocks.make(at, {block, at.columns});
      call_.launch(sum_rows_of<T>, {{static_cast<unsigned>(at.rows), 1, 1}, threads, merge_block_bytes<Sum>(threads)}, block, at,
                   of.skips_self, sums);
      call_.launch(add_total, {{1, 1, 1}, summing, merge_block_bytes<Sum>(summing)}, sums, at.rows, times * of.weight, total);
    });
  }

  /// The value is the sum of the gradients in ln w: Σ upstream·w·k over all pairs and kernels.
  dpo_status gradients() {
    double* sums = of_.zero_sums();
    for_each_matrix([&](const GramPairs<T>& pairs, math::PairWeight of) {
      const auto weight = static_cast<T>(pairs.same ? 2 * of.weight : of.weight);
      GramPullBack<T>(call_, pairs, nullptr, sums).add([&](const BlockPlace& at, const BlockMemory<T>& to) {
        call_.launch(fill_weights<T>, passes(at.rows * at.columns), at, weight, of.skips_self, to);
      });
    });
    const std::vector<double> totals = of_.pull_back(args_.grads, sums);
    double mmd2 = 0;
    for (std::int32_t m = 0; m < of_.members().count(); ++m)
      mmd2 += totals[static_cast<std::size_t>(of_.members().places().log_weights + m)];
    return call_.finish([&] {
      of_.write_parameters(totals, args_.grads.kernel);
      *static_cast<double*>(args_.mmd2.data) = mmd2;
    });
  }

  Call& call_;
  const dpo_mmd_args& args_;
  GramCall<S> of_;
};

}  // namespace

dpo_status mmd(dpo_job* job, const dpo_mmd_args* args) {
  return run(job, [&](Call& call) {
    return dispatch_storage(args->rows.x.dtype, [&]<class S>() { return Mmd<S>(call, *args).run(); });
  });
}

}  // namespace dpo::cuda
