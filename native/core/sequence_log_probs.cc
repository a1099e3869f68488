#include "native/core/sequence_log_probs.h"

#include "native/core/checks.h"

namespace dpo {
namespace {

void check_layout(Checks& checks, const dpo_tensor& targets, const dpo_tensor& offsets, const dpo_sequence_options& options) {
  checks.shape("targets", targets, {-1}).dtype("targets", targets, DPO_I32);
  checks.shape("offsets", offsets, {-1}).dtype("offsets", offsets, DPO_I32);
  checks.require(offsets.shape[0] >= 3 && offsets.shape[0] % 2 == 1, DPO_ERR_SHAPE,
                 "offsets: expected 2B + 1 elements for B >= 1 pairs");
  checks.non_negative("ldAlpha", options.ld_alpha);
  checks.require(options.reduction == DPO_SEQUENCE_SUM || options.ld_alpha == 1, DPO_ERR_RANGE,
                 "ldAlpha: goes with the sum over tokens only");
}

}  // namespace

Status check(const dpo_sequence_log_probs_args& args) {
  Checks checks;
  check_layout(checks, args.targets, args.offsets, args.options);
  const std::int64_t sequences = args.offsets.shape[0] - 1;
  checks.shape("logProbs", args.log_probs, {args.targets.shape[0]}).arithmetic("logProbs", args.log_probs);
  checks.shape("out.logProbs", args.sequence_log_probs, {sequences});
  checks.dtype("out.logProbs", args.sequence_log_probs, args.log_probs.dtype);
  checks.shape("out.tokenCounts", args.token_counts, {sequences}).dtype("out.tokenCounts", args.token_counts, DPO_F64);
  return checks.status();
}

Status check_contents(const dpo_sequence_log_probs_args& args) {
  Checks checks;
  checks.offset_contents(args.offsets, args.targets.shape[0]).finite_contents("logProbs", args.log_probs);
  return checks.status();
}

Status check(const dpo_sequence_log_probs_vjp_args& args) {
  Checks checks;
  check_layout(checks, args.targets, args.offsets, args.options);
  checks.shape("upstream", args.upstream, {args.offsets.shape[0] - 1}).arithmetic("upstream", args.upstream);
  checks.shape("out.logProbs", args.grad_log_probs, {args.targets.shape[0]});
  checks.dtype("out.logProbs", args.grad_log_probs, args.upstream.dtype);
  return checks.status();
}

Status check_contents(const dpo_sequence_log_probs_vjp_args& args) {
  Checks checks;
  checks.offset_contents(args.offsets, args.targets.shape[0]).finite_contents("upstream", args.upstream);
  return checks.status();
}

}  // namespace dpo
