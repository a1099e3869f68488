#include "native/core/gram.h"

#include "native/cpu/divergence_call.h"
#include "native/cpu/gram_call.h"
#include "native/cpu/operations.h"

namespace dpo::cpu {
namespace {

template <class S>
dpo_status forward(dpo_job* job, const dpo_gram_args& args) {
  using T = compute_t<S>;
  GramCall<S> call(job, args.rows);
  if (const dpo_status status = call.prepare(false); status != DPO_OK) return status;
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  const GramPairs<T> pairs = call.pairs();
  T* const gram = data<T>(args.gram);
  const std::int64_t stride = pairs.cols();
  return call.for_each_tile(pairs, [&](TilePlace at, T* buffer, std::int64_t buffer_stride) {
    make_gram_tile(pairs, at, buffer, buffer_stride, gram + at.rows.begin * stride + at.cols.begin, stride);
    if (pairs.same) mirror(gram, stride, at);
  });
}

}  // namespace

dpo_status gram(dpo_job* job, const dpo_gram_args* args) {
  return dispatch_storage(args->rows.x.dtype, [&]<class S>() { return guarded(job, [&] { return forward<S>(job, *args); }); });
}

dpo_status gram_vjp(dpo_job* job, const dpo_gram_vjp_args*) { return fail(job, DPO_ERR_BACKEND, -1, "not here yet"); }
dpo_status gram_reduce(dpo_job* job, const dpo_gram_reduce_args*) { return fail(job, DPO_ERR_BACKEND, -1, "not here yet"); }
dpo_status gram_reduce_vjp(dpo_job* job, const dpo_gram_reduce_vjp_args*) { return fail(job, DPO_ERR_BACKEND, -1, "not here yet"); }
dpo_status mmd(dpo_job* job, const dpo_mmd_args*) { return fail(job, DPO_ERR_BACKEND, -1, "not here yet"); }

}  // namespace dpo::cpu
