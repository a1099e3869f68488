#pragma once

#include "native/core/checks.h"
#include "native/core/divergence.h"

namespace dpo {

/// The kind is known and its parameter and transport options are in range, for rows of `vocabulary` words.
void check_divergence_kind(Checks& checks, const dpo_divergence_kind& divergence, std::int64_t vocabulary);

/// targets [N], upstream and target upstream [N], values [N] of a divergence of `rows` rows of logits of `dtype`.
struct DivergenceRows {
  const dpo_tensor& targets;
  const dpo_tensor& upstream;
  const dpo_tensor& target_upstream;
  const dpo_tensor& values;
};
void check_divergence_rows(Checks& checks, const DivergenceRows& args, std::int64_t rows, std::int32_t dtype, bool has_gradient);

/// What these arrays hold.
void check_divergence_contents(Checks& checks, const dpo_divergence_kind& divergence, const DivergenceRows& args,
                               std::int64_t vocabulary);

}  // namespace dpo
