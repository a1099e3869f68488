/* linear_token_log_probs: token_log_probs of logits = hidden * weight^T + bias, without ever holding [N, V] (SPEC 1). */
#pragma once

#include "native/core/token_log_probs.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The language-model head applied to hidden states. */
typedef struct dpo_linear_head {
  dpo_tensor hidden; /* [N, D] f32 f64 f16 bf16 */
  dpo_tensor weight; /* [V, D], dtype of hidden */
  dpo_tensor bias;   /* [V], dtype of hidden, optional */
} dpo_linear_head;

typedef struct dpo_linear_head_gradients {
  dpo_tensor hidden; /* [N, D], dtype of hidden */
  dpo_tensor weight; /* [V, D], f64 for f64 inputs, else f32: it is a sum over all rows */
  dpo_tensor bias;   /* [V], as weight; present when a bias is */
} dpo_linear_head_gradients;

typedef struct dpo_linear_token_log_probs_args {
  dpo_linear_head head;
  dpo_tensor targets; /* [N] i32 */
  dpo_logit_options options;
  int64_t memory_limit;   /* bytes of working memory */
  dpo_tensor log_probs;   /* [N] */
  dpo_tensor log_sum_exp; /* [N]; 0 for ignored rows */
  dpo_tensor entropy;     /* [N], optional */
  dpo_tensor mean_logit;  /* [N], optional */
} dpo_linear_token_log_probs_args;

typedef struct dpo_linear_token_log_probs_vjp_args {
  dpo_linear_head head;
  dpo_tensor targets;
  dpo_tensor log_sum_exp; /* [N], of the forward pass */
  dpo_tensor upstream;    /* [N] */
  dpo_logit_options options;
  int64_t memory_limit;
  dpo_linear_head_gradients grads;
} dpo_linear_token_log_probs_vjp_args;

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
namespace dpo {
struct Status;
Status check(const dpo_linear_token_log_probs_args& args);               // shapes, dtypes, options
Status check_contents(const dpo_linear_token_log_probs_args& args);      // what the small arrays hold
Status check(const dpo_linear_token_log_probs_vjp_args& args);           // shapes, dtypes, options
Status check_contents(const dpo_linear_token_log_probs_vjp_args& args);  // what the small arrays hold
}  // namespace dpo
#endif
