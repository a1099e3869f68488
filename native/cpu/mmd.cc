#include "native/cpu/divergence_call.h"
#include "native/cpu/gram_pull_back.h"
#include "native/cpu/operations.h"
#include "native/math/mmd_weights.h"

namespace dpo::cpu {
namespace {

template <class T>
double sum_of(const T* row, std::int64_t count) {
  Vec<T> sum{};
  std::int64_t j = 0;
  for (; j + lanes<T> <= count; j += lanes<T>) sum += load(row + j);
  if (j < count) sum += load_partial(row + j, static_cast<int>(count - j), T(0));
  return static_cast<double>(horizontal_sum(sum));
}

/// Σ over a tile, of the same rows also over its mirror image.
template <class T>
double sum_tile(const GramPairs<T>& pairs, TilePlace at, bool skips_self, T* tile, std::int64_t stride) {
  const bool on_diagonal = pairs.same && at.rows.begin == at.cols.begin;
  double sum = 0;
  for (std::int64_t i = 0; i < at.rows.size(); ++i) {
    if (on_diagonal && skips_self) tile[i * stride + i] = 0;
    sum += sum_of(tile + i * stride, at.cols.size());
  }
  return pairs.same && !on_diagonal ? 2 * sum : sum;
}

template <class S>
class Mmd {
 public:
  using T = compute_t<S>;

  Mmd(dpo_job* job, const dpo_mmd_args& args) : job_(job), args_(args), call_(job, args.rows) {}

  dpo_status run() {
    const bool gradient = present(args_.grads.x);
    if (const dpo_status status = call_.prepare({true, true, gradient}, {true, true, gradient}); status != DPO_OK) return status;
    return gradient ? gradients() : value();
  }

 private:
  template <class Body>
  dpo_status for_each_matrix(const Body& body) const {
    const bool unbiased = args_.unbiased != 0;
    const std::int64_t n = args_.rows.x.shape[0], m = args_.rows.y.shape[0];
    if (const dpo_status status = body(call_.pairs_of_x(), math::within_sample(n, unbiased)); status != DPO_OK) return status;
    if (const dpo_status status = body(call_.pairs_of_y(), math::within_sample(m, unbiased)); status != DPO_OK) return status;
    return body(call_.pairs(), math::between_samples(n, m));
  }

  dpo_status value() {
    double mmd2 = 0;
    const dpo_status status = for_each_matrix([&](const GramPairs<T>& pairs, math::PairWeight of) {
      double sum = 0;
      const dpo_status summed = add_sum(pairs, of, sum);
      mmd2 += of.weight * sum;
      return summed;
    });
    if (status != DPO_OK) return status;
    if (const dpo_status begun = host->begin_writes(job_); begun != DPO_OK) return begun;
    set(args_.mmd2, 0, mmd2);
    return DPO_OK;
  }

  dpo_status add_sum(const GramPairs<T>& pairs, math::PairWeight of, double& sum) {
    const TileGrid grid(pairs.rows(), pairs.cols(), pairs.same);
    auto* partial = allocate<double>(job_, grid.count());
    if (!partial) return out_of_memory(job_);
    const dpo_status status = call_.for_each_tile(pairs, [&](std::int64_t index, TilePlace at, T* buffer, std::int64_t stride) {
      T* tile = buffer + stride * stride;
      make_gram_tile(pairs, at, buffer, stride, tile, stride);
      partial[index] = sum_tile(pairs, at, of.skips_self, tile, stride);
    });
    for (std::int64_t i = 0; status == DPO_OK && i < grid.count(); ++i) sum += partial[i];
    return status;
  }

  /// The value is the sum of the gradients in ln w: Σ upstream·w·k over all pairs and kernels.
  dpo_status gradients() {
    double* sums = call_.zero_sums();
    if (!sums) return out_of_memory(job_);
    GramPullBack<T> pull_back(job_, call_.plan());
    const dpo_status status = for_each_matrix([&](const GramPairs<T>& pairs, math::PairWeight of) {
      const auto weight = static_cast<T>(pairs.same ? 2 * of.weight : of.weight);
      return pull_back.add(
          pairs,
          [&](TilePlace at, T* tile, std::int64_t stride) {
            for (std::int64_t i = 0; i < at.rows.size(); ++i) {
              std::fill_n(tile + i * stride, at.cols.size(), weight);
              const std::int64_t self = at.rows.begin + i - at.cols.begin;
              if (of.skips_self && self >= 0 && self < at.cols.size()) tile[i * stride + self] = 0;
            }
          },
          sums);
    });
    if (status != DPO_OK) return status;
    double mmd2 = 0;
    for (std::int32_t m = 0; m < call_.plan().members.count(); ++m) mmd2 += sums[call_.plan().members.places().log_weights + m];
    if (const dpo_status written = call_.write_gradients(args_.grads, sums); written != DPO_OK) return written;
    set(args_.mmd2, 0, mmd2);
    return DPO_OK;
  }

  dpo_job* job_;
  const dpo_mmd_args& args_;
  GramCall<S> call_;
};

}  // namespace

dpo_status mmd(dpo_job* job, const dpo_mmd_args* args) {
  return dispatch_storage(args->rows.x.dtype, [&]<class S>() { return guarded(job, [&] { return Mmd<S>(job, *args).run(); }); });
}

}  // namespace dpo::cpu
