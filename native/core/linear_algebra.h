/* linear_algebra: Cholesky factors, triangular systems and eigendecompositions of symmetric matrices, each with its pull-back
 * (SPEC 3). All matrices are f32, or all f64; arithmetic is in f64. */
#pragma once

#include "native/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dpo_cholesky_args {
  dpo_tensor a;           /* [D, D]: the lower triangle is read */
  double jitter;          /* the first of three attempts' addition to the diagonal, as a share of its mean; 0: none */
  dpo_tensor factor;      /* [D, D]: lower L, a + jitter·I = L·Lᵀ */
  dpo_tensor used_jitter; /* [1] f64: what was added to each diagonal element */
} dpo_cholesky_args;

typedef struct dpo_cholesky_vjp_args {
  dpo_tensor factor;   /* [D, D] */
  dpo_tensor upstream; /* [D, D]: the lower triangle counts */
  dpo_tensor grad_a;   /* [D, D], symmetric */
} dpo_cholesky_vjp_args;

typedef struct dpo_solve_triangular_args {
  dpo_tensor a; /* [D, D] */
  dpo_tensor b; /* [D, K] */
  int32_t lower;
  int32_t transpose; /* aᵀ·x = b */
  dpo_tensor x;      /* [D, K] */
} dpo_solve_triangular_args;

typedef struct dpo_solve_triangular_vjp_args {
  dpo_tensor a;        /* [D, D] */
  dpo_tensor x;        /* [D, K]: the solution */
  dpo_tensor upstream; /* [D, K] */
  int32_t lower;
  int32_t transpose;
  dpo_tensor grad_a; /* [D, D] */
  dpo_tensor grad_b; /* [D, K] */
} dpo_solve_triangular_vjp_args;

typedef struct dpo_eigh_args {
  dpo_tensor a;       /* [D, D]: the lower triangle is read */
  dpo_tensor values;  /* [D], ascending */
  dpo_tensor vectors; /* [D, D]: columns, the largest component of each positive */
} dpo_eigh_args;

typedef struct dpo_eigh_vjp_args {
  dpo_tensor values;           /* [D] */
  dpo_tensor vectors;          /* [D, D] */
  dpo_tensor upstream_values;  /* [D], optional */
  dpo_tensor upstream_vectors; /* [D, D], optional */
  dpo_tensor grad_a;           /* [D, D], symmetric */
} dpo_eigh_vjp_args;

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
namespace dpo {
struct Status;
// Shapes, dtypes, options; then what the arrays hold.
Status check(const dpo_cholesky_args& args);
Status check_contents(const dpo_cholesky_args& args);
Status check(const dpo_cholesky_vjp_args& args);
Status check_contents(const dpo_cholesky_vjp_args& args);
Status check(const dpo_solve_triangular_args& args);
Status check_contents(const dpo_solve_triangular_args& args);
Status check(const dpo_solve_triangular_vjp_args& args);
Status check_contents(const dpo_solve_triangular_vjp_args& args);
Status check(const dpo_eigh_args& args);
Status check_contents(const dpo_eigh_args& args);
Status check(const dpo_eigh_vjp_args& args);
Status check_contents(const dpo_eigh_vjp_args& args);
}  // namespace dpo
#endif
