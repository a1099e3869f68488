/* gram: the matrix of k(x_i, y_j), its pull-back, its product with vectors, and the squared maximum mean discrepancy (SPEC 3). */
#pragma once

#include "native/core/kernel.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Two sets of rows and the kernel between them. */
typedef struct dpo_gram_rows {
  dpo_tensor x; /* [N, D] f32 f64 f16 bf16 */
  dpo_tensor y; /* [M, D], dtype of x; absent: x again */
  dpo_kernel kernel;
  int32_t exact; /* distances from differences, not from norms and products */
} dpo_gram_rows;

typedef struct dpo_gram_args {
  dpo_gram_rows rows;
  dpo_tensor gram; /* [N, M], f64 for f64 inputs, else f32 */
} dpo_gram_args;

/* Results of a pull-back. */
typedef struct dpo_gram_gradients {
  dpo_tensor x; /* [N, D], dtype of x */
  dpo_tensor y; /* [M, D], where y was given */
  dpo_kernel_gradients kernel;
} dpo_gram_gradients;

typedef struct dpo_gram_vjp_args {
  dpo_gram_rows rows;
  dpo_tensor upstream; /* [N, M] f32 f64 */
  dpo_tensor gram;     /* as in dpo_gram_args, or absent; spares its product where distances follow from it */
  dpo_gram_gradients grads;
} dpo_gram_vjp_args;

typedef struct dpo_gram_reduce_args {
  dpo_gram_rows rows;
  dpo_tensor vectors; /* [M, C] f32 f64 */
  dpo_tensor sums;    /* [N, C], f64 for f64 inputs, else f32 */
} dpo_gram_reduce_args;

typedef struct dpo_gram_reduce_vjp_args {
  dpo_gram_rows rows;
  dpo_tensor vectors;  /* [M, C] f32 f64 */
  dpo_tensor upstream; /* [N, C] f32 f64 */
  dpo_gram_gradients grads;
  dpo_tensor grad_vectors; /* [M, C], f64 for f64 inputs, else f32 */
} dpo_gram_reduce_vjp_args;

typedef struct dpo_mmd_args {
  dpo_gram_rows rows;
  int32_t unbiased;
  dpo_tensor mmd2;          /* [1] f64 */
  dpo_gram_gradients grads; /* optional as a whole */
} dpo_mmd_args;

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
namespace dpo {
struct Status;
Status check(const dpo_gram_args& args);                      // shapes, dtypes, options
Status check_contents(const dpo_gram_args& args);             // what the small arrays hold
Status check(const dpo_gram_vjp_args& args);                  // shapes, dtypes, options
Status check_contents(const dpo_gram_vjp_args& args);         // what the small arrays hold
Status check(const dpo_gram_reduce_args& args);               // shapes, dtypes, options
Status check_contents(const dpo_gram_reduce_args& args);      // what the small arrays hold
Status check(const dpo_gram_reduce_vjp_args& args);           // shapes, dtypes, options
Status check_contents(const dpo_gram_reduce_vjp_args& args);  // what the small arrays hold
Status check(const dpo_mmd_args& args);                       // shapes, dtypes, options
Status check_contents(const dpo_mmd_args& args);              // what the small arrays hold
}  // namespace dpo
#endif
