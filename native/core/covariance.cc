#include "native/core/covariance.h"

#include "native/core/checks.h"

namespace dpo {

Status check(const dpo_covariance_args& args) {
  Checks checks;
  checks.shape("x", args.x, {-1, -1}).floating("x", args.x);
  const std::int64_t depth = checks.ok() ? args.x.shape[1] : 0;
  checks.require(args.method >= DPO_COVARIANCE_SAMPLE && args.method <= DPO_COVARIANCE_PRIVATE, DPO_ERR_RANGE, "method: unknown");
  if (args.method == DPO_COVARIANCE_PRIVATE) {
    checks.positive("clip", args.clip).positive("count", args.count).positive("noiseScale", args.noise_scale);
    checks.require(args.seed >= 0 && args.stream >= 0, DPO_ERR_RANGE, "seed: must be a whole number of at least 0");
  }
  checks.shape("out.covariance", args.covariance, {depth, depth}).dtype("out.covariance", args.covariance, DPO_F64);
  checks.shape("mean", args.mean, {depth}).dtype("mean", args.mean, DPO_F64);
  checks.shape("shrinkage", args.shrinkage, {1}).dtype("shrinkage", args.shrinkage, DPO_F64);
  return checks.status();
}

Status check_contents(const dpo_covariance_args& args) {
  Checks checks;
  checks.finite_contents("x", args.x);
  return checks.status();
}

Status check(const dpo_gaussian_noise_scale_args& args) {
  Checks checks;
  checks.positive("epsilon", args.epsilon).positive("sensitivity", args.sensitivity);
  checks.require(args.delta > 0 && args.delta < 1, DPO_ERR_RANGE, "delta: must be above 0 and below 1");
  checks.shape("noiseScale", args.noise_scale, {1}).dtype("noiseScale", args.noise_scale, DPO_F64);
  return checks.status();
}

Status check_contents(const dpo_gaussian_noise_scale_args&) { return Checks().status(); }

}  // namespace dpo
