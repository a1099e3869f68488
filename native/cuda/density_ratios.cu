#include "native/core/divergence.h"

#include "native/cuda/divergence_row.h"
#include "native/cuda/logit_check.h"
#include "native/cuda/operations.h"

namespace dpo::cuda {
namespace {

/// p/q of every point of a row; 1 where both are 0.
struct DensityRatios {
  static constexpr math::Moment moment = math::Moment::none;
  static constexpr bool kSplitsRows = true;
  double* ratios;

  __host__ __device__ static double alpha() { return 0; }

  template <class S>
  __device__ void run(const DivergenceRow<S, double>& row, const math::RowMoments&, const Normalizers& sums) const {
    if (!row.writes()) return;
    double* to = ratios + row.row() * row.logits().columns;
    row.logits().for_each([&](std::int64_t i, double x, double y) {
      const double difference = row.map().mapped(x) - row.map().mapped(y);
      to[i] = difference == difference ? std::exp(difference - (sums.x.log_sum_exp() - sums.y.log_sum_exp())) : 1;
    });
  }
};

__global__ void fill_ones(double* to, std::int64_t count) {
  for_each_index(count, [=](std::int64_t i) { to[i] = 1; });
}

template <class S>
dpo_status density_ratios(Call& call, const dpo_density_ratios_args& args) {
  const std::int64_t count = args.policy.shape[0], columns = args.policy.shape[1];
  double* ratios = call.output<double>(args.ratios);
  const DivergenceRows<S> rows{call.input<S>(args.policy),
                               call.input<S>(args.reference),
                               call.input<std::int32_t>(args.targets),
                               count,
                               columns,
                               {},
                               {},
                               call.allocate<compute_t<S>>(count),
                               nullptr,
                               first_bad_row(call)};
  // What ignored rows keep.
  call.launch(fill_ones, grid_of(count * columns, kElementsEach), ratios, count * columns);
  launch_rows<S, double>(call, rows, args.options, DensityRatios{ratios});
  const unsigned long long failure = call.read(rows.failure);
  if (!call.ok() || failure == kNoRow) return call.finish();
  const auto row = static_cast<std::int64_t>(failure / DivergenceRows<S>::kStates);
  const bool of_policy = static_cast<RowState>(failure % DivergenceRows<S>::kStates) == RowState::bad_policy;
  return of_policy ? nonfinite_logit(call, "policy", args.policy, rows.policy, row)
                   : nonfinite_logit(call, "reference", args.reference, rows.reference, row);
}

}  // namespace

dpo_status density_ratios(dpo_job* job, const dpo_density_ratios_args* args) {
  return dispatch_storage(args->policy.dtype,
                          [&]<class S>() { return run(job, [&](Call& call) { return density_ratios<S>(call, *args); }); });
}

}  // namespace dpo::cuda
