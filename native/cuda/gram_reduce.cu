#include "native/cuda/gram_call.h"
#include "native/cuda/gram_pull_back.h"
#include "native/cuda/matrix_product.h"
#include "native/cuda/operations.h"
#include "native/cuda/grid.h"

namespace dpo::cuda {
namespace {

template <class T, class U>
__global__ void convert_numbers(const U* from, std::int64_t count, T* to) {
  for_each_index(count, [&](std::int64_t i) { to[i] = static_cast<T>(from[i]); });
}

/// A tensor's numbers as T, on the device.
template <class T>
const T* converted(Call& call, const dpo_tensor& from) {
  const std::int64_t count = element_count(from);
  auto* to = call.allocate<T>(count);
  if (from.dtype == DPO_F64) {
    call.launch(convert_numbers<T, double>, passes(count), call.input<double>(from), count, to);
  } else {
    call.launch(convert_numbers<T, float>, passes(count), call.input<float>(from), count, to);
  }
  return to;
}

/// sums [rows, width] = K·vectors, a block of K at a time.
template <class T>
void reduce(Call& call, const GramPairs<T>& pairs, const T* vectors, std::int64_t width, T* sums) {
  const GramBlocks<T> blocks(call, pairs);
  auto* block = call.allocate<T>(pairs.block_size());
  for_each_block(pairs, [&](const BlockPlace& at) {
    blocks.make(at, {block, at.columns});
    multiply<T>(call, {at.rows, width, at.columns}, {block, at.columns}, {vectors + at.column * width, width},
                sums + at.row * width, width, at.column == 0 ? Accumulate::no : Accumulate::yes);
  });
}

/// Blocks of left·rightᵀ, of the same rows those of that and its transpose.
template <class T>
typename GramPullBack<T>::Fill outer_products(Call& call, const T* left, const T* right, std::int64_t width, bool same) {
  return [=, &call](const BlockPlace& at, const BlockMemory<T>& to) {
    const auto add = [&](const T* of_rows, const T* of_columns, Accumulate accumulate) {
      multiply<T>(call, {at.rows, at.columns, width}, {of_rows + at.row * width, width},
                  {of_columns + at.column * width, width, true}, to.data, to.stride, accumulate);
    };
    add(left, right, Accumulate::no);
    if (same) add(right, left, Accumulate::yes);
  };
}

template <class S>
dpo_status forward(Call& call, const dpo_gram_reduce_args& args) {
  using T = compute_t<S>;
  if (!check_finite(call, "vectors", args.vectors)) return call.status();
  GramCall<S> of(call, args.rows);
  if (!of.prepare(false)) return call.status();
  reduce(call, of.pairs(), converted<T>(call, args.vectors), args.vectors.shape[1], call.output<T>(args.sums));
  return call.finish();
}

template <class S>
dpo_status pull_back(Call& call, const dpo_gram_reduce_vjp_args& args) {
  using T = compute_t<S>;
  if (!check_finite(call, "vectors", args.vectors) || !check_finite(call, "upstream", args.upstream)) return call.status();
  GramCall<S> of(call, args.rows);
  if (!of.prepare(true)) return call.status();
  const T *vectors = converted<T>(call, args.vectors), *upstream = converted<T>(call, args.upstream);
  const std::int64_t width = args.vectors.shape[1];
  const GramPairs<T> pairs = of.pairs();
  double* sums = of.zero_sums();
  GramPullBack<T>(call, pairs, nullptr, sums).add(outer_products(call, upstream, vectors, width, pairs.same));
  reduce(call, of.transposed_pairs(), upstream, width, call.output<T>(args.grad_vectors));
  const std::vector<double> totals = of.pull_back(args.grads, sums);
  return call.finish([&] { of.write_parameters(totals, args.grads.kernel); });
}

}  // namespace

dpo_status gram_reduce(dpo_job* job, const dpo_gram_reduce_args* args) {
  return run(job, [&](Call& call) {
    return dispatch_storage(args->rows.x.dtype, [&]<class S>() { return forward<S>(call, *args); });
  });
}

dpo_status gram_reduce_vjp(dpo_job* job, const dpo_gram_reduce_vjp_args* args) {
  return run(job, [&](Call& call) {
    return dispatch_storage(args->rows.x.dtype, [&]<class S>() { return pull_back<S>(call, *args); });
  });
}

}  // namespace dpo::cuda
