#include "native/core/linear_divergence.h"

#include "native/core/divergence_checks.h"
#include "native/core/linear_head_checks.h"
#include "native/math/divergences.h"

namespace dpo {
namespace {

DivergenceRows rows_of(const dpo_linear_divergence_args& args) {
  return {args.targets, args.upstream, args.target_upstream, args.values};
}

void check_heads(Checks& checks, const dpo_linear_head& policy, const dpo_linear_head& reference) {
  check_linear_head(checks, policy, {"policy.hidden", "policy.weight", "policy.bias"});
  check_linear_head(checks, reference, {"reference.hidden", "reference.weight", "reference.bias"});
  checks.dtype("reference.hidden", reference.hidden, policy.hidden.dtype);
  checks.shape("reference.hidden", reference.hidden, {policy.hidden.shape[0], -1});
  checks.shape("reference.weight", reference.weight, {policy.weight.shape[0], -1});
}

}  // namespace

Status check(const dpo_linear_divergence_args& args) {
  Checks checks;
  check_heads(checks, args.policy, args.reference);
  checks.positive("temperature", args.options.temperature).non_negative("softcap", args.options.softcap);
  checks.positive("memoryLimit", static_cast<double>(args.memory_limit));
  const bool has_gradient = present(args.grads.hidden);
  check_divergence_rows(checks, rows_of(args), args.policy.hidden.shape[0], args.policy.hidden.dtype, has_gradient);
  if (checks.ok()) check_divergence_kind(checks, args.divergence, args.policy.weight.shape[0]);
  checks.require(
      args.divergence.kind != static_cast<std::int32_t>(math::Divergence::f), DPO_ERR_RANGE,
      "kind: a generator of the caller's own needs the ratios of all logits, which are never held here; use divergence");
  if (has_gradient) check_linear_head_gradients(checks, args.policy, args.grads);
  return checks.status();
}

Status check_contents(const dpo_linear_divergence_args& args) {
  Checks checks;
  check_divergence_contents(checks, args.divergence, rows_of(args), args.policy.weight.shape[0]);
  return checks.status();
}

}  // namespace dpo
