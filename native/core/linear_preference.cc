#include "native/core/linear_preference.h"

#include "native/core/linear_head_checks.h"
#include "native/core/preference_checks.h"
#include "native/math/preference_losses.h"

namespace dpo {

Status check(const dpo_linear_preference_args& args) {
  Checks checks;
  check_linear_head(checks, args.head, args.targets, args.logit_options, args.memory_limit);
  checks.shape("offsets", args.offsets, {-1}).dtype("offsets", args.offsets, DPO_I32);
  checks.require(args.offsets.shape[0] == args.preference.policy.shape[0] + 1, DPO_ERR_SHAPE,
                 "offsets: expected 2B + 1 elements for B >= 1 pairs");
  checks.non_negative("ldAlpha", args.sequence_options.ld_alpha);
  checks.shape("meanLogit", args.mean_logit, {args.head.hidden.shape[0]});
  checks.dtype("meanLogit", args.mean_logit, result_dtype(args.head.hidden.dtype));
  check_preference(checks, args.preference);
  checks.dtype("policy", args.preference.policy, result_dtype(args.head.hidden.dtype));
  checks.given("tokenCounts", args.preference.token_counts);
  const bool coupled = any_loss(args.preference.options,
                                [](std::int32_t kind) { return math::couples_batch(static_cast<math::PreferenceLoss>(kind)); });
  checks.require(!coupled, DPO_ERR_RANGE, "loss: the pairs of this loss depend on each other, so it cannot go pair by pair");
  checks.require(args.preference.options.bco_count < 0, DPO_ERR_RANGE, "bcoCount: goes with losses of whole batches");
  check_linear_head_gradients(checks, args.head, args.grads);
  return checks.status();
}

Status check_contents(const dpo_linear_preference_args& args) {
  Checks checks;
  checks.target_contents(args.targets, args.head.weight.shape[0]).offset_contents(args.offsets, args.targets.shape[0]);
  check_preference_contents(checks, args.preference);
  return checks.status();
}

}  // namespace dpo
