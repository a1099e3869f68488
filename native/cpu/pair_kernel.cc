#include "native/core/pair_kernel.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "native/cpu/operation.h"
#include "native/cpu/operations.h"
#include "native/cpu/pair_block.h"
#include "native/cpu/scratch.h"

namespace dpo::cpu {
namespace {

constexpr std::int64_t kRowElements = 16384;                    // of u in a chunk
constexpr std::int64_t kBlockRows = 16;                         // share the panels of a map
constexpr std::int64_t kPlainBlockRows = 2;                     // stay in the nearest cache
constexpr std::int64_t kPartialBytes = std::int64_t{64} << 20;  // for the parameter gradients of chunks
constexpr std::int64_t kFewestPartials = 4;
constexpr const char* kSideNames[DPO_MAX_SIDES] = {"v", "v[1]"};

/// Rows cut into chunks and those into blocks, by shapes alone.
struct RowBlocks {
  std::int64_t rows, rows_per_chunk, rows_per_block;

  RowBlocks(std::int64_t row_count, std::int64_t depth, const KernelMembers& kernels) : rows(row_count) {
    const std::int64_t by_size = std::max(kBlockRows, kRowElements / depth / kBlockRows * kBlockRows);
    const std::int64_t most = std::max(kFewestPartials, kPartialBytes / 8 / kernels.places().size);
    const std::int64_t by_partials = (row_count + most - 1) / most;
    rows_per_chunk = std::max(by_size, (by_partials + kBlockRows - 1) / kBlockRows * kBlockRows);
    const bool maps = kernels.any_maps_differences() || kernels.any(KernelMap::landmarks);
    rows_per_block = maps ? kBlockRows : kPlainBlockRows;
  }
  std::int64_t chunks() const { return (rows + rows_per_chunk - 1) / rows_per_chunk; }

  /// Calls body(first row, number of rows).
  template <class Body>
  void for_each_block(std::int64_t chunk, const Body& body) const {
    const std::int64_t end = std::min(rows, (chunk + 1) * rows_per_chunk);
    for (std::int64_t begin = chunk * rows_per_chunk; begin < end; begin += rows_per_block)
      body(begin, std::min(rows_per_block, end - begin));
  }
};

/// One call: its rows, its kernels, and their values until they may be written.
template <Storage S>
class PairKernelCall {
 public:
  PairKernelCall(dpo_job* job, const dpo_pair_kernel_args& args) : job_(job), args_(args), rows_(args.u.shape[0]) {}

  dpo_status prepare() {
    if (!kernels_.prepare(job_, args_.kernel, args_.u.shape[1])) return out_of_memory(job_);
    log_k_ = allocate<double>(job_, pairs());
    if (present(args_.responsibilities)) responsibilities_ = allocate<double>(job_, pairs() * kernels_.count());
    const bool complete = log_k_ && (responsibilities_ || !present(args_.responsibilities));
    return complete ? DPO_OK : out_of_memory(job_);
  }

  const KernelMembers& kernels() const { return kernels_; }
  RowBlocks blocks() const { return {rows_, args_.u.shape[1], kernels_}; }

  /// Values alone, checked.
  dpo_status evaluate() {
    return run(false, [](PairBlock&, std::int64_t, std::int64_t, std::int64_t) {});
  }

  /// Calls body(block, first row, rows, chunk) for every block once its ln K are there, then checks them.
  template <class Body>
  dpo_status run(bool gradients, const Body& body) {
    const RowBlocks cut = blocks();
    const PairShape shape{args_.u.shape[1], args_.side_count, std::min(rows_, cut.rows_per_block), gradients};
    Scratch<double> scratch(job_, PairBlock::size(kernels_, shape));
    const dpo_status status = parallel_for(job_, cut.chunks(), [&](std::int64_t chunk) {
      scratch.with_buffer([&](double* buffer) {
        PairBlock block(kernels_, shape, buffer);
        cut.for_each_block(chunk, [&](std::int64_t begin, std::int64_t count) {
          block.load<S>(args_, begin, count);
          block.evaluate();
          keep(block, begin, count);
          body(block, begin, count, chunk);
        });
      });
    });
    if (status == DPO_OK && scratch.exhausted()) return out_of_memory(job_);
    return status == DPO_OK ? check() : status;
  }

  void write_values() const {
    for (std::int64_t pair = 0; present(args_.log_k) && pair < pairs(); ++pair) set(args_.log_k, pair, log_k_[pair]);
    for (std::int64_t i = 0; responsibilities_ && i < pairs() * kernels_.count(); ++i)
      set(args_.responsibilities, i, responsibilities_[i]);
    kernels_.write_shares(args_.shares, args_.entropies);
  }

 private:
  std::int64_t pairs() const { return rows_ * args_.side_count; }

  void keep(const PairBlock& block, std::int64_t begin, std::int64_t count) {
    for (std::int64_t side = 0; side < args_.side_count; ++side) {
      for (std::int64_t r = 0; r < count; ++r) {
        const std::int64_t from = block.pair(side, r), to = side * rows_ + begin + r;
        log_k_[to] = block.log_k(from);
        for (std::int32_t m = 0; responsibilities_ && m < kernels_.count(); ++m)
          responsibilities_[to * kernels_.count() + m] = block.responsibility(from, m);
      }
    }
  }

