// Rows of logits to divergences and gradients, whatever the kind. Compiled in divergence.cu.
#pragma once

#include "native/cuda/divergence_row.h"

namespace dpo::cuda {

/// What some kinds need on the device beside the rows.
struct DivergenceMemory {
  double* cumulative;                                // wasserstein on a line: [row_blocks, V], or more
  const double *generator_values, *generator_slopes;  // f: f and f' at the ratios of all points
};

template <class S>
void launch_divergence(Call& call, const DivergenceRows<S>& rows, const dpo_divergence_kind& of, const dpo_logit_options& options,
                       const DivergenceMemory& memory);

/// Numbers of DivergenceMemory::cumulative that a row takes.
inline std::int64_t cumulative_numbers(const dpo_divergence_kind& of, std::int64_t columns) {
  return static_cast<math::Divergence>(of.kind) == math::Divergence::wasserstein ? columns : 0;
}

/// Ends the call because a row with a gradient has an infinite value.
inline dpo_status infinite_divergence(Call& call, std::int64_t row) {
  return call.fail_at(row, DPO_ERR_NONFINITE, "divergence: is infinite in row %lld, and so has no gradient there",
                      static_cast<long long>(row));
}

}  // namespace dpo::cuda
