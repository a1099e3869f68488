/* linear_preference: preference loss of hidden * weight^T with the gradient of each pair taken while its logits are at
 * hand: three matrix products where linear_token_log_probs and its pull-back need four. For losses that treat pairs
 * one by one, and pairs whose logits fit the memory limit. */
#pragma once

#include "native/core/linear_token_log_probs.h"
#include "native/core/preference.h"
#include "native/core/sequence_log_probs.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dpo_linear_preference_args {
  dpo_linear_head head;
  dpo_tensor targets; /* [N] i32 */
  dpo_tensor offsets; /* [2B + 1] i32 */
  dpo_logit_options logit_options;
  dpo_sequence_options sequence_options;
  int64_t memory_limit;
  dpo_tensor mean_logit;           /* [N] */
  dpo_preference_args preference;  /* its `policy` and `token_counts` are written here */
  dpo_linear_head_gradients grads; /* gradient of the mean over pairs */
} dpo_linear_preference_args;

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
namespace dpo {
struct Status;
Status check(const dpo_linear_preference_args& args);           // shapes, dtypes, options
Status check_contents(const dpo_linear_preference_args& args);  // what the small arrays hold
}  // namespace dpo
#endif
