#include "native/core/token_log_probs.h"

#include "native/core/checks.h"

namespace dpo {
namespace {

void check_result(Checks& checks, const char* name, const dpo_tensor& result, const dpo_tensor& logits) {
  checks.optional_shape(name, result, {logits.shape[0]}).dtype(name, result, result_dtype(logits.dtype));
}

}  // namespace

Status check(const dpo_token_log_probs_args& args) {
  Checks checks;
  checks.shape("logits", args.logits, {-1, -1}).floating("logits", args.logits);
  checks.shape("targets", args.targets, {args.logits.shape[0]}).dtype("targets", args.targets, DPO_I32);
  checks.positive("temperature", args.options.temperature).non_negative("softcap", args.options.softcap);
  checks.given("logProbs", args.log_probs);
  check_result(checks, "logProbs", args.log_probs, args.logits);
  checks.shape("logSumExp", args.log_sum_exp, {args.logits.shape[0]}).dtype("logSumExp", args.log_sum_exp, DPO_F64);
  check_result(checks, "entropy", args.entropy, args.logits);
  check_result(checks, "meanLogit", args.mean_logit, args.logits);
  return checks.status();
}

Status check_contents(const dpo_token_log_probs_args& args) {
  return Checks().target_contents(args.targets, args.logits.shape[1]).status();
}

Status check(const dpo_token_log_probs_vjp_args& args) {
  Checks checks;
  checks.shape("logits", args.logits, {-1, -1}).floating("logits", args.logits);
  checks.shape("targets", args.targets, {args.logits.shape[0]}).dtype("targets", args.targets, DPO_I32);
  checks.positive("temperature", args.options.temperature).non_negative("softcap", args.options.softcap);
  const std::int64_t rows = args.logits.shape[0];
  checks.shape("logSumExp", args.log_sum_exp, {rows}).arithmetic("logSumExp", args.log_sum_exp);
  checks.shape("upstream", args.upstream, {rows}).arithmetic("upstream", args.upstream);
  checks.shape("out.logits", args.grad_logits, {args.logits.shape[0], args.logits.shape[1]});
  checks.dtype("out.logits", args.grad_logits, args.logits.dtype);
  return checks.status();
}

Status check_contents(const dpo_token_log_probs_vjp_args& args) {
  Checks checks;
  checks.target_contents(args.targets, args.logits.shape[1]);
  checks.finite_contents("logSumExp", args.log_sum_exp).finite_contents("upstream", args.upstream);
  return checks.status();
}

}  // namespace dpo
