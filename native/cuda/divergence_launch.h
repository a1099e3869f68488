// Rows of logits to divergences and gradients, whatever the kind. Compiled in divergence.cu.
#pragma once

#include "native/cuda/divergence_row.h"

namespace dpo::cuda {

/// f and f' at the ratios of all points, on the device; for kind f alone.
struct GeneratorTables {
  const double *values, *slopes;
};

template <class S>
void launch_divergence(Call& call, const DivergenceRows<S>& rows, const dpo_divergence_kind& of, const dpo_logit_options& options,
                       const GeneratorTables& generator = {});

/// Bytes of working memory that a row takes.
std::int64_t divergence_row_bytes(const dpo_divergence_kind& of, std::int64_t columns);

/// Ends the call because a row with a gradient has an infinite value.
inline dpo_status infinite_divergence(Call& call, std::int64_t row) {
  return call.fail_at(row, DPO_ERR_NONFINITE, "divergence: is infinite in row %lld, and so has no gradient there",
                      static_cast<long long>(row));
}

}  // namespace dpo::cuda
