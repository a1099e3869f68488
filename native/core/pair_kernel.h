/* pair_kernel: log k(u_i, v_i) row by row and its pull-back (SPEC 3). One or two right-hand sides share u, as the chosen
 * and rejected answers share their prompt. The kinds of kernel are numbered by native/math (LogKernel). */
#pragma once

#include "native/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DPO_MAX_SIDES 2

typedef struct dpo_pair_kernel_args {
  dpo_tensor u; /* [N, D] f32 f64 f16 bf16 */
  int32_t side_count;
  dpo_tensor v[DPO_MAX_SIDES]; /* [N, D] each, dtype of u */
  int32_t kernel;
  int32_t normalize;     /* L2-normalise the rows first, gradient included */
  dpo_tensor parameters; /* [P] f64, in the kernel's order */
  dpo_tensor log_k;      /* [sides, N], f64 for f64 inputs, else f32 */
} dpo_pair_kernel_args;

typedef struct dpo_pair_kernel_vjp_args {
  dpo_pair_kernel_args forward; /* its log_k is absent */
  dpo_tensor upstream;          /* [sides, N] f32 f64 */
  dpo_tensor grad_u;            /* [N, D], dtype of u */
  dpo_tensor grad_v[DPO_MAX_SIDES];
  dpo_tensor grad_parameters; /* [P] f64 */
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
