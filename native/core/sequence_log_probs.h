/* sequence_log_probs: token log-probabilities reduced over packed sequences (SPEC 1).
 * Sequence s holds tokens offsets[s] .. offsets[s+1]; chosen sequences come first, then rejected, so s and s + B are a pair. */
#pragma once

#include "native/core/token_log_probs.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dpo_sequence_reduction { DPO_SEQUENCE_SUM = 0, DPO_SEQUENCE_MEAN = 1 } dpo_sequence_reduction;

typedef struct dpo_sequence_options {
  int32_t reduction;
  double ld_alpha; /* LD-DPO: weight of the tokens past the pair's shared length; 1 = plain */
} dpo_sequence_options;

typedef struct dpo_sequence_log_probs_args {
  dpo_tensor log_probs; /* [N] f32 f64 */
  dpo_tensor targets;   /* [N] i32: ignored tokens are not counted */
  dpo_tensor offsets;   /* [2B + 1] i32 */
  dpo_sequence_options options;
  dpo_tensor sequence_log_probs; /* [2B], dtype of log_probs */
  dpo_tensor token_counts;       /* [2B] f64 */
} dpo_sequence_log_probs_args;

typedef struct dpo_sequence_log_probs_vjp_args {
  dpo_tensor targets;
  dpo_tensor offsets;
  dpo_tensor upstream; /* [2B] f32 f64 */
  dpo_sequence_options options;
  dpo_tensor grad_log_probs; /* [N], dtype of upstream */
} dpo_sequence_log_probs_vjp_args;

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
namespace dpo {
struct Status;
Status check(const dpo_sequence_log_probs_args& args);               // shapes, dtypes, options
Status check_contents(const dpo_sequence_log_probs_args& args);      // what the small arrays hold
Status check(const dpo_sequence_log_probs_vjp_args& args);           // shapes, dtypes, options
Status check_contents(const dpo_sequence_log_probs_vjp_args& args);  // what the small arrays hold
}  // namespace dpo
#endif
