#include <cmath>
#include <limits>

#include "native/core/divergence.h"
#include "native/cpu/divergence_call.h"
#include "native/cpu/logit_map.h"
#include "native/cpu/nonfinite_logit.h"
#include "native/cpu/operations.h"
#include "native/cpu/row_chunks.h"
#include "native/math/log_sum_exp.h"

namespace dpo::cpu {
namespace {

/// L(z') of a row in double precision.
template <class S, class Map>
double log_sum_exp(const S* row, std::int64_t columns, const Map& map) {
  math::LogSumExp<double> sum;
  for (std::int64_t i = 0; i < columns; ++i) sum.add(map_logit(map, to_compute(row[i])));
  return sum.value();
}

template <class S, class Map>
RowState row_ratios(const S* x, const S* y, std::int64_t columns, const Map& map, double* ratios) {
  const double policy_sum = log_sum_exp(x, columns, map), reference_sum = log_sum_exp(y, columns, map);
  if (!std::isfinite(policy_sum)) return RowState::bad_policy;
  if (!std::isfinite(reference_sum)) return RowState::bad_reference;
  for (std::int64_t i = 0; i < columns; ++i) {
    const double difference = map_logit(map, to_compute(x[i])) - map_logit(map, to_compute(y[i]));
    ratios[i] = std::isnan(difference) ? 1 : std::exp(difference - (policy_sum - reference_sum));
  }
  return RowState::finite;
}

template <class S>
dpo_status run(dpo_job* job, const dpo_density_ratios_args& args) {
  const std::int64_t rows = args.policy.shape[0], columns = args.policy.shape[1];
  const S* policy = data<S>(args.policy);
  const S* reference = data<S>(args.reference);
  auto* states = allocate<RowState>(job, rows);
  if (!states) return out_of_memory(job);
  std::fill_n(states, rows, RowState::finite);
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  const RowChunks chunks(rows, columns);
  const dpo_status status = with_logit_map<compute_t<S>>(args.options, [&](const auto& map) {
    return parallel_for(job, chunks.count(), [&](std::int64_t chunk) {
      chunks.for_each(chunk, [&](std::int64_t row) {
        double* ratios = data<double>(args.ratios) + row * columns;
        if (present(args.targets) && data<std::int32_t>(args.targets)[row] == DPO_IGNORED_TARGET) {
          std::fill_n(ratios, columns, 1.0);
        } else {
          states[row] = row_ratios(policy + row * columns, reference + row * columns, columns, map, ratios);
        }
      });
    });
  });
  if (status != DPO_OK) return status;
  for (std::int64_t row = 0; row < rows; ++row) {
    if (states[row] == RowState::bad_policy) return nonfinite_logit<S>(job, "policy", args.policy, row);
    if (states[row] == RowState::bad_reference) return nonfinite_logit<S>(job, "reference", args.reference, row);
  }
  return DPO_OK;
}

}  // namespace

dpo_status density_ratios(dpo_job* job, const dpo_density_ratios_args* args) {
  return dispatch_storage(args->policy.dtype, [&]<class S>() { return run<S>(job, *args); });
}

}  // namespace dpo::cpu
