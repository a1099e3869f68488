#pragma once

#include "native/addon/arguments.h"

namespace dpo {

// Groups of arguments that several operations share, in the order of lib/native/shared-arguments.ts.

inline dpo_logit_options read_logit_options(Arguments& in) {
  dpo_logit_options options{};
  options.temperature = in.number();
  options.softcap = in.number();
  return options;
}

inline dpo_sequence_options read_sequence_options(Arguments& in) {
  dpo_sequence_options options{};
  options.reduction = in.integer();
  options.ld_alpha = in.number();
  return options;
}

inline dpo_linear_head read_linear_head(Arguments& in) {
  dpo_linear_head head{};
  head.hidden = in.resident_tensor();
  head.weight = in.resident_tensor();
  head.bias = in.resident_tensor();
  return head;
}

inline dpo_linear_head_gradients read_linear_head_gradients(Arguments& in) {
  dpo_linear_head_gradients grads{};
  grads.hidden = in.resident_tensor();
  grads.weight = in.resident_tensor();
  grads.bias = in.resident_tensor();
  return grads;
}

dpo_preference_args read_preference_args(Arguments& in);

dpo_divergence_kind read_divergence_kind(Arguments& in);

}  // namespace dpo
