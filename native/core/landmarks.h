/* landmarks: which rows stand for all in a Nyström approximation (SPEC 3). The same for the same seed on every backend. */
#pragma once

#include "native/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dpo_landmark_method { DPO_LANDMARKS_UNIFORM, DPO_LANDMARKS_KMEANS, DPO_LANDMARKS_LEVERAGE } dpo_landmark_method;

typedef struct dpo_landmarks_args {
  dpo_tensor x;      /* [N, D] f64 */
  dpo_tensor scores; /* [N] f64, not negative: of DPO_LANDMARKS_LEVERAGE */
  int32_t method;
  int64_t seed;
  dpo_tensor indices; /* [M] i32, in the order of their choice */
} dpo_landmarks_args;

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
namespace dpo {
struct Status;
Status check(const dpo_landmarks_args& args);           // shapes, dtypes, options
Status check_contents(const dpo_landmarks_args& args);  // what the small arrays hold
}  // namespace dpo
#endif
