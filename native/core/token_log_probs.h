/* token_log_probs: log-probability of the target token of every row of logits (SPEC 1).
 *   z' = softcap * tanh(z / softcap) / temperature,   log_prob = z'[target] - logsumexp(z') */
#pragma once

#include "native/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows whose target is this take no part: log-probability 0, gradient 0. */
#define DPO_IGNORED_TARGET (-100)

/* What turns raw logits into the logits of the softmax. softcap 0 = none. */
typedef struct dpo_logit_options {
  double temperature;
  double softcap;
} dpo_logit_options;

typedef struct dpo_token_log_probs_args {
  dpo_tensor logits;  /* [N, V] f32 f64 f16 bf16 */
  dpo_tensor targets; /* [N] i32 */
  dpo_logit_options options;
  /* Results: f64 for f64 logits, else f32; but log_sum_exp is always f64, because the pull-back takes z' - log_sum_exp, and
   * for logits shifted by 1e4 an f32 would leave three digits of that. */
  dpo_tensor log_probs;   /* [N] */
  dpo_tensor log_sum_exp; /* [N] */
  dpo_tensor entropy;     /* [N], optional */
  dpo_tensor mean_logit;  /* [N], optional: mean of the raw logits of the row */
} dpo_token_log_probs_args;

typedef struct dpo_token_log_probs_vjp_args {
  dpo_tensor logits;
  dpo_tensor targets;
  dpo_tensor log_sum_exp; /* [N] f32 f64, of the forward pass */
  dpo_tensor upstream;    /* [N] f32 f64 */
  dpo_logit_options options;
  dpo_tensor grad_logits; /* [N, V], dtype of logits */
} dpo_token_log_probs_vjp_args;

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
namespace dpo {
struct Status;
Status check(const dpo_token_log_probs_args& args);               // shapes, dtypes, options
Status check_contents(const dpo_token_log_probs_args& args);      // what the small arrays hold
Status check(const dpo_token_log_probs_vjp_args& args);           // shapes, dtypes, options
Status check_contents(const dpo_token_log_probs_vjp_args& args);  // what the small arrays hold
}  // namespace dpo
#endif
