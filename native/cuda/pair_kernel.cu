#include "native/core/pair_kernel.h"

#include <limits>

#include "native/cuda/grid.h"
#include "native/cuda/logit_check.h"
#include "native/cuda/operations.h"
#include "native/cuda/pair_chunk.h"
#include "native/cuda/pair_rows.h"

namespace dpo::cuda {
namespace {

constexpr const char* kSideNames[DPO_MAX_SIDES] = {"v", "v[1]"};

/// Results of all rows, which may be absent, and the first pair whose ln K is not finite or overflows.
template <class T>
struct PairValues {
  T *log_k, *responsibilities;  // [sides, rows], [sides, rows, members]
  std::int64_t rows;
  unsigned long long* failure;
};

template <class T>
__global__ void keep_values(PairRows rows, PairPoints points, std::int64_t first, PairValues<T> to) {
  constexpr auto kLargest = static_cast<double>(std::numeric_limits<T>::max());
  for_each_index(rows.pairs(), [&](std::int64_t pair) {
    const std::int64_t at = pair / rows.rows * to.rows + first + pair % rows.rows;
    const double log_k = points.log_k[pair];
    if (!(std::fabs(log_k) <= kLargest)) atomicMin(to.failure, static_cast<unsigned long long>(at));
    if (to.log_k) to.log_k[at] = static_cast<T>(log_k);
    for (std::int32_t m = 0; to.responsibilities && m < points.count; ++m)
      to.responsibilities[at * points.count + m] = static_cast<T>(points.responsibilities[m * rows.pairs() + pair]);
  });
}

constexpr unsigned long long kZeroRow = kNoRow - 1;

/// `found` = the first element of a row that is not finite, kZeroRow where all are zero, else kNoRow. One thread.
template <class S>
__global__ void inspect_row(const S* row, std::int64_t depth, unsigned long long* found) {
  using T = compute_t<S>;
  *found = kZeroRow;
  for (std::int64_t i = depth - 1; i >= 0; --i) {
    const T x = to_compute(row[i]);
    if (!(std::fabs(x) <= std::numeric_limits<T>::max())) {
      *found = static_cast<unsigned long long>(i);
    } else if (x != 0 && *found == kZeroRow) {
      *found = kNoRow;
    }
  }
}

template <class S>
class PairKernelCall {
 public:
  PairKernelCall(Call& call, const dpo_pair_kernel_args& args)
      : call_(call),
        args_(args),
        depth_(args.u.shape[1]),
        members_(call, args.kernel, depth_),
        from_{call.input<S>(args.u), call.input<S>(args.v[0]), call.input<S>(args.v[1])},
        values_{call.output<compute_t<S>>(args.log_k), call.output<compute_t<S>>(args.responsibilities), args.u.shape[0],
                first_bad_row(call)} {}

  dpo_status forward() {
    PairChunks(call_, members_, shape(), rows(), ParameterTerms{}).for_each([&](const PairChunk& chunk, std::int64_t first) {
      evaluate(chunk, first);
    });
    if (check() != DPO_OK) return call_.status();
    return call_.finish([&] { write_shares(); });
  }

  dpo_status pull_back(const dpo_pair_kernel_vjp_args& args) {
    const Scalars upstream = Scalars::of(call_, args.upstream);
    const StoredRows<S> to{call_.output<S>(args.grad_u), call_.output<S>(args.grad_v[0]), call_.output<S>(args.grad_v[1])};
    std::vector<double> sums(static_cast<std::size_t>(members_.places().size));
    auto* device_sums = call_.allocate<double>(members_.places().size);
    call_.fill(device_sums, 0, sums.size() * sizeof(double));
    PairChunks(call_, members_, shape(), rows(), parameter_terms(call_, members_))
        .for_each([&](const PairChunk& chunk, std::int64_t first) {
          evaluate(chunk, first);
          chunk.pull_back(upstream, rows(), first, device_sums);
          write_gradients(chunk, to.from(first * depth_));
        });
    if (check() != DPO_OK) return call_.status();
    call_.read(device_sums, sums);
    return call_.finish([&] {
      write_kernel_gradients(members_.places(), members_.weights(), sums.data(), args.entropy_upstream, args.grad_kernel);
      write_shares();
    });
  }

