/* random_features: frequencies of a kernel's spectral density, and φ(x) = [cos(W·x), sin(W·x)]/√R of them (SPEC 3). */
#pragma once

#include "native/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dpo_spectral_density { DPO_DENSITY_NORMAL, DPO_DENSITY_CAUCHY, DPO_DENSITY_STUDENT } dpo_spectral_density;

typedef struct dpo_random_frequencies_args {
  int32_t density;
  int32_t freedom;    /* of DPO_DENSITY_STUDENT: its degrees */
  int32_t orthogonal; /* of DPO_DENSITY_NORMAL */
  double sigma;
  int64_t seed;
  dpo_tensor frequencies; /* [R, D] f64 */
} dpo_random_frequencies_args;

typedef struct dpo_random_features_args {
  dpo_tensor x;           /* [N, D] */
  dpo_tensor frequencies; /* [R, D] f64 */
  int32_t normalize;
  dpo_tensor features; /* [N, 2R]: f64 for f64 rows, else f32 */
} dpo_random_features_args;

typedef struct dpo_random_features_vjp_args {
  dpo_tensor x;           /* [N, D] */
  dpo_tensor frequencies; /* [R, D] f64 */
  dpo_tensor upstream;    /* [N, 2R] */
  int32_t normalize;
  dpo_tensor grad_x;           /* [N, D] */
  dpo_tensor grad_frequencies; /* [R, D] f64 */
} dpo_random_features_vjp_args;

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
namespace dpo {
struct Status;
Status check(const dpo_random_frequencies_args& args);  // shapes, dtypes, options
Status check_contents(const dpo_random_frequencies_args& args);
Status check(const dpo_random_features_args& args);
Status check_contents(const dpo_random_features_args& args);  // what the arrays hold
Status check(const dpo_random_features_vjp_args& args);
Status check_contents(const dpo_random_features_vjp_args& args);
}  // namespace dpo
#endif
