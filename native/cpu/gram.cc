#include "native/core/gram.h"

#include "native/cpu/divergence_call.h"
#include "native/cpu/gram_pull_back.h"
#include "native/cpu/operations.h"

namespace dpo::cpu {
namespace {

template <class S>
dpo_status forward(dpo_job* job, const dpo_gram_args& args) {
  using T = compute_t<S>;
  GramCall<S> call(job, args.rows);
  if (const dpo_status status = call.prepare({true, false, false}, {false, true, false}); status != DPO_OK) return status;
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  const GramPairs<T> pairs = call.pairs();
  T* const gram = data<T>(args.gram);
  const std::int64_t stride = pairs.cols();
  return call.for_each_tile(pairs, [&](std::int64_t, TilePlace at, T* buffer, std::int64_t buffer_stride) {
    make_gram_tile(pairs, at, buffer, buffer_stride, gram + at.rows.begin * stride + at.cols.begin, stride);
    if (pairs.same) mirror(gram, stride, at);
  });
}

/// Tiles of the upstream, of the same rows those of U + Uᵀ.
template <class T, class U>
class UpstreamTiles {
 public:
  UpstreamTiles(const U* upstream, std::int64_t stride, bool same) : upstream_(upstream), stride_(stride), same_(same) {}

  void operator()(TilePlace at, T* tile, std::int64_t stride) const {
    for (std::int64_t i = 0; i < at.rows.size(); ++i) {
      const U* row = upstream_ + (at.rows.begin + i) * stride_ + at.cols.begin;
      for (std::int64_t j = 0; j < at.cols.size(); ++j) tile[i * stride + j] = static_cast<T>(row[j]);
    }
    for (std::int64_t j = 0; same_ && j < at.cols.size(); ++j) {
      const U* row = upstream_ + (at.cols.begin + j) * stride_ + at.rows.begin;
      for (std::int64_t i = 0; i < at.rows.size(); ++i) tile[i * stride + j] += static_cast<T>(row[i]);
    }
  }

 private:
  const U* upstream_;
  std::int64_t stride_;
  bool same_;
};

/// Fails because of an upstream or matrix at hand that is not finite. Their check comes last and mostly costs nothing: any such
/// element shows in the sum of U·K.
dpo_status check_upstream(dpo_job* job, const dpo_gram_vjp_args& args, double sum) {
  if (std::isfinite(sum)) return DPO_OK;
  if (const dpo_status status = check_finite(job, "upstream", args.upstream); status != DPO_OK) return status;
  return present(args.gram) ? check_finite(job, "gram", args.gram) : DPO_OK;
}

template <class S>
dpo_status pull_back(dpo_job* job, const dpo_gram_vjp_args& args) {
  using T = compute_t<S>;
  GramCall<S> call(job, args.rows);
  const dpo_status prepared = call.prepare({true, false, true}, {false, true, true}, present(args.gram));
  if (prepared != DPO_OK) return prepared;
  const T* gram = call.distances_known() ? data<T>(args.gram) : nullptr;
  const GramPairs<T> pairs = call.pairs();
  double* sums = call.zero_sums();
  if (!sums) return out_of_memory(job);
  GramPullBack<T> grads(job, call.plan());
  const std::int64_t stride = pairs.cols();
  const dpo_status status =
      args.upstream.dtype == DPO_F64
          ? grads.add(pairs, UpstreamTiles<T, double>(data<double>(args.upstream), stride, pairs.same), sums, gram)
          : grads.add(pairs, UpstreamTiles<T, float>(data<float>(args.upstream), stride, pairs.same), sums, gram);
  if (status != DPO_OK) return status;
  const double sum = sums[call.plan().members.places().log_weights];
  if (const dpo_status checked = check_upstream(job, args, sum); checked != DPO_OK) return checked;
  return call.write_gradients(args.grads, sums);
}

}  // namespace

dpo_status gram(dpo_job* job, const dpo_gram_args* args) {
  return dispatch_storage(args->rows.x.dtype, [&]<class S>() { return guarded(job, [&] { return forward<S>(job, *args); }); });
}

dpo_status gram_vjp(dpo_job* job, const dpo_gram_vjp_args* args) {
  return dispatch_storage(args->rows.x.dtype, [&]<class S>() { return guarded(job, [&] { return pull_back<S>(job, *args); }); });
}

}  // namespace dpo::cpu
