// Preference losses of one pair (chosen y⁺, rejected y⁻) with their derivatives. Names and conventions follow TRL.
//
//   log-ratio  ρ = ln π(y|x) − ln π_ref(y|x)
//   score      s = φ(ρ), ρ, ln π(y|x), or one of them per token: see `score`
//   reward     r = β·s + γ·ln k(e_x, e_y)
//   margin     h = r⁺ − r⁻
//
// A margin loss gives its value and slope in h; a reward loss gives its value and slopes in r⁺ and r⁻; `pair_loss` looks the
// loss up by name and chains the slopes down to ln π± and ln k±.
#pragma once

#include <cmath>
#include <cstdint>

#include "native/math/elementary.h"
#include "native/math/host_device.h"
#include "native/math/reward_transforms.h"

namespace dpo::math {

enum class PreferenceLoss : std::int32_t {
  sigmoid,
  sigmoid_norm,
  hinge,
  ipo,
  exo_pair,
  nca_pair,
  robust,
  bco_pair,
  sppo_hard,
  aot,
  aot_unpaired,
  apo_zero,
  apo_down,
  discopop,
  sft,
  linear,
  simpo,
  cpo,
  orpo,
  kto
};

/// One completion: ln π(y|x), ln π_ref(y|x) (unread by reference-free losses), ln k(e_x, e_y) and its number of tokens.
template <class T>
struct PairSide {
  T policy, reference, log_kernel, tokens;
};

/// Settings of the losses; the defaults are TRL's.
template <class T>
struct PreferenceParams {
  RewardTransform transform = RewardTransform::reverse_kl;
  T transform_alpha = T(0.5);  // α of alpha_divergence
  T beta = T(0.1);
  T gamma = 0;            // weight of ln k
  T label_smoothing = 0;  // ε; exo_pair needs 0 < ε < ½, robust 0 ≤ ε < ½
  T discopop_tau = T(0.05);
  T simpo_gamma = T(0.5);
  T cpo_alpha = 1;
  T bco_delta = 0;  // running mean of the rewards
  T kto_kl = 0;     // batch estimate of KL(π‖π_ref), already clamped at 0; a constant to the gradient
  T kto_desirable_weight = 1;
  T kto_undesirable_weight = 1;
  T mean_chosen_tokens = 1;  // chosen tokens of the batch / pairs of the batch
};

/// A loss and its derivatives in ln π± and ln k±.
template <class T>
struct PairLoss {
  T value, chosen_policy, rejected_policy, chosen_log_kernel, rejected_log_kernel;

