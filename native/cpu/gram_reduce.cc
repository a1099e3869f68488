#include "native/cpu/divergence_call.h"
#include "native/cpu/gram_pull_back.h"
#include "native/cpu/operations.h"

namespace dpo::cpu {
namespace {

constexpr std::int64_t kRowsPerChunk = 96;

/// A tensor's numbers as T.
template <class T>
const T* converted(dpo_job* job, const dpo_tensor& from) {
  const std::int64_t count = from.shape[0] * from.shape[1];
  auto* to = allocate<T>(job, count);
  for (std::int64_t i = 0; to && i < count; ++i) to[i] = static_cast<T>(get(from, i));
  return to;
}

/// sums [rows, width] = K·vectors, a tile of K at a time.
template <class T>
dpo_status reduce(dpo_job* job, const GramPairs<T>& pairs, const T* vectors, std::int64_t width, T* sums) {
  const std::int64_t tile_size = kRowsPerChunk * kGramTile;
  Scratch<T> scratch(job, 2 * tile_size + static_cast<std::int64_t>(gemm_workspace<T>));
  const std::int64_t chunks = (pairs.rows() + kRowsPerChunk - 1) / kRowsPerChunk;
  const dpo_status status = parallel_for(job, chunks, [&](std::int64_t chunk) {
    scratch.with_buffer([&](T* buffer) {
      const Range rows{chunk * kRowsPerChunk, std::min(pairs.rows(), (chunk + 1) * kRowsPerChunk)};
      T* tile = buffer + tile_size;
      for (std::int64_t j = 0; j < pairs.cols(); j += kGramTile) {
        const Range cols{j, std::min(pairs.cols(), j + kGramTile)};
        make_gram_tile(pairs, {rows, cols}, buffer, kGramTile, tile, kGramTile);
        gemm(MatrixView<T>{tile, kGramTile, 1}, MatrixView<T>{vectors + j * width, width, 1}, rows.size(), width, cols.size(),
             sums + rows.begin * width, width, j == 0 ? Update::overwrite : Update::accumulate,
             std::span<T>(tile + tile_size, gemm_workspace<T>));
      }
    });
  });
  return status == DPO_OK && scratch.exhausted() ? out_of_memory(job) : status;
}

/// Tiles of left·rightᵀ, of the same rows those of that and its transpose.
template <class T>
class OuterTiles {
 public:
  OuterTiles(dpo_job* job, const T* left, const T* right, std::int64_t width, bool same)
      : left_(left), right_(right), width_(width), same_(same), workspace_(job, static_cast<std::int64_t>(gemm_workspace<T>)) {}

  void operator()(TilePlace at, T* tile, std::int64_t stride) const {
    workspace_.with_buffer([&](T* buffer) {
      add(left_, right_, at, tile, stride, Update::overwrite, buffer);
      if (same_) add(right_, left_, at, tile, stride, Update::accumulate, buffer);
    });
  }

  bool exhausted() const { return workspace_.exhausted(); }

 private:
  void add(const T* left, const T* right, TilePlace at, T* tile, std::int64_t stride, Update update, T* buffer) const {
    gemm(MatrixView<T>{left + at.rows.begin * width_, width_, 1}, MatrixView<T>{right + at.cols.begin * width_, 1, width_},
         at.rows.size(), at.cols.size(), width_, tile, stride, update, std::span<T>(buffer, gemm_workspace<T>));
  }

  const T *left_, *right_;
  std::int64_t width_;
  bool same_;
  mutable Scratch<T> workspace_;
};

template <class S>
dpo_status forward(dpo_job* job, const dpo_gram_reduce_args& args) {
  using T = compute_t<S>;
  if (const dpo_status status = check_finite(job, "vectors", args.vectors); status != DPO_OK) return status;
  GramCall<S> call(job, args.rows);
  if (const dpo_status status = call.prepare({true, false, false}, {false, true, false}); status != DPO_OK) return status;
  const T* vectors = converted<T>(job, args.vectors);
  if (!vectors) return out_of_memory(job);
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  return reduce(job, call.pairs(), vectors, args.vectors.shape[1], data<T>(args.sums));
}

template <class S>
dpo_status pull_back(dpo_job* job, const dpo_gram_reduce_vjp_args& args) {
  using T = compute_t<S>;
  if (const dpo_status status = check_finite(job, "vectors", args.vectors); status != DPO_OK) return status;
  if (const dpo_status status = check_finite(job, "upstream", args.upstream); status != DPO_OK) return status;
  GramCall<S> call(job, args.rows);
  if (const dpo_status status = call.prepare({true, true, true}, {true, true, true}); status != DPO_OK) return status;
  const T* vectors = converted<T>(job, args.vectors);
  const T* upstream = converted<T>(job, args.upstream);
  double* sums = call.zero_sums();
  if (!vectors || !upstream || !sums) return out_of_memory(job);
  const std::int64_t width = args.vectors.shape[1];
  const GramPairs<T> pairs = call.pairs();
  GramPullBack<T> grads(job, call.plan());
  const OuterTiles<T> outer(job, upstream, vectors, width, pairs.same);
  if (const dpo_status status = grads.add(pairs, outer, sums); status != DPO_OK) return status;
  if (outer.exhausted()) return out_of_memory(job);
  if (const dpo_status status = call.write_gradients(args.grads, sums); status != DPO_OK) return status;
  return reduce(job, call.transposed_pairs(), upstream, width, data<T>(args.grad_vectors));
}

}  // namespace

dpo_status gram_reduce(dpo_job* job, const dpo_gram_reduce_args* args) {
  return dispatch_storage(args->rows.x.dtype, [&]<class S>() { return guarded(job, [&] { return forward<S>(job, *args); }); });
}

dpo_status gram_reduce_vjp(dpo_job* job, const dpo_gram_reduce_vjp_args* args) {
  return dispatch_storage(args->rows.x.dtype, [&]<class S>() { return guarded(job, [&] { return pull_back<S>(job, *args); }); });
}

}  // namespace dpo::cpu
