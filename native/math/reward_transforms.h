// f-DPO score transforms φ of the log-ratio ρ = ln π − ln π_ref. Wang et al. (2023), arXiv 2309.16240:
// φ(ρ) = f'(e^ρ) for the f of each divergence, without the constant, which cancels in φ(ρ⁺) − φ(ρ⁻). The divergences of
// divergences.h have the same f: their w is p·f'(p/q), up to a multiple of p.
#pragma once

#include <cmath>
#include <cstdint>

#include "native/math/elementary.h"
#include "native/math/host_device.h"

namespace dpo::math {

enum class RewardTransform : std::int32_t { reverse_kl, forward_kl, js_divergence, alpha_divergence };

/// Exponents are clamped here, as in TRL; e^80 is still a float.
inline constexpr int max_transform_exponent = 80;

/// forward_kl: −e^−ρ.
template <class T>
DPO_HD ValueAndSlope<T> forward_kl_transform(T log_ratio) {
  const ValueAndSlope<T> e = clamped_exp(-log_ratio, T(max_transform_exponent));
  return {-e.value, e.slope};
}

/// alpha_divergence: e^((α−1)ρ)/(α−1). Tends to reverse_kl (plus a constant) as α → 1, and is replaced by it next to 1.
template <class T>
DPO_HD ValueAndSlope<T> alpha_divergence_transform(T log_ratio, T alpha) {
  const T c = alpha - 1;
  if (std::fabs(c) < T(1e-6)) return {log_ratio, T(1)};
  // The division by a small α − 1 must not overflow either: e^87 < max float. Only |α−1| < 1e-3 lowers the limit.
  const T finite_limit = 87 + std::log(std::fabs(c));
  const T limit = finite_limit < max_transform_exponent ? finite_limit : T(max_transform_exponent);
  const ValueAndSlope<T> e = clamped_exp(c * log_ratio, limit);
  return {e.value / c, e.slope};
}

/// φ(ρ) and φ'(ρ). `alpha` matters to alpha_divergence only.
template <class T>
DPO_HD ValueAndSlope<T> reward_transform(RewardTransform transform, T log_ratio, T alpha) {
  switch (transform) {
    case RewardTransform::reverse_kl:
      return {log_ratio, T(1)};
    case RewardTransform::forward_kl:
      return forward_kl_transform(log_ratio);
    case RewardTransform::js_divergence:
      return {log_sigmoid(log_ratio), sigmoid(-log_ratio)};
    case RewardTransform::alpha_divergence:
      return alpha_divergence_transform(log_ratio, alpha);
  }
  return {log_ratio, T(1)};
}

}  // namespace dpo::math
