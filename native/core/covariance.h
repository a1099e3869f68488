/* covariance: of the columns of rows, as the data say, shrunk, or private (SPEC 3). */
#pragma once

#include "native/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dpo_covariance_method {
  DPO_COVARIANCE_SAMPLE,
  DPO_COVARIANCE_LEDOIT_WOLF,
  DPO_COVARIANCE_OAS,
  DPO_COVARIANCE_PRIVATE
} dpo_covariance_method;

typedef struct dpo_covariance_args {
  dpo_tensor x; /* [N, D] */
  int32_t method;
  int32_t assume_centered;
  double clip;        /* private: length that longer rows are cut to */
  double count;       /* private: what the sum of squares is divided by */
  double noise_scale; /* private: standard deviation of the noise on the diagonal of the sum */
  int64_t seed;       /* private */
  int64_t stream;
  dpo_tensor covariance; /* [D, D] f64 */
  dpo_tensor mean;       /* [D] f64; zeros when rows are taken as centred */
  dpo_tensor shrinkage;  /* [1] f64 */
} dpo_covariance_args;

typedef struct dpo_gaussian_noise_scale_args {
  double epsilon, delta, sensitivity;
  dpo_tensor noise_scale; /* [1] f64 */
} dpo_gaussian_noise_scale_args;

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
namespace dpo {
struct Status;
Status check(const dpo_covariance_args& args);           // shapes, dtypes, options
Status check_contents(const dpo_covariance_args& args);  // what the arrays hold
Status check(const dpo_gaussian_noise_scale_args& args);
Status check_contents(const dpo_gaussian_noise_scale_args& args);
}  // namespace dpo
#endif
