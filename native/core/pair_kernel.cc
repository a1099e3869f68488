#include "native/core/pair_kernel.h"

#include "native/core/checks.h"
#include "native/math/log_kernels.h"

namespace dpo {
namespace {

void check_parameters(Checks& checks, const dpo_pair_kernel_args& args) {
  checks.finite_contents("parameters", args.parameters);
  if (checks.ok()) checks.positive("sigma", static_cast<const double*>(args.parameters.data)[0]);
}

}  // namespace

Status check(const dpo_pair_kernel_args& args) {
  Checks checks;
  checks.shape("u", args.u, {-1, -1}).floating("u", args.u);
  checks.require(args.side_count >= 1 && args.side_count <= DPO_MAX_SIDES, DPO_ERR_RANGE, "v: expected one or two sides");
  for (std::int32_t side = 0; checks.ok() && side < args.side_count; ++side) {
    checks.shape("v", args.v[side], {args.u.shape[0], args.u.shape[1]}).dtype("v", args.v[side], args.u.dtype);
  }
  checks.require(args.kernel == static_cast<std::int32_t>(math::LogKernel::rbf), DPO_ERR_RANGE, "kernel: unknown kind");
  checks.shape("parameters", args.parameters, {1}).dtype("parameters", args.parameters, DPO_F64);
  checks.optional_shape("out.logK", args.log_k, {args.side_count, args.u.shape[0]});
  checks.dtype("out.logK", args.log_k, result_dtype(args.u.dtype));
  return checks.status();
}

Status check_contents(const dpo_pair_kernel_args& args) {
  Checks checks;
  check_parameters(checks, args);
  return checks.status();
}

Status check(const dpo_pair_kernel_vjp_args& args) {
  if (Status status = check(args.forward); !status.ok()) return status;
  const dpo_tensor& u = args.forward.u;
  Checks checks;
  checks.shape("upstream", args.upstream, {args.forward.side_count, u.shape[0]}).arithmetic("upstream", args.upstream);
  checks.shape("out.u", args.grad_u, {u.shape[0], u.shape[1]}).dtype("out.u", args.grad_u, u.dtype);
  for (std::int32_t side = 0; side < args.forward.side_count; ++side) {
    checks.shape("out.v", args.grad_v[side], {u.shape[0], u.shape[1]}).dtype("out.v", args.grad_v[side], u.dtype);
  }
  checks.shape("out.parameters", args.grad_parameters, {args.forward.parameters.shape[0]});
  checks.dtype("out.parameters", args.grad_parameters, DPO_F64);
  return checks.status();
}

Status check_contents(const dpo_pair_kernel_vjp_args& args) {
  Checks checks;
  check_parameters(checks, args.forward);
  checks.finite_contents("upstream", args.upstream);
  return checks.status();
}

}  // namespace dpo
