/* pair_kernel: log k(u_i, v_i) row by row and its pull-back (SPEC 3). One or two right-hand sides share u, as the chosen
 * and rejected answers share their prompt. */
#pragma once

#include "native/core/kernel.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DPO_MAX_SIDES 2

typedef struct dpo_pair_kernel_args {
  dpo_tensor u; /* [N, D] f32 f64 f16 bf16 */
  int32_t side_count;
  dpo_tensor v[DPO_MAX_SIDES]; /* [N, D] each, dtype of u */
  dpo_kernel kernel;
  dpo_tensor log_k;            /* optional: [sides, N], f64 for f64 inputs, else f32 */
  dpo_tensor shares;           /* optional: [groups + members] f64, with groups: each node's share of its group */
  dpo_tensor entropies;        /* optional: [groups] f64, with groups: of the shares, nats */
  dpo_tensor responsibilities; /* optional: [sides, N, members], dtype of log_k, with groups: w_m·k_m/K */
} dpo_pair_kernel_args;

typedef struct dpo_pair_kernel_vjp_args {
  dpo_pair_kernel_args forward; /* its results may all be absent */
  dpo_tensor upstream;          /* [sides, N] f32 f64 */
  double entropy_upstream;      /* gradient in the entropy of every group */
  dpo_tensor grad_u;            /* [N, D], dtype of u */
  dpo_tensor grad_v[DPO_MAX_SIDES];
  dpo_kernel_gradients grad_kernel;
} dpo_pair_kernel_vjp_args;

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
namespace dpo {
struct Status;
Status check(const dpo_pair_kernel_args& args);               // shapes, dtypes, options
Status check_contents(const dpo_pair_kernel_args& args);      // what the small arrays hold
Status check(const dpo_pair_kernel_vjp_args& args);           // shapes, dtypes, options
Status check_contents(const dpo_pair_kernel_vjp_args& args);  // what the small arrays hold
}  // namespace dpo
#endif
