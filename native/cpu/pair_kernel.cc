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

constexpr std::int64_t kRowElements = 16384;  // of u in a chunk
constexpr std::int64_t kBlockRows = 16;
constexpr std::int64_t kPartialBytes = std::int64_t{64} << 20;  // for the parameter gradients of chunks
constexpr std::int64_t kFewestPartials = 4;
constexpr const char* kSideNames[DPO_MAX_SIDES] = {"v", "v[1]"};

/// Rows cut into chunks and those into blocks, by shapes alone.
struct RowBlocks {
  std::int64_t rows, rows_per_chunk, rows_per_block;

  RowBlocks(std::int64_t row_count, std::int64_t depth, std::int64_t partial_size) : rows(row_count) {
    const std::int64_t by_size = std::max(kBlockRows, kRowElements / depth / kBlockRows * kBlockRows);
    const std::int64_t most = std::max(kFewestPartials, kPartialBytes / 8 / std::max<std::int64_t>(1, partial_size));
    const std::int64_t by_partials = (row_count + most - 1) / most;
    rows_per_chunk = std::max(by_size, (by_partials + kBlockRows - 1) / kBlockRows * kBlockRows);
    rows_per_block = kBlockRows;
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

/// One call: its rows, its kernels, and ln K of every pair.
template <Storage S>
class PairKernelCall {
 public:
  PairKernelCall(dpo_job* job, const dpo_pair_kernel_args& args) : job_(job), args_(args), rows_(args.u.shape[0]) {}

  dpo_status prepare() {
    log_k_ = allocate<double>(job_, pairs());
    return log_k_ && kernels_.prepare(job_, args_.kernel, args_.u.shape[1]) ? DPO_OK : out_of_memory(job_);
  }

  std::int64_t pairs() const { return rows_ * args_.side_count; }
  const KernelMembers& kernels() const { return kernels_; }
  double log_k(std::int64_t pair) const { return log_k_[pair]; }

  /// Calls body(block, first row, chunk) for every block once its ln K are there, then checks them.
  template <class Body>
  dpo_status run(const RowBlocks& blocks, bool gradients, const Body& body) {
    const PairShape shape{args_.u.shape[1], args_.side_count, std::min(rows_, blocks.rows_per_block), gradients};
    Scratch<double> scratch(job_, PairBlock::size(kernels_, shape));
    const dpo_status status = parallel_for(job_, blocks.chunks(), [&](std::int64_t chunk) {
      scratch.with_buffer([&](double* buffer) {
        PairBlock block(kernels_, shape, buffer);
        blocks.for_each_block(chunk, [&](std::int64_t begin, std::int64_t count) {
          block.load<S>(args_, begin, count);
          block.evaluate();
          for (std::int64_t side = 0; side < args_.side_count; ++side) {
            for (std::int64_t r = 0; r < count; ++r) log_k_[side * rows_ + begin + r] = block.log_k(block.pair(side, r));
          }
          body(block, begin, count, chunk);
        });
      });
    });
    if (status == DPO_OK && scratch.exhausted()) return out_of_memory(job_);
    return status == DPO_OK ? check() : status;
  }

 private:
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
  double* log_k_ = nullptr;
};

template <Storage S>
dpo_status forward(dpo_job* job, const dpo_pair_kernel_args& args) {
  PairKernelCall<S> call(job, args);
  if (const dpo_status status = call.prepare(); status != DPO_OK) return status;
  const std::int64_t rows = args.u.shape[0], members = call.kernels().count();
  const bool responsible = present(args.responsibilities);
  auto* responsibilities = allocate<double>(job, responsible ? call.pairs() * members : 1);
  if (!responsibilities) return out_of_memory(job);
  const RowBlocks blocks(rows, args.u.shape[1], 0);
  const dpo_status status = call.run(blocks, false, [&](PairBlock& block, std::int64_t begin, std::int64_t count, std::int64_t) {
    if (!responsible) return;
    for (std::int64_t side = 0; side < args.side_count; ++side) {
      for (std::int64_t r = 0; r < count; ++r) {
        for (std::int32_t m = 0; m < members; ++m) {
          responsibilities[(side * rows + begin + r) * members + m] = block.responsibility(block.pair(side, r), m);
        }
      }
    }
  });
  if (status != DPO_OK) return status;
  if (const dpo_status begun = host->begin_writes(job); begun != DPO_OK) return begun;
  if (present(args.log_k)) {
    for (std::int64_t pair = 0; pair < call.pairs(); ++pair) set(args.log_k, pair, call.log_k(pair));
  }
  for (std::int64_t i = 0; responsible && i < call.pairs() * members; ++i) set(args.responsibilities, i, responsibilities[i]);
  call.kernels().write_shares(args.shares, args.entropies);
  return DPO_OK;
}

template <Write write, Storage S>
dpo_status pull_back(dpo_job* job, const dpo_pair_kernel_vjp_args& args) {
  const dpo_pair_kernel_args& given = args.forward;
  PairKernelCall<S> call(job, given);
  if (const dpo_status status = call.prepare(); status != DPO_OK) return status;
  const std::int64_t rows = given.u.shape[0], size = call.kernels().places().size;
  const RowBlocks blocks(rows, given.u.shape[1], size);
  auto* partials = allocate<double>(job, blocks.chunks() * size);
  if (!partials) return out_of_memory(job);
  if (!host->discards_results(job)) {
    const auto nothing = [](PairBlock&, std::int64_t, std::int64_t, std::int64_t) {};
    if (const dpo_status status = call.run(blocks, false, nothing); status != DPO_OK) return status;
  }
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  std::fill_n(partials, blocks.chunks() * size, 0.0);
  const dpo_status status =
      call.run(blocks, true, [&](PairBlock& block, std::int64_t begin, std::int64_t count, std::int64_t chunk) {
        for (std::int64_t side = 0; side < given.side_count; ++side) {
          for (std::int64_t r = 0; r < count; ++r)
            block.set_upstream(block.pair(side, r), get(args.upstream, side * rows + begin + r));
        }
        block.pull_back(partials + chunk * size);
        for (std::int64_t r = 0; r < count; ++r) block.write_gradients<write, S>(args, begin, r, partials + chunk * size);
        if constexpr (write == Write::streamed) stream_fence();
      });
  if (status != DPO_OK) return status;
  for (std::int64_t chunk = 1; chunk < blocks.chunks(); ++chunk) {
    for (std::int64_t i = 0; i < size; ++i) partials[i] += partials[chunk * size + i];
  }
  call.kernels().write_gradients(partials, args.entropy_upstream, args.grad_kernel);
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
