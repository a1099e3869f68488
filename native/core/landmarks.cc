#include "native/core/landmarks.h"

#include <algorithm>

#include "native/core/checks.h"

namespace dpo {

Status check(const dpo_landmarks_args& args) {
  Checks checks;
  checks.shape("x", args.x, {-1, -1}).dtype("x", args.x, DPO_F64);
  checks.require(args.method >= DPO_LANDMARKS_UNIFORM && args.method <= DPO_LANDMARKS_LEVERAGE, DPO_ERR_RANGE, "method: unknown");
  checks.require(args.seed >= 0, DPO_ERR_RANGE, "seed: must be a whole number of at least 0");
  if (args.method == DPO_LANDMARKS_LEVERAGE) {
    checks.shape("scores", args.scores, {args.x.shape[0]}).dtype("scores", args.scores, DPO_F64);
  }
  checks.shape("landmarks", args.indices, {-1}).dtype("landmarks", args.indices, DPO_I32);
  checks.require(args.indices.shape[0] <= args.x.shape[0], DPO_ERR_RANGE, "landmarks: there are fewer rows than that");
  return checks.status();
}

Status check_contents(const dpo_landmarks_args& args) {
  Checks checks;
  checks.finite_contents("x", args.x);
  if (args.method == DPO_LANDMARKS_LEVERAGE) {
    checks.finite_contents("scores", args.scores);
    const auto* scores = static_cast<const double*>(args.scores.data);
    if (checks.ok()) {
      checks.require(std::all_of(scores, scores + args.x.shape[0], [](double score) { return score >= 0; }), DPO_ERR_RANGE,
                     "scores: must not be negative");
    }
  }
  return checks.status();
}

}  // namespace dpo