  /// The value and what is the chosen answer's; the rest, where answers of two pairs have met.
  DPO_HD PairLoss of_chosen() const { return {value, chosen_policy, 0, chosen_log_kernel, 0}; }
  DPO_HD PairLoss of_rejected() const { return {0, 0, rejected_policy, 0, rejected_log_kernel}; }
};

// ---- What each loss is like ----

/// True where the partition function cancels, so that an f-DPO transform may replace ρ.
DPO_HD constexpr bool allows_transform(PreferenceLoss loss) {
  using enum PreferenceLoss;
  return loss == sigmoid || loss == sigmoid_norm || loss == hinge || loss == ipo || loss == exo_pair || loss == robust ||
         loss == discopop || loss == sft;
}

/// True if the reward is of the log-ratio, not of ln π alone.
DPO_HD constexpr bool uses_reference(PreferenceLoss loss) {
  using enum PreferenceLoss;
  return loss != simpo && loss != cpo && loss != orpo;
}

/// True if the loss cannot be had without a reference. sft can: only its reported reward is of the log-ratio.
DPO_HD constexpr bool needs_reference(PreferenceLoss loss) { return uses_reference(loss) && loss != PreferenceLoss::sft; }

/// True if a pair's loss depends on the other pairs of the batch: by sorting (aot), or by the running δ (bco_pair).
DPO_HD constexpr bool couples_batch(PreferenceLoss loss) {
  using enum PreferenceLoss;
  return loss == aot || loss == aot_unpaired || loss == bco_pair;
}

/// True if the score is an average over the completion's tokens.
DPO_HD constexpr bool averages_tokens(PreferenceLoss loss) {
  using enum PreferenceLoss;
  return loss == sigmoid_norm || loss == ipo || loss == simpo || loss == orpo;
}

/// True if the loss holds the chosen answer's cross-entropy.
DPO_HD constexpr bool has_cross_entropy(PreferenceLoss loss) {
  using enum PreferenceLoss;
  return loss == sft || loss == cpo || loss == orpo;
}

DPO_HD constexpr bool needs_token_counts(PreferenceLoss loss) { return averages_tokens(loss) || has_cross_entropy(loss); }

// ---- Scores, rewards, margins ----

/// Token count to divide by; an empty completion counts as one token (as TRL).
template <class T>
DPO_HD T token_divisor(const PairSide<T>& side) {
  return side.tokens < 1 ? T(1) : side.tokens;
}

/// s and ds/d ln π.
template <class T>
DPO_HD ValueAndSlope<T> score(PreferenceLoss loss, const PairSide<T>& side, const PreferenceParams<T>& params) {
  const T log_prob = uses_reference(loss) ? side.policy - side.reference : side.policy;
  ValueAndSlope<T> s = {log_prob, T(1)};
  if (uses_reference(loss) && allows_transform(loss)) {
    s = reward_transform(params.transform, log_prob, params.transform_alpha);
  }
  if (!averages_tokens(loss)) return s;
  const T tokens = token_divisor(side);
  return {s.value / tokens, s.slope / tokens};
}

/// r = β·s + γ·ln k, the reward that the metrics report.
template <class T>
DPO_HD T reward(PreferenceLoss loss, const PairSide<T>& side, const PreferenceParams<T>& params) {
  return params.beta * score(loss, side, params).value + params.gamma * side.log_kernel;
}

/// What the losses see of a pair, and how it depends on ln π± (`…_policy`) and on ln k± (`log_kernel`, the same for both).
template <class T>
struct PairRewards {
  T chosen, rejected, margin;
  T chosen_policy, rejected_policy, log_kernel;
};

/// r± = weight·s± + γ·ln k±. The margin subtracts before it scales: r⁺ − r⁻ would lose what the two rewards share.
template <class T>
DPO_HD PairRewards<T> rewards_of_scores(const ValueAndSlope<T>& chosen_score, const ValueAndSlope<T>& rejected_score, T weight,
                                        T chosen_log_kernel, T rejected_log_kernel, T gamma) {
  return {weight * chosen_score.value + gamma * chosen_log_kernel,
          weight * rejected_score.value + gamma * rejected_log_kernel,
          weight * (chosen_score.value - rejected_score.value) + gamma * (chosen_log_kernel - rejected_log_kernel),
          weight * chosen_score.slope,
          weight * rejected_score.slope,
          gamma};
}

template <class T>
DPO_HD PairRewards<T> pair_rewards(PreferenceLoss loss, const PairSide<T>& chosen, const PairSide<T>& rejected,
                                   const PreferenceParams<T>& params) {
  return rewards_of_scores(score(loss, chosen, params), score(loss, rejected, params), params.beta, chosen.log_kernel,
                           rejected.log_kernel, params.gamma);
}

/// orpo: ln(p/(1 − p)) of the mean token probability p = e^(ln π/tokens), and its slope in ln π.
template <class T>
DPO_HD ValueAndSlope<T> mean_log_odds(const PairSide<T>& side) {
  const T tokens = token_divisor(side);
  const ValueAndSlope<T> odds = log_odds(side.policy / tokens);
  return {odds.value, odds.slope / tokens};
}

/// orpo's "rewards" are log-odds; β multiplies the loss, not the odds. Hong et al. (2024), arXiv 2403.07691, eqs. 4 and 7.
template <class T>
DPO_HD PairRewards<T> odds_rewards(const PairSide<T>& chosen, const PairSide<T>& rejected, const PreferenceParams<T>& params) {
  return rewards_of_scores(mean_log_odds(chosen), mean_log_odds(rejected), T(1), chosen.log_kernel, rejected.log_kernel,
                           params.gamma);
}

// aot, Melnyk et al. (2024), arXiv 2406.05882, compares sorted margins: the j-th smallest of these over the batch …
template <class T>
DPO_HD T aot_policy_margin(const PairSide<T>& chosen, const PairSide<T>& rejected, const PreferenceParams<T>& params) {
  return params.beta * (chosen.policy - rejected.policy) + params.gamma * (chosen.log_kernel - rejected.log_kernel);
}

// … minus the j-th smallest of these goes into smoothed_sigmoid.
template <class T>
DPO_HD T aot_reference_margin(const PairSide<T>& chosen, const PairSide<T>& rejected, const PreferenceParams<T>& params) {
  return params.beta * (chosen.reference - rejected.reference);
}

// ---- Margin losses: value and slope in h ----

/// −(1−ε)·ln σ(h) − ε·ln σ(−h). Rafailov et al. (2023), arXiv 2305.18290; ε after Mitchell's conservative DPO.
template <class T>
DPO_HD ValueAndSlope<T> smoothed_sigmoid(T h, T epsilon) {
  return {(1 - epsilon) * softplus(-h) + epsilon * softplus(h), epsilon * sigmoid(h) - (1 - epsilon) * sigmoid(-h)};
}

/// max(0, 1 − h), slope 0 at the kink. Zhao et al. (2023), arXiv 2305.10425.
template <class T>
DPO_HD ValueAndSlope<T> hinge(T h) {
  if (h >= 1) return {T(0), T(0)};
  return {1 - h, T(-1)};
}

/// (h/β − 1/(2β))². Azar et al. (2023), arXiv 2310.12036, eq. 17.
template <class T>
DPO_HD ValueAndSlope<T> ipo(T h, T beta) {
  const T error = (h - T(0.5)) / beta;
  return {error * error, 2 * error / beta};
}

/// KL of (σ(h), σ(−h)) from (1−ε, ε). Ji et al. (2024), arXiv 2402.00856, eq. 16. Slope: σ'(h)·(h − ln((1−ε)/ε)).
template <class T>
DPO_HD ValueAndSlope<T> exo_pair(T h, T epsilon) {
  const T log_chosen = std::log1p(-epsilon), log_rejected = std::log(epsilon);
  return {sigmoid(h) * (log_sigmoid(h) - log_chosen) + sigmoid(-h) * (log_sigmoid(-h) - log_rejected),
          sigmoid_slope(h) * (h - (log_chosen - log_rejected))};
}

/// [−(1−ε)·ln σ(h) + ε·ln σ(−h)]/(1−2ε). Ray Chowdhury et al. (2024), arXiv 2403.00409.
template <class T>
DPO_HD ValueAndSlope<T> robust(T h, T epsilon) {
  const T scale = 1 - 2 * epsilon;
  return {((1 - epsilon) * softplus(-h) - epsilon * softplus(h)) / scale,
          -((1 - epsilon) * sigmoid(-h) + epsilon * sigmoid(h)) / scale};
}

/// −ln σ(h)·(1−m) + e^−h·m with m = σ(h/τ), through which the slope goes too. Lu et al. (2024), arXiv 2406.08414, eq. 5.
template <class T>
DPO_HD ValueAndSlope<T> discopop(T h, T tau) {
  const T m = sigmoid(h / tau), rest = sigmoid(-h / tau);
  const T logistic = softplus(-h);
  // e^−h·m. For h < 0 the one overflows and the other vanishes, so they meet in the exponent: m = e^(h/τ)·(1−m).
  const T exponential = h < 0 ? std::exp(h / tau - h) * rest : std::exp(-h) * m;
  return {logistic * rest + exponential, exponential * (rest / tau - 1) - sigmoid(-h) * rest - logistic * (m * rest / tau)};
}

// ---- Reward losses: value and slopes in r⁺ and r⁻ ----

template <class T>
struct RewardLoss {
  T value, chosen, rejected;
};

/// A margin loss as a reward loss: h = r⁺ − r⁻.
template <class T>
DPO_HD RewardLoss<T> of_margin(const ValueAndSlope<T>& loss) {
  return {loss.value, loss.slope, -loss.slope};
}

/// −ln σ(r⁺) − ½ ln σ(−r⁺) − ½ ln σ(−r⁻). Chen et al. (2024), arXiv 2402.05369.
template <class T>
DPO_HD RewardLoss<T> nca_pair(T chosen, T rejected) {
  return {softplus(-chosen) + (softplus(chosen) + softplus(rejected)) / 2, sigmoid(chosen) / 2 - sigmoid(-chosen),
          sigmoid(rejected) / 2};
}

/// −ln σ(r⁺ − δ) − ln σ(δ − r⁻). Jung et al. (2024), arXiv 2404.04656; TRL's DPOTrainer is δ = 0.
template <class T>
DPO_HD RewardLoss<T> bco_pair(T chosen, T rejected, T delta) {
  return {softplus(delta - chosen) + softplus(rejected - delta), -sigmoid(delta - chosen), sigmoid(rejected - delta)};
}

/// (r⁺/β − 1/(2β))² + (r⁻/β + 1/(2β))². Wu et al. (2024), arXiv 2405.00675, eq. 4.7 with hard probabilities.
template <class T>
DPO_HD RewardLoss<T> sppo_hard(T chosen, T rejected, T beta) {
  const ValueAndSlope<T> won = ipo(chosen, beta), lost = ipo(-rejected, beta);
  return {won.value + lost.value, won.slope, -lost.slope};
}

/// (1 − σ(r⁺)) + σ(r⁻). D'Oosterlinck et al. (2024), arXiv 2408.06266, eq. 7.
template <class T>
DPO_HD RewardLoss<T> apo_zero(T chosen, T rejected) {
  return {sigmoid(-chosen) + sigmoid(rejected), -sigmoid_slope(chosen), sigmoid_slope(rejected)};
}

/// σ(r⁺) + (1 − σ(h)). Same paper, eq. 8.
template <class T>
DPO_HD RewardLoss<T> apo_down(T chosen, T margin) {
  return {sigmoid(chosen) + sigmoid(-margin), sigmoid_slope(chosen) - sigmoid_slope(margin), sigmoid_slope(margin)};
}

/// Half of w_d·(1 − σ(r⁺ − z)) + w_u·(1 − σ(z − r⁻)), z = β·KL: the chosen answer is a desirable example, the rejected one an
/// undesirable one, and their mean is taken. Ethayarajh et al. (2024), arXiv 2402.01306.
template <class T>
DPO_HD RewardLoss<T> kto(T chosen, T rejected, const PreferenceParams<T>& params) {
  const T z = params.beta * params.kto_kl;
  const T desirable = params.kto_desirable_weight / 2, undesirable = params.kto_undesirable_weight / 2;
  return {desirable * sigmoid(z - chosen) + undesirable * sigmoid(rejected - z), -desirable * sigmoid_slope(chosen - z),
          undesirable * sigmoid_slope(rejected - z)};
}

/// The part of each loss that rewards determine. aot and aot_unpaired: as in a batch of one pair, where sorting does nothing.
template <class T>
DPO_HD RewardLoss<T> reward_loss(PreferenceLoss loss, const PairRewards<T>& r, const PreferenceParams<T>& params) {
  switch (loss) {
    case PreferenceLoss::sigmoid:
    case PreferenceLoss::sigmoid_norm:
    case PreferenceLoss::aot:
    case PreferenceLoss::aot_unpaired:
    case PreferenceLoss::cpo:  // Xu et al. (2024), arXiv 2401.08417: sigmoid without a reference, plus cross-entropy
      return of_margin(smoothed_sigmoid(r.margin, params.label_smoothing));
    case PreferenceLoss::hinge:
      return of_margin(hinge(r.margin));
    case PreferenceLoss::ipo:
      return of_margin(ipo(r.margin, params.beta));
    case PreferenceLoss::exo_pair:
      return of_margin(exo_pair(r.margin, params.label_smoothing));
    case PreferenceLoss::nca_pair:
      return nca_pair(r.chosen, r.rejected);
    case PreferenceLoss::robust:
      return of_margin(robust(r.margin, params.label_smoothing));
    case PreferenceLoss::bco_pair:
      return bco_pair(r.chosen, r.rejected, params.bco_delta);
    case PreferenceLoss::sppo_hard:
      return sppo_hard(r.chosen, r.rejected, params.beta);
    case PreferenceLoss::apo_zero:
      return apo_zero(r.chosen, r.rejected);
    case PreferenceLoss::apo_down:
      return apo_down(r.chosen, r.margin);
    case PreferenceLoss::discopop:
      return of_margin(discopop(r.margin, params.discopop_tau));
    case PreferenceLoss::sft:
      return {T(0), T(0), T(0)};
    case PreferenceLoss::linear:
      return {-r.margin, T(-1), T(1)};
    case PreferenceLoss::simpo:  // Meng et al. (2024), arXiv 2405.14734
      return of_margin(smoothed_sigmoid(r.margin - params.simpo_gamma, params.label_smoothing));
    case PreferenceLoss::orpo: {
      const RewardLoss<T> odds = of_margin(smoothed_sigmoid(r.margin, T(0)));
      return {params.beta * odds.value, params.beta * odds.chosen, params.beta * odds.rejected};
    }
    case PreferenceLoss::kto:
      return kto(r.chosen, r.rejected, params);
  }
  return {T(0), T(0), T(0)};
}

// ---- The whole ----

/// Chains slopes in the rewards to ln π± and ln k±. Also for losses whose slopes come from sorted batches.
template <class T>
DPO_HD PairLoss<T> chain_rewards(const RewardLoss<T>& loss, const PairRewards<T>& r) {
  return {loss.value, loss.chosen * r.chosen_policy, loss.rejected * r.rejected_policy, loss.chosen * r.log_kernel,
          loss.rejected * r.log_kernel};
}

/// Adds weight·(−ln π⁺ / mean chosen tokens), whose batch mean is the cross-entropy per chosen token.
template <class T>
DPO_HD PairLoss<T> add_cross_entropy(PairLoss<T> loss, const PairSide<T>& chosen, T weight, T mean_chosen_tokens) {
  loss.value -= weight * (chosen.policy / mean_chosen_tokens);
  loss.chosen_policy -= weight / mean_chosen_tokens;
  return loss;
}

/// The loss of one pair and its derivatives.
template <class T>
DPO_HD PairLoss<T> pair_loss(PreferenceLoss loss, const PairSide<T>& chosen, const PairSide<T>& rejected,
                             const PreferenceParams<T>& params) {
  const PairRewards<T> rewards =
      loss == PreferenceLoss::orpo ? odds_rewards(chosen, rejected, params) : pair_rewards(loss, chosen, rejected, params);
  const PairLoss<T> result = chain_rewards(reward_loss(loss, rewards, params), rewards);
  if (!has_cross_entropy(loss)) return result;
  const T weight = loss == PreferenceLoss::cpo ? params.cpo_alpha : T(1);
  return add_cross_entropy(result, chosen, weight, params.mean_chosen_tokens);
}

}  // namespace dpo::math
