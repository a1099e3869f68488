/* divergence: D(p || q) of p = softmax(policy) and q = softmax(reference) row by row, with its gradient in the policy's logits
 * (SPEC 4). The kinds are numbered by native/math (Divergence).
 * density_ratios: p / q element by element, for a generator f that only the caller can evaluate. */
#pragma once

#include "native/core/token_log_probs.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Optimal transport on a cost (kind transport). Numbered as TransportMethod and TransportMetric in native/math. */
typedef struct dpo_transport_options {
  dpo_tensor cost;       /* [V, V] f32 f64, optional */
  dpo_tensor embeddings; /* [V, E] f32 f64 f16 bf16, optional: the cost is a distance of them; goes with top_k */
  int64_t top_k;         /* support: union of the top_k tokens of either row; 0 = all tokens */
  int32_t metric;
  int32_t method;
  double epsilon; /* entropic regularisation, in units of the cost */
  int32_t debias;
  int32_t max_iterations;
  double tolerance; /* L1 error of the marginals */
} dpo_transport_options;

typedef struct dpo_divergence_kind {
  int32_t kind;
  double parameter; /* renyi, alpha, tsallis: alpha; js: beta; wasserstein: exponent; of no meaning elsewhere */
  dpo_transport_options transport;
} dpo_divergence_kind;

typedef struct dpo_divergence_args {
  dpo_tensor policy;    /* [N, V] f32 f64 f16 bf16 */
  dpo_tensor reference; /* [N, V], dtype of policy */
  dpo_tensor targets;   /* [N] i32, optional */
  dpo_divergence_kind divergence;
  dpo_logit_options options;
  /* Kind f: f(p/q) and f'(p/q), shifted so that f(1) = f'(1) = 0; where q = 0 < p both hold the limit of f'. */
  dpo_tensor generator_values; /* [N, V] f64 */
  dpo_tensor generator_slopes; /* [N, V] f64 */
  dpo_tensor upstream;         /* [N] f32 f64; goes with grad_policy */
  dpo_tensor target_upstream;  /* [N] f32 f64, optional: adds the gradient of sum target_upstream * log p[target] */
  dpo_tensor values;           /* [N], f64 for f64 inputs, else f32; 0 for ignored rows */
  dpo_tensor grad_policy;      /* [N, V], dtype of policy, optional */
} dpo_divergence_args;

typedef struct dpo_density_ratios_args {
  dpo_tensor policy;    /* [N, V] f32 f64 f16 bf16 */
  dpo_tensor reference; /* [N, V], dtype of policy */
  dpo_tensor targets;   /* [N] i32, optional */
  dpo_logit_options options;
  dpo_tensor ratios; /* [N, V] f64; 1 where both are 0 and in ignored rows */
} dpo_density_ratios_args;

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
namespace dpo {
struct Status;
Status check(const dpo_divergence_args& args);               // shapes, dtypes, options
Status check_contents(const dpo_divergence_args& args);      // what the small arrays hold
Status check(const dpo_density_ratios_args& args);           // shapes, dtypes, options
Status check_contents(const dpo_density_ratios_args& args);  // what the small arrays hold
}  // namespace dpo
#endif
