/* A kernel of pairs of embeddings, alone or a mixture of several (SPEC 3), as the operations on kernels are given it. */
#pragma once

#include "native/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DPO_MAX_MEMBERS 16
#define DPO_MAX_GROUPS 16

/* A formula with its numbers: KernelFormula of native/math/log_kernels.h. */
typedef struct dpo_kernel_formula {
  int32_t kind; /* LogKernel */
  int32_t unit_diagonal;
  double floor;
  double nu;
  dpo_tensor parameters; /* [P] f64; absent when the kind has none */
} dpo_kernel_formula;

/* One kernel with the map from embeddings to what its formula sees. */
typedef struct dpo_kernel_member {
  dpo_kernel_formula formula;
  dpo_tensor map;          /* f64. mahalanobis: the factor A [D, R] of Σ⁻¹ = A·Aᵀ, or the diagonal [D] of one;
                            * spectral: [R, M], φ(u) = map·base(u, landmarks); random_fourier: frequencies [R, D] */
  dpo_tensor landmarks;    /* [M, D] f64: spectral */
  dpo_kernel_formula base; /* spectral: of a squared distance or an inner product, and no map of its own */
} dpo_kernel_member;

/* Nodes of the tree are the groups, parents first, the root at 0, then the members: MixtureTree of native/math/mixture.h. */
typedef struct dpo_kernel {
  int32_t normalize; /* L2-normalise the rows first, gradient included; landmarks are normalised already */
  int32_t member_count;
  dpo_kernel_member members[DPO_MAX_MEMBERS];
  int32_t group_count; /* 0: a single kernel and no mixture */
  dpo_tensor parents;  /* [groups + members] i32 */
  dpo_tensor logits;   /* [groups + members] f64 */
} dpo_kernel;

/* Results of a pull-back, f64, each present where the kernel has what it is the gradient of. */
typedef struct dpo_kernel_gradients {
  dpo_tensor parameters[DPO_MAX_MEMBERS]; /* as the members' */
  dpo_tensor factors[DPO_MAX_MEMBERS];    /* as the map of mahalanobis */
  dpo_tensor logits;
} dpo_kernel_gradients;

#ifdef __cplusplus
}
#endif
