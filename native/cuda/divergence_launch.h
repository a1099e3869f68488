// Rows of logits to divergences and gradients, whatever the kind. Compiled in divergence.cu.
#pragma once

#include "native/cuda/divergence_row.h"
#include "native/cuda/transport.h"

namespace dpo::cuda {

/// What some kinds need on the device beside the rows.
struct DivergenceMemory {
  double* cumulative;                                 // wasserstein on a line: [row_blocks, V], or more
  const double *generator_values, *generator_slopes;  // f: f and f' at the ratios of all points
  TransportMemory transport;                          // wasserstein on a cost
};

template <class S>
void launch_divergence(Call& call, const DivergenceRows<S>& rows, const dpo_divergence_kind& of, const dpo_logit_options& options,
                       const DivergenceMemory& memory);

/// Numbers of DivergenceMemory::cumulative that a row takes.
inline std::int64_t cumulative_numbers(const dpo_divergence_kind& of, std::int64_t columns) {
  return static_cast<math::Divergence>(of.kind) == math::Divergence::wasserstein ? columns : 0;
}

/// Ends the call because of a row whose logits are good.
inline dpo_status divergence_failure(Call& call, std::int64_t row, RowState state) {
  if (state == RowState::not_converged)
    return call.fail_at(row, DPO_ERR_RANGE,
                        "wasserstein: row %lld did not reach the tolerance; raise maxIterations, epsilon or tolerance",
                        static_cast<long long>(row));
  return call.fail_at(row, DPO_ERR_NONFINITE, "divergence: is infinite in row %lld, and so has no gradient there",
                      static_cast<long long>(row));
}

}  // namespace dpo::cuda
