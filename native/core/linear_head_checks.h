#pragma once

#include "native/core/checks.h"
#include "native/core/linear_token_log_probs.h"

namespace dpo {

/// hidden [N, D], weight [V, D], bias [V] of one dtype, targets [N], logit options, memory limit.
inline void check_linear_head(Checks& checks, const dpo_linear_head& head, const dpo_tensor& targets,
                              const dpo_logit_options& options, std::int64_t memory_limit) {
  checks.shape("hidden", head.hidden, {-1, -1}).floating("hidden", head.hidden);
  checks.shape("weight", head.weight, {-1, head.hidden.shape[1]}).dtype("weight", head.weight, head.hidden.dtype);
  checks.optional_shape("bias", head.bias, {head.weight.shape[0]}).dtype("bias", head.bias, head.hidden.dtype);
  checks.shape("targets", targets, {head.hidden.shape[0]}).dtype("targets", targets, DPO_I32);
  checks.positive("temperature", options.temperature).non_negative("softcap", options.softcap);
  checks.positive("memoryLimit", static_cast<double>(memory_limit));
}

inline void check_linear_head_gradients(Checks& checks, const dpo_linear_head& head, const dpo_linear_head_gradients& grads) {
  const std::int32_t wide = result_dtype(head.hidden.dtype);
  const std::int64_t depth = head.hidden.shape[1], vocabulary = head.weight.shape[0];
  checks.shape("out.hidden", grads.hidden, {head.hidden.shape[0], depth}).dtype("out.hidden", grads.hidden, head.hidden.dtype);
  checks.shape("out.weight", grads.weight, {vocabulary, depth}).dtype("out.weight", grads.weight, wide);
  checks.require(present(grads.bias) == present(head.bias), DPO_ERR_SHAPE, "out.bias: goes with bias");
  checks.optional_shape("out.bias", grads.bias, {vocabulary}).dtype("out.bias", grads.bias, wide);
}

}  // namespace dpo
