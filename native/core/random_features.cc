#include "native/core/random_features.h"

#include "native/core/checks.h"

namespace dpo {
namespace {

void check_rows(Checks& checks, const dpo_tensor& x, const dpo_tensor& frequencies) {
  checks.shape("frequencies", frequencies, {-1, -1}).dtype("frequencies", frequencies, DPO_F64);
  if (checks.ok()) checks.shape("x", x, {-1, frequencies.shape[1]}).floating("x", x);
}

}  // namespace

Status check(const dpo_random_frequencies_args& args) {
  Checks checks;
  checks.require(args.density >= DPO_DENSITY_NORMAL && args.density <= DPO_DENSITY_STUDENT, DPO_ERR_RANGE, "density: unknown");
  checks.require(args.density != DPO_DENSITY_STUDENT || args.freedom > 0, DPO_ERR_RANGE, "freedom: must be above 0");
  checks.positive("sigma", args.sigma);
  checks.require(args.seed >= 0, DPO_ERR_RANGE, "seed: must be a whole number of at least 0");
  checks.shape("frequencies", args.frequencies, {-1, -1}).dtype("frequencies", args.frequencies, DPO_F64);
  return checks.status();
}

Status check_contents(const dpo_random_frequencies_args&) { return Checks().status(); }

Status check(const dpo_random_features_args& args) {
  Checks checks;
  check_rows(checks, args.x, args.frequencies);
  if (!checks.ok()) return checks.status();
  checks.shape("out.features", args.features, {args.x.shape[0], 2 * args.frequencies.shape[0]});
  checks.dtype("out.features", args.features, args.x.dtype == DPO_F64 ? DPO_F64 : DPO_F32);
  return checks.status();
}

Status check_contents(const dpo_random_features_args& args) {
  Checks checks;
  checks.finite_contents("x", args.x).finite_contents("frequencies", args.frequencies);
  return checks.status();
}

Status check(const dpo_random_features_vjp_args& args) {
  Checks checks;
  check_rows(checks, args.x, args.frequencies);
  if (!checks.ok()) return checks.status();
  checks.shape("upstream", args.upstream, {args.x.shape[0], 2 * args.frequencies.shape[0]}).arithmetic("upstream", args.upstream);
  checks.shape("out.x", args.grad_x, {args.x.shape[0], args.x.shape[1]}).dtype("out.x", args.grad_x, args.x.dtype);
  checks.shape("out.frequencies", args.grad_frequencies, {args.frequencies.shape[0], args.frequencies.shape[1]});
  checks.dtype("out.frequencies", args.grad_frequencies, DPO_F64);
  return checks.status();
}

Status check_contents(const dpo_random_features_vjp_args& args) {
  Checks checks;
  checks.finite_contents("x", args.x).finite_contents("frequencies", args.frequencies).finite_contents("upstream", args.upstream);
  return checks.status();
}

}  // namespace dpo
