/* linear_divergence: divergence of policy logits = hidden * weight^T + bias and reference logits made likewise, without ever
 * holding [N, V] (SPEC 4). */
#pragma once

#include "native/core/divergence.h"
#include "native/core/linear_token_log_probs.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dpo_linear_divergence_args {
  dpo_linear_head policy;
  dpo_linear_head reference; /* as many rows and words as the policy, any width; dtype of policy */
  dpo_tensor targets;        /* [N] i32, optional */
  dpo_divergence_kind divergence;
  dpo_logit_options options;
  int64_t memory_limit;            /* bytes of working memory */
  dpo_tensor upstream;             /* [N] f32 f64; goes with grads */
  dpo_tensor target_upstream;      /* [N] f32 f64, optional */
  dpo_tensor values;               /* [N], f64 for f64 inputs, else f32 */
  dpo_linear_head_gradients grads; /* of the policy's head, optional as a whole */
} dpo_linear_divergence_args;

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
namespace dpo {
struct Status;
Status check(const dpo_linear_divergence_args& args);           // shapes, dtypes, options
Status check_contents(const dpo_linear_divergence_args& args);  // what the small arrays hold
}  // namespace dpo
#endif
