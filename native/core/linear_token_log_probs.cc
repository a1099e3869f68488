#include "native/core/linear_token_log_probs.h"

#include "native/core/linear_head_checks.h"

namespace dpo {
namespace {

void check_result(Checks& checks, const char* name, const dpo_tensor& result, const dpo_linear_head& head) {
  checks.optional_shape(name, result, {head.hidden.shape[0]}).dtype(name, result, result_dtype(head.hidden.dtype));
}

}  // namespace

Status check(const dpo_linear_token_log_probs_args& args) {
  Checks checks;
  check_linear_head(checks, args.head, args.targets, args.options, args.memory_limit);
  checks.given("logProbs", args.log_probs);
  check_result(checks, "logProbs", args.log_probs, args.head);
  checks.shape("logSumExp", args.log_sum_exp, {args.head.hidden.shape[0]}).dtype("logSumExp", args.log_sum_exp, DPO_F64);
  check_result(checks, "entropy", args.entropy, args.head);
  check_result(checks, "meanLogit", args.mean_logit, args.head);
  return checks.status();
}

Status check_contents(const dpo_linear_token_log_probs_args& args) {
  return Checks().target_contents(args.targets, args.head.weight.shape[0]).status();
}

Status check(const dpo_linear_token_log_probs_vjp_args& args) {
  Checks checks;
  check_linear_head(checks, args.head, args.targets, args.options, args.memory_limit);
  const std::int64_t rows = args.head.hidden.shape[0];
  checks.shape("logSumExp", args.log_sum_exp, {rows}).arithmetic("logSumExp", args.log_sum_exp);
  checks.shape("upstream", args.upstream, {rows}).arithmetic("upstream", args.upstream);
  check_linear_head_gradients(checks, args.head, args.grads);
  return checks.status();
}

Status check_contents(const dpo_linear_token_log_probs_vjp_args& args) {
  Checks checks;
  checks.target_contents(args.targets, args.head.weight.shape[0]);
  checks.finite_contents("logSumExp", args.log_sum_exp).finite_contents("upstream", args.upstream);
  return checks.status();
}

}  // namespace dpo
