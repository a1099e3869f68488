/* preference: per-pair preference losses of sequence log-probabilities, their gradients and TRL's metrics (SPEC 2).
 * All arrays of 2B hold the chosen sequences first, then the rejected. The kinds of loss and of reward transform are
 * numbered by native/math (PreferenceLoss, RewardTransform). */
#pragma once

#include "native/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DPO_MAX_LOSSES 8

typedef struct dpo_weighted_loss {
  int32_t kind;
  double weight;
} dpo_weighted_loss;

typedef struct dpo_preference_options {
  int32_t loss_count;
  dpo_weighted_loss losses[DPO_MAX_LOSSES];
  int32_t transform;
  double transform_alpha;
  double beta;
  double gamma;
  double label_smoothing;
  double discopop_tau;
  double simpo_gamma;
  double cpo_alpha;
  double bco_delta;
  double bco_count; /* rewards already averaged in bco_delta; negative: bco_delta is a constant */
  double kto_kl;
  double kto_desirable_weight;
  double kto_undesirable_weight;
} dpo_preference_options;

/* Places in `metrics`. */
enum {
  DPO_METRIC_LOSS,
  DPO_METRIC_REWARDS_CHOSEN,
  DPO_METRIC_REWARDS_REJECTED,
  DPO_METRIC_REWARDS_MARGINS,
  DPO_METRIC_REWARDS_ACCURACIES,
  DPO_METRIC_LOGPS_CHOSEN,
  DPO_METRIC_LOGPS_REJECTED,
  DPO_METRIC_KERNEL_LOG_RATIO,
  DPO_METRIC_KERNEL_ACCURACY,
  DPO_METRIC_BCO_DELTA,
  DPO_METRIC_BCO_COUNT,
  DPO_METRIC_COUNT
};

typedef struct dpo_preference_args {
  dpo_tensor policy;       /* [2B] f32 f64 */
  dpo_tensor reference;    /* [2B], optional when no loss needs it */
  dpo_tensor log_kernel;   /* [2B], optional: log k(e_x, e_y) */
  dpo_tensor token_counts; /* [2B] f64, optional when no loss needs it */
  dpo_tensor pair_weights; /* [B] f64, optional */
  dpo_preference_options options;
  dpo_tensor losses;          /* [B], dtype of policy */
  dpo_tensor rewards;         /* [2B] */
  dpo_tensor grad_policy;     /* [2B]: gradient of the mean over pairs */
  dpo_tensor grad_log_kernel; /* [2B]; present when log_kernel is */
  dpo_tensor metrics;         /* [DPO_METRIC_COUNT] f64 */
} dpo_preference_args;

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
namespace dpo {
struct Status;
Status check(const dpo_preference_args& args);           // shapes, dtypes, options
Status check_contents(const dpo_preference_args& args);  // what the small arrays hold
}  // namespace dpo
#endif
