#pragma once

#include "native/core/checks.h"
#include "native/core/linear_token_log_probs.h"

namespace dpo {

/// What messages call the parts of a head.
struct LinearHeadNames {
  const char* hidden = "hidden";
  const char* weight = "weight";
  const char* bias = "bias";
};

/// hidden [N, D], weight [V, D], bias [V] of one dtype.
inline void check_linear_head(Checks& checks, const dpo_linear_head& head, const LinearHeadNames& names = {}) {
  checks.shape(names.hidden, head.hidden, {-1, -1}).floating(names.hidden, head.hidden);
  checks.shape(names.weight, head.weight, {-1, head.hidden.shape[1]}).dtype(names.weight, head.weight, head.hidden.dtype);
  checks.optional_shape(names.bias, head.bias, {head.weight.shape[0]}).dtype(names.bias, head.bias, head.hidden.dtype);
}

/// A head, targets [N], logit options, memory limit.
inline void check_linear_head(Checks& checks, const dpo_linear_head& head, const dpo_tensor& targets,
                              const dpo_logit_options& options, std::int64_t memory_limit) {
  check_linear_head(checks, head);
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
