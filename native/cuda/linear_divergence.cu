#include "native/core/linear_divergence.h"

#include "native/cuda/divergence_launch.h"
#include "native/cuda/linear_head.h"
#include "native/cuda/logit_check.h"
#include "native/cuda/operations.h"

namespace dpo::cuda {
namespace {

/// What there is of each row of a block: the same by the row's place in it.
template <class T>
struct BlockScalars {
  std::int32_t* targets;               // may be null
  double *upstream, *target_upstream;  // may be null
  T* values;
};

template <class T>
__global__ void gather_scalars(const std::int64_t* rows, std::int64_t count, const std::int32_t* targets, Scalars upstream,
                               Scalars target_upstream, BlockScalars<T> to) {
  for_each_index(count, [&](std::int64_t i) {
    if (to.targets) to.targets[i] = targets[rows[i]];
    if (to.upstream) to.upstream[i] = upstream.at(rows[i]);
    if (to.target_upstream) to.target_upstream[i] = target_upstream.at(rows[i]);
  });
}

template <class T>
__global__ void scatter_values(const T* from, const std::int64_t* rows, std::int64_t count, T* to) {
  for_each_index(count, [=](std::int64_t i) { to[rows[i]] = from[i]; });
}

/// Both models' logits of a block of rows at a time, which their divergence turns into its gradient where they are.
template <class S>
class LinearDivergence {
 public:
  using T = compute_t<S>;

  LinearDivergence(Call& call, const dpo_linear_divergence_args& args)
      : call_(call),
        args_(args),
        policy_(call, args.policy),
        reference_(call, args.reference),
        rows_(counted_rows(args.targets, args.policy.hidden.shape[0])) {}

  dpo_status run() {
    const std::int64_t all = args_.policy.hidden.shape[0];
    policy_.check_contents(all, "policy.");
    reference_.check_contents(all, "reference.");
    values_ = call_.output<T>(args_.values);
    call_.fill(values_, 0, bytes_of(args_.values));
    if (wants_gradient()) grads_ = HeadGradients<S>::of(call_, args_.grads, count() > 0);
    if (count() > 0) allocate();
    const std::int64_t* rows = count() > 0 ? call_.upload(rows_) : nullptr;
    for (std::int64_t begin = 0; begin < count() && call_.ok(); begin += capacity_)
      add_block(rows + begin, std::min(capacity_, count() - begin), begin);
    return finish();
  }

 private:
  std::int64_t count() const { return static_cast<std::int64_t>(rows_.size()); }
  bool wants_gradient() const { return args_.grads.hidden.data != nullptr; }

  /// As many rows as fit into the memory limit, at least one, and as many in each block.
  std::int64_t rows_at_once() const {
    const std::int64_t columns = policy_.vocabulary(), logits = 2 * columns * static_cast<std::int64_t>(sizeof(T));
    const std::int64_t row = logits + policy_.row_bytes() + reference_.row_bytes() +
                             cumulative_numbers(args_.divergence, columns) * static_cast<std::int64_t>(sizeof(double));
    const std::int64_t most = std::clamp<std::int64_t>((args_.memory_limit - policy_.fixed_bytes()) / row, 1, count());
    const std::int64_t blocks = (count() + most - 1) / most;
    return (count() + blocks - 1) / blocks;
  }

  void allocate() {
    capacity_ = rows_at_once();
    policy_.allocate({capacity_, policy_.vocabulary()}, wants_gradient());
    reference_.allocate({capacity_, policy_.vocabulary()}, false);
    memory_.transport = TransportMemory::of(call_, args_.divergence, capacity_, policy_.vocabulary(), wants_gradient());
    memory_.cumulative = call_.allocate<double>(capacity_ * cumulative_numbers(args_.divergence, policy_.vocabulary()));
    targets_ = call_.input<std::int32_t>(args_.targets);
    upstream_ = Scalars::of(call_, args_.upstream);
    target_upstream_ = Scalars::of(call_, args_.target_upstream);
    if (targets_) scalars_.targets = call_.allocate<std::int32_t>(capacity_);
    if (args_.upstream.data) scalars_.upstream = call_.allocate<double>(capacity_);
    if (args_.target_upstream.data) scalars_.target_upstream = call_.allocate<double>(capacity_);
    scalars_.values = call_.allocate<T>(capacity_);
  }

  void add_block(const std::int64_t* rows, std::int64_t count, std::int64_t begin) {
    policy_.load_rows(rows, count);
    reference_.load_rows(rows, count);
    call_.launch(gather_scalars<T>, grid_of(count), rows, count, targets_, upstream_, target_upstream_, scalars_);
    T* logits = policy_.logits(0, policy_.vocabulary());
    failures_.push_back(first_bad_row(call_));
    const DivergenceRows<T> block{logits,
                                  reference_.logits(0, policy_.vocabulary()),
                                  scalars_.targets,
                                  count,
                                  policy_.vocabulary(),
                                  {scalars_.upstream, DPO_F64},
                                  {scalars_.target_upstream, DPO_F64},
                                  scalars_.values,
                                  wants_gradient() ? logits : nullptr,
                                  failures_.back()};
    launch_divergence(call_, block, args_.divergence, args_.options, memory_);
    call_.launch(scatter_values<T>, grid_of(count), scalars_.values, rows, count, values_);
    if (!wants_gradient()) return;
    policy_.pull_back(0, policy_.vocabulary(), begin == 0, grads_.weight, grads_.bias);
    policy_.write_hidden_gradient(grads_.hidden);
  }

  /// Fails because of the first row that does.
  dpo_status finish() {
    for (std::size_t block = 0; block < failures_.size(); ++block) {
      const unsigned long long failure = call_.read(failures_[block]);
      if (!call_.ok()) return call_.status();
      if (failure == kNoRow) continue;
      const std::size_t place = block * static_cast<std::size_t>(capacity_) + failure / DivergenceRows<T>::kStates;
      return divergence_failure(call_, rows_[place], static_cast<RowState>(failure % DivergenceRows<T>::kStates));
    }
    return call_.finish();
  }

  Call& call_;
  const dpo_linear_divergence_args& args_;
  Head<S> policy_, reference_;
  std::vector<std::int64_t> rows_;
  std::int64_t capacity_ = 1;
  T* values_ = nullptr;
  HeadGradients<S> grads_{};
  const std::int32_t* targets_ = nullptr;
  Scalars upstream_{}, target_upstream_{};
  BlockScalars<T> scalars_{};
  DivergenceMemory memory_{};
  std::vector<unsigned long long*> failures_;
};

}  // namespace

dpo_status linear_divergence(dpo_job* job, const dpo_linear_divergence_args* args) {
  return dispatch_storage(args->policy.hidden.dtype, [&]<class S>() {
    return run(job, [&](Call& call) { return LinearDivergence<S>(call, *args).run(); });
  });
}

}  // namespace dpo::cuda