  dpo_status check() const {
    const double largest =
        args_.u.dtype == DPO_F64 ? std::numeric_limits<double>::max() : static_cast<double>(std::numeric_limits<float>::max());
    for (std::int64_t pair = 0; pair < pairs(); ++pair) {
      if (std::fabs(log_k_[pair]) <= largest) continue;
      const std::int64_t row = pair % rows_, side = pair / rows_;
      if (const dpo_status status = explain("u", args_.u, row); status != DPO_OK) return status;
      if (const dpo_status status = explain(kSideNames[side], args_.v[side], row); status != DPO_OK) return status;
      return fail(job_, DPO_ERR_RANGE, row, "u, v: log k of row %lld is not finite, or overflows", static_cast<long long>(row));
    }
    return DPO_OK;
  }

  dpo_status explain(const char* name, const dpo_tensor& tensor, std::int64_t row) const {
    const std::int64_t depth = tensor.shape[1];
    const S* values = data<S>(tensor) + row * depth;
    const auto first = static_cast<long long>(row * depth);
    bool zero = true;
    for (std::int64_t i = 0; i < depth; ++i) {
      const auto value = to_compute(values[i]);
      if (!std::isfinite(value))
        return fail(job_, DPO_ERR_NONFINITE, first + i, "%s: element %lld is not finite", name, first + i);
      zero = zero && value == 0;
    }
    if (zero && kernels_.normalizes()) {
      return fail(job_, DPO_ERR_RANGE, first, "%s: row %lld is zero and cannot be normalised", name, static_cast<long long>(row));
    }
    return DPO_OK;
  }

  dpo_job* job_;
  const dpo_pair_kernel_args& args_;
  std::int64_t rows_;
  KernelMembers kernels_;
  double *log_k_ = nullptr, *responsibilities_ = nullptr;
};

template <Storage S>
dpo_status forward(dpo_job* job, const dpo_pair_kernel_args& args) {
  PairKernelCall<S> call(job, args);
  if (const dpo_status status = call.prepare(); status != DPO_OK) return status;
  if (const dpo_status status = call.evaluate(); status != DPO_OK) return status;
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  call.write_values();
  return DPO_OK;
}

/// partials [chunks, size]: their sum, in the order of the chunks, ends up in the first.
void sum_partials(double* partials, std::int64_t chunks, std::int64_t size) {
  for (std::int64_t chunk = 1; chunk < chunks; ++chunk) {
    for (std::int64_t i = 0; i < size; ++i) partials[i] += partials[chunk * size + i];
  }
}

template <Write write, Storage S>
dpo_status pull_back(dpo_job* job, const dpo_pair_kernel_vjp_args& args) {
  const dpo_pair_kernel_args& given = args.forward;
  PairKernelCall<S> call(job, given);
  if (const dpo_status status = call.prepare(); status != DPO_OK) return status;
  const std::int64_t rows = given.u.shape[0], size = call.kernels().places().size, chunks = call.blocks().chunks();
  auto* partials = allocate<double>(job, chunks * size);
  if (!partials) return out_of_memory(job);
  if (!host->discards_results(job)) {
    if (const dpo_status status = call.evaluate(); status != DPO_OK) return status;
  }
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  std::fill_n(partials, chunks * size, 0.0);
  const dpo_status status = call.run(true, [&](PairBlock& block, std::int64_t begin, std::int64_t count, std::int64_t chunk) {
    double* sums = partials + chunk * size;
    for (std::int64_t side = 0; side < given.side_count; ++side) {
      for (std::int64_t r = 0; r < count; ++r)
        block.set_upstream(block.pair(side, r), get(args.upstream, side * rows + begin + r));
    }
    block.pull_back(sums);
    for (std::int64_t r = 0; r < count; ++r) block.write_gradients<write, S>(args, begin, r, sums);
    if constexpr (write == Write::streamed) stream_fence();
  });
  if (status != DPO_OK) return status;
  sum_partials(partials, chunks, size);
  call.kernels().write_gradients(partials, args.entropy_upstream, args.grad_kernel);
  call.write_values();
  return DPO_OK;
}

}  // namespace

dpo_status pair_kernel(dpo_job* job, const dpo_pair_kernel_args* args) {
  return dispatch_storage(args->u.dtype, [&]<class S>() { return forward<S>(job, *args); });
}

dpo_status pair_kernel_vjp(dpo_job* job, const dpo_pair_kernel_vjp_args* args) {
  return dispatch_storage(args->forward.u.dtype, [&]<class S>() {
    const dpo_tensor& u = args->forward.u;
    const std::int64_t bytes = u.shape[0] * u.shape[1] * static_cast<std::int64_t>(sizeof(S));
    return bytes > kStreamBytes ? pull_back<Write::streamed, S>(job, *args) : pull_back<Write::cached, S>(job, *args);
  });
}

}  // namespace dpo::cpu
