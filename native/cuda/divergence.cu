#include "native/core/divergence.h"

#include "native/cuda/logit_check.h"
#include "native/cuda/operations.h"
#include "native/cuda/point_divergence.h"
#include "native/cuda/whole_row_divergence.h"

namespace dpo::cuda {

DPO_KL_DIVERGENCES(extern)
DPO_MIXTURE_DIVERGENCES(extern)
DPO_AFFINITY_DIVERGENCES(extern)

namespace {

using math::Divergence;

/// Whether the functor's sums may hang on a single point so far that a map other than the identity rounds too much in single
/// precision.
template <class Functor>
bool wants_double(const Functor& functor, const dpo_logit_options& options) {
  if constexpr (requires { functor.explodes(); }) return functor.explodes() && (options.softcap > 0 || options.temperature != 1);
  return false;
}

template <class S>
class DivergenceCall {
 public:
  DivergenceCall(Call& call, const dpo_divergence_args& args)
      : call_(call),
        args_(args),
        rows_{call.input<S>(args.policy),
              call.input<S>(args.reference),
              call.input<std::int32_t>(args.targets),
              args.policy.shape[0],
              args.policy.shape[1],
              Scalars::of(call, args.upstream),
              Scalars::of(call, args.target_upstream),
              call.output<compute_t<S>>(args.values),
              call.output<S>(args.grad_policy),
              first_bad_row(call)} {}

  dpo_status run() {
    const auto kind = static_cast<Divergence>(args_.divergence.kind);
    const bool is_point = math::with_divergence(kind, args_.divergence.parameter, [&](const auto& functor) {
      launch(functor);
      return true;
    });
    if (!is_point) launch_whole_rows(kind);
    return finish();
  }

 private:
  template <class Functor>
  void launch(const Functor& functor) {
    if constexpr (requires { functor.explodes(); }) {
      if (wants_double(functor, args_.options)) {
        launch_rows<S, double>(call_, rows_, args_.options, PointDivergence<Functor>{functor});
        return;
      }
    }
    launch_rows<S, compute_t<S>>(call_, rows_, args_.options, PointDivergence<Functor>{functor});
  }

  void launch_whole_rows(Divergence kind) {
    switch (kind) {
      case Divergence::renyi:
        launch_rows<S, double>(call_, rows_, args_.options, MaxLogRatio{});
        break;
      case Divergence::f:
        launch_rows<S, double>(
            call_, rows_, args_.options,
            GeneratorDivergence{call_.input<double>(args_.generator_values), call_.input<double>(args_.generator_slopes)});
        break;
      case Divergence::wasserstein:
        launch_rows<S, double>(
            call_, rows_, args_.options,
            OrderedTransport{args_.divergence.parameter, call_.allocate<double>(row_blocks(rows_) * rows_.columns)});
        break;
      default:
        call_.fail(DPO_ERR_BACKEND, "divergence: wasserstein on a cost is not supported on this backend");
    }
  }

  dpo_status finish() {
    const unsigned long long failure = call_.read(rows_.failure);
    if (!call_.ok() || failure == kNoRow) return call_.finish();
    const auto row = static_cast<std::int64_t>(failure / DivergenceRows<S>::kStates);
    switch (static_cast<RowState>(failure % DivergenceRows<S>::kStates)) {
      case RowState::bad_policy:
        return nonfinite_logit(call_, "policy", args_.policy, rows_.policy, row);
      case RowState::bad_reference:
        return nonfinite_logit(call_, "reference", args_.reference, rows_.reference, row);
      default:
        return call_.fail_at(row, DPO_ERR_NONFINITE, "divergence: is infinite in row %lld, and so has no gradient there",
                             static_cast<long long>(row));
    }
  }

  Call& call_;
  const dpo_divergence_args& args_;
  DivergenceRows<S> rows_;
};

}  // namespace

dpo_status divergence(dpo_job* job, const dpo_divergence_args* args) {
  return dispatch_storage(args->policy.dtype,
                          [&]<class S>() { return run(job, [&](Call& call) { return DivergenceCall<S>(call, *args).run(); }); });
}

}  // namespace dpo::cuda