 private:
  std::int64_t rows() const { return args_.u.shape[0]; }
  PairShape shape() const { return {depth_, args_.side_count, members_.normalizes()}; }

  /// A block for each row of an operand, which merges values of T.
  template <class T>
  Grid row_blocks(const PairRows& of) const {
    const unsigned threads = row_threads(depth_);
    return {{static_cast<unsigned>(of.rows), static_cast<unsigned>(of.operands()), 1}, threads, merge_block_bytes<T>(threads)};
  }

  void evaluate(const PairChunk& chunk, std::int64_t first) {
    call_.launch(load_rows<S>, row_blocks<Magnitude>(chunk.rows()), from_.from(first * depth_), chunk.rows());
    chunk.evaluate();
    call_.launch(keep_values<compute_t<S>>, grid_of(chunk.rows().pairs()), chunk.rows(), chunk.points(), first, values_);
  }

  void write_gradients(const PairChunk& chunk, const StoredRows<S>& to) {
    call_.launch(write_row_gradients<S>, row_blocks<Sum>(chunk.rows()), chunk.rows(), chunk.points(), chunk.grads(), to);
  }

  void write_shares() const { members_.weights().write_shares(args_.shares, args_.entropies); }

  dpo_status check() {
    const unsigned long long failure = call_.read(values_.failure);
    if (!call_.ok() || failure == kNoRow) return call_.status();
    const auto pair = static_cast<std::int64_t>(failure);
    const std::int64_t row = pair % rows(), side = pair / rows();
    if (explain("u", from_.u, row) != DPO_OK) return call_.status();
    if (explain(kSideNames[side], from_.of(1 + side), row) != DPO_OK) return call_.status();
    return call_.fail_at(row, DPO_ERR_RANGE, "u, v: log k of row %lld is not finite, or overflows", static_cast<long long>(row));
  }

  dpo_status explain(const char* name, const S* operand, std::int64_t row) {
    auto* found = call_.allocate<unsigned long long>(1);
    call_.launch(inspect_row<S>, {{1, 1, 1}, 1}, operand + row * depth_, depth_, found);
    const unsigned long long what = call_.read(found);
    if (!call_.ok() || what == kNoRow) return call_.status();
    const std::int64_t first = row * depth_;
    if (what != kZeroRow) {
      const std::int64_t element = first + static_cast<std::int64_t>(what);
      return call_.fail_at(element, DPO_ERR_NONFINITE, "%s: element %lld is not finite", name, static_cast<long long>(element));
    }
    if (!members_.normalizes()) return DPO_OK;
    return call_.fail_at(first, DPO_ERR_RANGE, "%s: row %lld is zero and cannot be normalised", name,
                         static_cast<long long>(row));
  }

  Call& call_;
  const dpo_pair_kernel_args& args_;
  std::int64_t depth_;
  KernelMembers members_;
  StoredRows<const S> from_;
  PairValues<compute_t<S>> values_;
};

}  // namespace

dpo_status pair_kernel(dpo_job* job, const dpo_pair_kernel_args* args) {
  return dispatch_storage(
      args->u.dtype, [&]<class S>() { return run(job, [&](Call& call) { return PairKernelCall<S>(call, *args).forward(); }); });
}

dpo_status pair_kernel_vjp(dpo_job* job, const dpo_pair_kernel_vjp_args* args) {
  return dispatch_storage(args->forward.u.dtype, [&]<class S>() {
    return run(job, [&](Call& call) { return PairKernelCall<S>(call, args->forward).pull_back(*args); });
  });
}

}  // namespace dpo::cuda
