#include "native/core/divergence.h"

#include "native/cuda/divergence_launch.h"
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
bool wants_double(const math::AffinityDivergence& divergence, const dpo_logit_options& options) {
  return divergence.explodes() && (options.softcap > 0 || options.temperature != 1);
}

template <class S, class Functor>
void launch_points(Call& call, const DivergenceRows<S>& rows, const dpo_logit_options& options, const Functor& functor) {
  if constexpr (requires { functor.precise(); }) {
    const PointDivergence precise{functor.precise()};
    if (wants_double(functor, options)) {
      launch_rows<S, double>(call, rows, options, precise);
    } else {
      launch_rows<S, compute_t<S>>(call, rows, options, precise);
    }
  } else {
    launch_rows<S, compute_t<S>>(call, rows, options, PointDivergence<Functor>{functor});
  }
}

template <class S>
dpo_status finish(Call& call, const dpo_divergence_args& args, const DivergenceRows<S>& rows) {
  const unsigned long long failure = call.read(rows.failure);
  if (!call.ok() || failure == kNoRow) return call.finish();
  const auto row = static_cast<std::int64_t>(failure / DivergenceRows<S>::kStates);
  const auto state = static_cast<RowState>(failure % DivergenceRows<S>::kStates);
  switch (state) {
    case RowState::bad_policy:
      return nonfinite_logit(call, "policy", args.policy, rows.policy, row);
    case RowState::bad_reference:
      return nonfinite_logit(call, "reference", args.reference, rows.reference, row);
    default:
      return divergence_failure(call, row, state);
  }
}

template <class S>
dpo_status evaluate(Call& call, const dpo_divergence_args& args) {
  const DivergenceRows<S> rows{call.input<S>(args.policy),
                               call.input<S>(args.reference),
                               call.input<std::int32_t>(args.targets),
                               args.policy.shape[0],
                               args.policy.shape[1],
                               Scalars::of(call, args.upstream),
                               Scalars::of(call, args.target_upstream),
                               call.output<compute_t<S>>(args.values),
                               call.output<S>(args.grad_policy),
                               first_bad_row(call)};
  launch_divergence(call, rows, args.divergence, args.options,
                    {call.allocate<double>(row_blocks(rows) * cumulative_numbers(args.divergence, rows.columns)),
                     call.input<double>(args.generator_values), call.input<double>(args.generator_slopes),
                     TransportMemory::of(call, args.divergence, rows.count, rows.columns, rows.gradient != nullptr)});
  return finish(call, args, rows);
}

}  // namespace

template <class S>
void launch_divergence(Call& call, const DivergenceRows<S>& rows, const dpo_divergence_kind& of, const dpo_logit_options& options,
                       const DivergenceMemory& memory) {
  const auto kind = static_cast<Divergence>(of.kind);
  const bool is_point = math::with_divergence(kind, of.parameter, [&](const auto& functor) {
    launch_points(call, rows, options, functor);
    return true;
  });
  if (is_point) return;
  switch (kind) {
    case Divergence::renyi:
      launch_rows<S, double>(call, rows, options, MaxLogRatio{});
      break;
    case Divergence::f:
      launch_rows<S, double>(call, rows, options, GeneratorDivergence{memory.generator_values, memory.generator_slopes});
      break;
    case Divergence::wasserstein:
      launch_rows<S, double>(call, rows, options, OrderedTransport{of.parameter, memory.cumulative});
      break;
    default:
      launch_transport(call, rows, of.transport, options, memory.transport);
  }
}

template void launch_divergence<float>(Call&, const DivergenceRows<float>&, const dpo_divergence_kind&, const dpo_logit_options&,
                                       const DivergenceMemory&);
template void launch_divergence<double>(Call&, const DivergenceRows<double>&, const dpo_divergence_kind&,
                                        const dpo_logit_options&, const DivergenceMemory&);

dpo_status divergence(dpo_job* job, const dpo_divergence_args* args) {
  return dispatch_storage(args->policy.dtype,
                          [&]<class S>() { return run(job, [&](Call& call) { return evaluate<S>(call, *args); }); });
}

}  // namespace dpo::cuda
