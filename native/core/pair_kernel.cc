#include "native/core/pair_kernel.h"

#include "native/core/kernel_checks.h"

namespace dpo {

Status check(const dpo_pair_kernel_args& args) {
  Checks checks;
  checks.shape("u", args.u, {-1, -1}).floating("u", args.u);
  checks.require(args.side_count >= 1 && args.side_count <= DPO_MAX_SIDES, DPO_ERR_RANGE, "v: expected one or two sides");
  for (std::int32_t side = 0; checks.ok() && side < args.side_count; ++side) {
    checks.shape("v", args.v[side], {args.u.shape[0], args.u.shape[1]}).dtype("v", args.v[side], args.u.dtype);
  }
  if (checks.ok()) check_kernel(checks, args.kernel, args.u.shape[1]);
  if (!checks.ok()) return checks.status();
  const dpo_kernel& kernel = args.kernel;
  checks.optional_shape("out.logK", args.log_k, {args.side_count, args.u.shape[0]});
  checks.dtype("out.logK", args.log_k, result_dtype(args.u.dtype));
  checks.optional_shape("out.shares", args.shares, {kernel.group_count + kernel.member_count})
      .dtype("out.shares", args.shares, DPO_F64);
  checks.optional_shape("out.entropies", args.entropies, {kernel.group_count}).dtype("out.entropies", args.entropies, DPO_F64);
  checks.optional_shape("out.responsibilities", args.responsibilities, {args.side_count, args.u.shape[0], kernel.member_count});
  checks.dtype("out.responsibilities", args.responsibilities, result_dtype(args.u.dtype));
  return checks.status();
}

Status check_contents(const dpo_pair_kernel_args& args) {
  Checks checks;
  check_kernel_contents(checks, args.kernel);
  return checks.status();
}

Status check(const dpo_pair_kernel_vjp_args& args) {
  if (Status status = check(args.forward); !status.ok()) return status;
  const dpo_tensor& u = args.forward.u;
  Checks checks;
  checks.shape("upstream", args.upstream, {args.forward.side_count, u.shape[0]}).arithmetic("upstream", args.upstream);
  checks.finite("entropyUpstream", args.entropy_upstream);
  checks.shape("out.u", args.grad_u, {u.shape[0], u.shape[1]}).dtype("out.u", args.grad_u, u.dtype);
  for (std::int32_t side = 0; side < args.forward.side_count; ++side) {
    checks.shape("out.v", args.grad_v[side], {u.shape[0], u.shape[1]}).dtype("out.v", args.grad_v[side], u.dtype);
  }
  if (checks.ok()) check_kernel_gradients(checks, args.forward.kernel, args.grad_kernel);
  return checks.status();
}

Status check_contents(const dpo_pair_kernel_vjp_args& args) {
  Checks checks;
  check_kernel_contents(checks, args.forward.kernel);
  checks.finite_contents("upstream", args.upstream);
  return checks.status();
}

}  // namespace dpo
