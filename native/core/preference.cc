#include "native/core/preference.h"

#include "native/core/checks.h"
#include "native/core/preference_checks.h"
#include "native/math/preference_losses.h"

namespace dpo {
namespace {

using math::PreferenceLoss;
using math::RewardTransform;

constexpr std::int32_t kLossKinds = static_cast<std::int32_t>(PreferenceLoss::kto) + 1;
constexpr std::int32_t kTransformKinds = static_cast<std::int32_t>(RewardTransform::alpha_divergence) + 1;

void check_loss(Checks& checks, const dpo_weighted_loss& loss, const dpo_preference_options& options) {
  checks.require(loss.kind >= 0 && loss.kind < kLossKinds, DPO_ERR_RANGE, "loss: unknown kind")
      .finite("loss weight", loss.weight);
  if (!checks.ok()) return;
  const auto kind = static_cast<PreferenceLoss>(loss.kind);
  const bool transformed = options.transform != static_cast<std::int32_t>(RewardTransform::reverse_kl);
  checks.require(
      !transformed || math::allows_transform(kind), DPO_ERR_RANGE,
      "transform: only reverse_kl goes with this loss, because its log-partition term does not cancel; transforms go with "
      "sigmoid, sigmoid_norm, hinge, ipo, exo_pair, robust, discopop and sft");
  const double epsilon = options.label_smoothing;
  checks.require(kind != PreferenceLoss::exo_pair || (epsilon > 0 && epsilon < 0.5), DPO_ERR_RANGE,
                 "labelSmoothing: exo_pair needs a value greater than 0 and less than 0.5");
  checks.require(kind != PreferenceLoss::robust || epsilon < 0.5, DPO_ERR_RANGE,
                 "labelSmoothing: robust needs a value less than 0.5");
}

void check_options(Checks& checks, const dpo_preference_options& options) {
  checks.require(options.loss_count >= 1 && options.loss_count <= DPO_MAX_LOSSES, DPO_ERR_RANGE, "loss: expected 1 to 8 losses");
  checks.require(options.transform >= 0 && options.transform < kTransformKinds, DPO_ERR_RANGE, "transform: unknown kind");
  checks.finite("transformAlpha", options.transform_alpha).positive("beta", options.beta).finite("gamma", options.gamma);
  checks.within("labelSmoothing", options.label_smoothing, 0, 0.5).positive("discopopTau", options.discopop_tau);
  checks.finite("simpoGamma", options.simpo_gamma).finite("cpoAlpha", options.cpo_alpha);
  checks.finite("bcoDelta", options.bco_delta).finite("bcoCount", options.bco_count).finite("ktoKl", options.kto_kl);
  checks.non_negative("ktoDesirableWeight", options.kto_desirable_weight);
  checks.non_negative("ktoUndesirableWeight", options.kto_undesirable_weight);
  for (std::int32_t i = 0; checks.ok() && i < options.loss_count; ++i) check_loss(checks, options.losses[i], options);
}

}  // namespace

bool any_loss(const dpo_preference_options& options, bool (*holds)(std::int32_t kind)) {
  for (std::int32_t i = 0; i < options.loss_count; ++i) {
    if (holds(options.losses[i].kind)) return true;
  }
  return false;
}

void check_preference(Checks& checks, const dpo_preference_args& args) {
  checks.shape("policy", args.policy, {-1}).arithmetic("policy", args.policy);
  checks.require(args.policy.shape[0] % 2 == 0, DPO_ERR_SHAPE, "policy: expected 2B log-probabilities, chosen then rejected");
  check_options(checks, args.options);
  if (!checks.ok()) return;

  const std::int64_t sequences = args.policy.shape[0], pairs = sequences / 2;
  const std::int32_t dtype = args.policy.dtype;
  checks.optional_shape("reference", args.reference, {sequences}).arithmetic("reference", args.reference);
  checks.optional_shape("logKernel", args.log_kernel, {sequences}).arithmetic("logKernel", args.log_kernel);
  checks.optional_shape("tokenCounts", args.token_counts, {sequences}).dtype("tokenCounts", args.token_counts, DPO_F64);
  checks.optional_shape("weights", args.pair_weights, {pairs}).dtype("weights", args.pair_weights, DPO_F64);
  const bool wants_reference =
      any_loss(args.options, [](std::int32_t kind) { return math::needs_reference(static_cast<PreferenceLoss>(kind)); });
  const bool wants_counts =
      any_loss(args.options, [](std::int32_t kind) { return math::needs_token_counts(static_cast<PreferenceLoss>(kind)); });
  checks.require(present(args.reference) || !wants_reference, DPO_ERR_SHAPE, "reference: is missing, and this loss needs it");
  checks.require(present(args.token_counts) || !wants_counts, DPO_ERR_SHAPE, "tokenCounts: is missing, and this loss needs it");
  const bool sorts = any_loss(args.options, [](std::int32_t kind) {
    return kind == static_cast<std::int32_t>(PreferenceLoss::aot) ||
           kind == static_cast<std::int32_t>(PreferenceLoss::aot_unpaired);
  });
  checks.require(!sorts || !present(args.pair_weights), DPO_ERR_RANGE,
                 "weights: do not go with aot, which compares answers of different pairs");
  checks.require(present(args.log_kernel) || args.options.gamma == 0, DPO_ERR_SHAPE, "logKernel: is missing, and gamma is not 0");

  checks.shape("out.losses", args.losses, {pairs}).dtype("out.losses", args.losses, dtype);
  checks.shape("out.rewards", args.rewards, {sequences}).dtype("out.rewards", args.rewards, dtype);
  checks.shape("out.policy", args.grad_policy, {sequences}).dtype("out.policy", args.grad_policy, dtype);
  checks.require(present(args.log_kernel) == present(args.grad_log_kernel), DPO_ERR_SHAPE, "out.logKernel: goes with logKernel");
  checks.optional_shape("out.logKernel", args.grad_log_kernel, {sequences}).dtype("out.logKernel", args.grad_log_kernel, dtype);
  checks.shape("out.metrics", args.metrics, {DPO_METRIC_COUNT}).dtype("out.metrics", args.metrics, DPO_F64);
}

void check_preference_contents(Checks& checks, const dpo_preference_args& args) {
  checks.finite_contents("reference", args.reference).finite_contents("logKernel", args.log_kernel);
  checks.finite_contents("weights", args.pair_weights);
}

Status check(const dpo_preference_args& args) {
  Checks checks;
  check_preference(checks, args);
  return checks.status();
}

Status check_contents(const dpo_preference_args& args) {
  Checks checks;
  checks.finite_contents("policy", args.policy).finite_contents("tokenCounts", args.token_counts);
  check_preference_contents(checks, args);
  return checks.status();
}

}  // namespace dpo
