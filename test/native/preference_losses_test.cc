#include "native/math/preference_losses.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "test/native/accuracy.h"

namespace dpo::math {
namespace {

using test::error_in_epsilons;
using test::Real;
using test::Sum;
using Loss = PreferenceLoss;
using Transform = RewardTransform;

struct Named {
  Loss loss;
  const char* name;
};
constexpr Named losses[] = {{Loss::sigmoid, "sigmoid"},
                            {Loss::sigmoid_norm, "sigmoid_norm"},
                            {Loss::hinge, "hinge"},
                            {Loss::ipo, "ipo"},
                            {Loss::exo_pair, "exo_pair"},
                            {Loss::nca_pair, "nca_pair"},
                            {Loss::robust, "robust"},
                            {Loss::bco_pair, "bco_pair"},
                            {Loss::sppo_hard, "sppo_hard"},
                            {Loss::aot, "aot"},
                            {Loss::aot_unpaired, "aot_unpaired"},
                            {Loss::apo_zero, "apo_zero"},
                            {Loss::apo_down, "apo_down"},
                            {Loss::discopop, "discopop"},
                            {Loss::sft, "sft"},
                            {Loss::linear, "linear"},
                            {Loss::simpo, "simpo"},
                            {Loss::cpo, "cpo"},
                            {Loss::orpo, "orpo"},
                            {Loss::kto, "kto"}};

std::vector<Transform> transforms_of(Loss loss) {
  if (!allows_transform(loss)) return {Transform::reverse_kl};
  return {Transform::reverse_kl, Transform::forward_kl, Transform::js_divergence, Transform::alpha_divergence};
}

// ---- The same formulas in long double, written as the papers and TRL do, with no regard for rounding ----

Real ln_sigma(Real x) { return x < 0 ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x)); }
Real sigma(Real x) { return 1 / (1 + std::exp(-x)); }

Real true_transform(Transform transform, Real rho, Real alpha) {
  switch (transform) {
    case Transform::reverse_kl:
      return rho;
    case Transform::forward_kl:
      return -std::exp(-rho);
    case Transform::js_divergence:
      return ln_sigma(rho);
    case Transform::alpha_divergence:
      return std::exp((alpha - 1) * rho) / (alpha - 1);
  }
  return 0;
}

Real true_smoothed_sigmoid(Real h, Real epsilon) { return -(1 - epsilon) * ln_sigma(h) - epsilon * ln_sigma(-h); }

Real true_loss(Loss loss, const PairSide<Real>& c, const PairSide<Real>& r, const PreferenceParams<Real>& p) {
  const Real beta = p.beta, eps = p.label_smoothing, kernel = p.gamma * (c.log_kernel - r.log_kernel);
  const Real rho_c = c.policy - c.reference, rho_r = r.policy - r.reference;
  const Real tokens_c = std::max<Real>(c.tokens, 1), tokens_r = std::max<Real>(r.tokens, 1);
  const Real phi_c = true_transform(p.transform, rho_c, p.transform_alpha),
             phi_r = true_transform(p.transform, rho_r, p.transform_alpha);
  const Real h = beta * (phi_c - phi_r) + kernel;
  const Real plain_c = beta * rho_c + p.gamma * c.log_kernel, plain_r = beta * rho_r + p.gamma * r.log_kernel;
  const Real averaged = phi_c / tokens_c - phi_r / tokens_r;
  const Real cross_entropy = -c.policy / p.mean_chosen_tokens;
  const Real a_c = c.policy / tokens_c, a_r = r.policy / tokens_r;
  switch (loss) {
    case Loss::sigmoid:
      return true_smoothed_sigmoid(h, eps);
    case Loss::sigmoid_norm:
      return true_smoothed_sigmoid(beta * averaged + kernel, eps);
    case Loss::hinge:
      return std::max<Real>(0, 1 - h);
    case Loss::ipo:
      return std::pow(averaged + kernel / beta - 1 / (2 * beta), 2);
    case Loss::exo_pair:
      return sigma(h) * (ln_sigma(h) - std::log(1 - eps)) + sigma(-h) * (ln_sigma(-h) - std::log(eps));
    case Loss::nca_pair:
      return -ln_sigma(plain_c) - ln_sigma(-plain_c) / 2 - ln_sigma(-plain_r) / 2;
    case Loss::robust:
      return (-(1 - eps) * ln_sigma(h) + eps * ln_sigma(-h)) / (1 - 2 * eps);
    case Loss::bco_pair:
      return -ln_sigma(plain_c - p.bco_delta) - ln_sigma(-(plain_r - p.bco_delta));
    case Loss::sppo_hard:
      return std::pow(plain_c / beta - 1 / (2 * beta), 2) + std::pow(plain_r / beta + 1 / (2 * beta), 2);
    case Loss::aot:
    case Loss::aot_unpaired:
      return true_smoothed_sigmoid(plain_c - plain_r, eps);
    case Loss::apo_zero:
      return (1 - sigma(plain_c)) + sigma(plain_r);
    case Loss::apo_down:
      return sigma(plain_c) + 1 - sigma(plain_c - plain_r);
    case Loss::discopop: {
      const Real m = sigma(h / p.discopop_tau);
      return -ln_sigma(h) * (1 - m) + std::exp(-h) * m;
    }
    case Loss::sft:
      return cross_entropy;
    case Loss::linear:
      return -(plain_c - plain_r);
    case Loss::simpo:
      return true_smoothed_sigmoid(beta * (a_c - a_r - p.simpo_gamma / beta) + kernel, eps);
    case Loss::cpo:
      return true_smoothed_sigmoid(beta * (c.policy - r.policy) + kernel, eps) + p.cpo_alpha * cross_entropy;
    case Loss::orpo: {
      const Real odds_c = std::log(std::exp(a_c) / (1 - std::exp(a_c))), odds_r = std::log(std::exp(a_r) / (1 - std::exp(a_r)));
      return cross_entropy - beta * ln_sigma(odds_c - odds_r + kernel);
    }
    case Loss::kto: {
      const Real kl = beta * p.kto_kl;
      return (p.kto_desirable_weight * (1 - sigma(plain_c - kl)) + p.kto_undesirable_weight * (1 - sigma(kl - plain_r))) / 2;
    }
  }
  return 0;
}

// ---- Inputs ----

template <class T>
PreferenceParams<T> test_params(Transform transform) {
  PreferenceParams<T> p;
  p.transform = transform;
  p.transform_alpha = T(0.625);
  p.beta = T(0.25);
  p.gamma = T(0.75);
  p.label_smoothing = T(0.125);
  p.discopop_tau = T(0.0625);
  p.simpo_gamma = T(0.375);
  p.cpo_alpha = T(0.5);
  p.bco_delta = T(0.1875);
  p.kto_kl = T(0.3125);
  p.kto_desirable_weight = T(1.25);
  p.kto_undesirable_weight = T(0.875);
  p.mean_chosen_tokens = T(6.5);
  return p;
}

struct Pair {
  std::array<double, 4> chosen, rejected;  // policy, reference, log_kernel, tokens

  template <class T>
  PairSide<T> side(const std::array<double, 4>& s) const {
    return {T(float(s[0])), T(float(s[1])), T(float(s[2])), T(float(s[3]))};  // the same rounded inputs for every T
  }
};

// Margins of both signs, on both sides of hinge's kink; equal sides; long answers; an empty one.
const std::vector<Pair> pairs = {
    {{-9.3, -10.1, -0.4, 5}, {-11.7, -9.9, -1.3, 7}}, {{-14.2, -11.6, -2.1, 9}, {-6.8, -9.4, -0.3, 4}},
    {{-8.5, -8.5, -0.7, 6}, {-8.5, -8.5, -0.7, 6}},   {{-212.4, -215.9, -0.9, 180}, {-403.6, -399.2, -1.9, 311}},
    {{-0.02, -0.3, 0.0, 3}, {-30.5, -29.0, -3.5, 2}}, {{-4.1, -5.0, -0.2, 0}, {-3.3, -4.6, -0.6, 1}},
    {{-20.0, -12.5, -6.0, 8}, {-9.0, -16.5, -0.1, 8}}};

template <class F>
void for_each_case(F f) {
  for (const Named& named : losses) {
    for (const Transform transform : transforms_of(named.loss)) {
      for (std::size_t i = 0; i < pairs.size(); ++i) {
        SCOPED_TRACE(std::string(named.name) + " transform " + std::to_string(int(transform)) + " pair " + std::to_string(i));
        f(named.loss, transform, pairs[i]);
      }
    }
  }
}

// ---- pair_loss ----

TEST(PairLoss, EqualsTheFormulaInDouble) {
  for_each_case([](Loss loss, Transform transform, const Pair& pair) {
    const auto result =
        pair_loss(loss, pair.side<double>(pair.chosen), pair.side<double>(pair.rejected), test_params<double>(transform));
    const Real expected =
        true_loss(loss, pair.side<Real>(pair.chosen), pair.side<Real>(pair.rejected), test_params<Real>(transform));
    EXPECT_NEAR(result.value, double(expected), 1e-14 + 1e-14 * std::fabs(double(expected)));
  });
}

TEST(PairLoss, KeepsTheContractInFloat) {
  for_each_case([](Loss loss, Transform transform, const Pair& pair) {
    const auto result =
        pair_loss(loss, pair.side<float>(pair.chosen), pair.side<float>(pair.rejected), test_params<float>(transform));
    const Real expected =
        true_loss(loss, pair.side<Real>(pair.chosen), pair.side<Real>(pair.rejected), test_params<Real>(transform));
    EXPECT_NEAR(result.value, double(expected), 1e-5 + 1e-6 * std::fabs(double(expected)));
  });
}

TEST(PairLoss, DerivativesEqualFiniteDifferences) {
  for_each_case([](Loss loss, Transform transform, const Pair& pair) {
    const PreferenceParams<double> params = test_params<double>(transform);
    const PairSide<double> chosen = pair.side<double>(pair.chosen), rejected = pair.side<double>(pair.rejected);
    const PairLoss<double> result = pair_loss(loss, chosen, rejected, params);

    const auto slope = [&](bool of_chosen, double PairSide<double>::*input) {
      const auto value = [&](double x) {
        PairSide<double> c = chosen, r = rejected;
        PairSide<double>& side = of_chosen ? c : r;
        side.*input = x;
        return pair_loss(loss, c, r, params).value;
      };
      return test::five_point_slope(value, (of_chosen ? chosen : rejected).*input, 1e-4);
    };
    const auto expect_slope = [](double actual, double expected) {
      EXPECT_NEAR(actual, expected, 1e-6 * std::fabs(expected) + 1e-9);
    };
    expect_slope(result.chosen_policy, slope(true, &PairSide<double>::policy));
    expect_slope(result.rejected_policy, slope(false, &PairSide<double>::policy));
    expect_slope(result.chosen_log_kernel, slope(true, &PairSide<double>::log_kernel));
    expect_slope(result.rejected_log_kernel, slope(false, &PairSide<double>::log_kernel));
  });
}

template <class T>
bool all_finite(const PairLoss<T>& l) {
  return std::isfinite(l.value) && std::isfinite(l.chosen_policy) && std::isfinite(l.rejected_policy) &&
         std::isfinite(l.chosen_log_kernel) && std::isfinite(l.rejected_log_kernel);
}

template <class T>
void expect_finite(Loss loss, Transform transform, const char* name) {
  for (const double log_ratio_c : {-1e4, -1e3, -80.0, 0.0, 80.0, 1e3, 1e4}) {
    for (const double log_ratio_r : {-1e4, -1e3, -80.0, 0.0, 80.0, 1e3, 1e4}) {
      for (const double log_prob : {-2e4, -1e-30, 0.0}) {
        const PairSide<T> chosen = {T(log_prob), T(log_prob - log_ratio_c), T(-1e3), T(0)};
        const PairSide<T> rejected = {T(-50), T(-50 - log_ratio_r), T(-2), T(10)};
        PreferenceParams<T> params = test_params<T>(transform);
        for (const double beta : {0.01, 0.25, 10.0}) {
          params.beta = T(beta);
          EXPECT_TRUE(all_finite(pair_loss(loss, chosen, rejected, params)))
              << name << ' ' << int(transform) << ' ' << log_ratio_c << ' ' << log_ratio_r << ' ' << log_prob << ' ' << beta;
        }
      }
    }
  }
}

TEST(PairLoss, FiniteEverywhere) {
  for (const Named& named : losses) {
    for (const Transform transform : transforms_of(named.loss)) {
      expect_finite<double>(named.loss, transform, named.name);
      // ipo squares φ; a float cannot hold the square of e^80.
      if (named.loss == Loss::ipo && (transform == Transform::forward_kl || transform == Transform::alpha_divergence)) continue;
      expect_finite<float>(named.loss, transform, named.name);
    }
  }
}

TEST(PairLoss, NanIsNotSwallowed) {
  for (const Named& named : losses) {
    const PairSide<float> side = {std::nanf(""), -2, -1, 3};
    EXPECT_TRUE(std::isnan(pair_loss(named.loss, side, side, test_params<float>(Transform::reverse_kl)).value)) << named.name;
  }
}

TEST(PairLoss, ReadsOnlyWhatItSaysItNeeds) {
  const float nan = std::nanf("");
  for (const Named& named : losses) {
    PairSide<float> chosen = {-9, -10, -0.5f, 5}, rejected = {-12, -10, -1, 7};
    if (!uses_reference(named.loss)) chosen.reference = rejected.reference = nan;
    if (!needs_token_counts(named.loss)) chosen.tokens = rejected.tokens = nan;
    PreferenceParams<float> params =
        test_params<float>(allows_transform(named.loss) ? Transform::reverse_kl : Transform::forward_kl);
    const PairLoss<float> result = pair_loss(named.loss, chosen, rejected, params);
    EXPECT_TRUE(all_finite(result)) << named.name;
    params.transform = Transform::reverse_kl;
    EXPECT_EQ(result.value, pair_loss(named.loss, chosen, rejected, params).value) << named.name;
  }
}

TEST(PairLoss, WithoutKernelIsTrlsDpoLoss) {
  // −ln σ(0.1·((−9 + 10) − (−12 + 10))) = ln(1 + e^−0.3)
  const PairSide<double> chosen = {-9, -10, -5, 5}, rejected = {-12, -10, -3, 7};
  const PairLoss<double> result = pair_loss(Loss::sigmoid, chosen, rejected, PreferenceParams<double>{});
  EXPECT_NEAR(result.value, 0.554355244468527, 1e-15);
  EXPECT_NEAR(result.chosen_policy, -0.1 / (1 + std::exp(0.3)), 1e-16);
  EXPECT_EQ(result.rejected_policy, -result.chosen_policy);
  EXPECT_EQ(result.chosen_log_kernel, 0);
}

TEST(PairLoss, SftAveragesToCrossEntropyPerToken) {
  PreferenceParams<double> params;
  params.mean_chosen_tokens = (4 + 12) / 2.0;
  const PairSide<double> first = {-6, 0, 0, 4}, second = {-30, 0, 0, 12};
  const double mean = (pair_loss(Loss::sft, first, first, params).value + pair_loss(Loss::sft, second, second, params).value) / 2;
  EXPECT_DOUBLE_EQ(mean, 36.0 / 16);
}

TEST(PairLoss, OrpoNearCertaintyStillPushesDown) {
  const PairSide<float> chosen = {-20, 0, 0, 10}, certain = {0, 0, 0, 10};
  const PairLoss<float> result = pair_loss(Loss::orpo, chosen, certain, PreferenceParams<float>{});
  EXPECT_TRUE(all_finite(result));
  EXPECT_GT(result.rejected_policy, 0);
}

// ---- Each formula: at most 4 ulp relative to Σ|terms| ----

template <class T>
class LossFormulas : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(LossFormulas, Types);

template <class T>
void expect_margin_loss(const ValueAndSlope<T>& actual, const Sum& value, const Sum& slope, T h) {
  EXPECT_LE(error_in_epsilons(actual.value, value), 4) << h;
  EXPECT_LE(error_in_epsilons(actual.slope, slope), 4) << h;
}

template <class T>
void expect_reward_loss(const RewardLoss<T>& actual, const Sum& value, const Sum& chosen, const Sum& rejected, T h) {
  EXPECT_LE(error_in_epsilons(actual.value, value), 4) << h;
  EXPECT_LE(error_in_epsilons(actual.chosen, chosen), 4) << h;
  EXPECT_LE(error_in_epsilons(actual.rejected, rejected), 4) << h;
}

Real sigma_slope(Real x) { return sigma(x) * sigma(-x); }

TYPED_TEST(LossFormulas, SmoothedSigmoidRobustExoPair) {
  using T = TypeParam;
  for (const T epsilon : {T(0), T(0.001), T(0.1), T(0.4)}) {
    const Real e = epsilon;
    test::for_each_argument<T>([=](T h) {
      expect_margin_loss(smoothed_sigmoid(h, epsilon), {-(1 - e) * ln_sigma(h), -e * ln_sigma(-h)},
                         {-(1 - e) * sigma(-h), e * sigma(h)}, h);
      const Real s = 1 - 2 * e;
      expect_margin_loss(robust(h, epsilon), {-(1 - e) * ln_sigma(h) / s, e * ln_sigma(-h) / s},
                         {-(1 - e) * sigma(-h) / s, -e * sigma(h) / s}, h);
      if (epsilon == 0) return;
      const Real log_c = std::log1p(-e), log_r = std::log(e);
      expect_margin_loss(exo_pair(h, epsilon),
                         {sigma(h) * ln_sigma(h), -sigma(h) * log_c, sigma(-h) * ln_sigma(-h), -sigma(-h) * log_r},
                         {sigma_slope(h) * h, -sigma_slope(h) * log_c, sigma_slope(h) * log_r}, h);
    });
  }
}

TYPED_TEST(LossFormulas, HingeIpoSppo) {
  using T = TypeParam;
  for (const T beta : {T(0.01), T(0.1), T(1)}) {
    const Real b = beta;
    test::for_each_argument<T>([=](T h) {
      expect_margin_loss(hinge(h), h < 1 ? Sum{1, -Real(h)} : Sum{0}, {h < 1 ? -1.0L : 0.0L}, h);
      const Real u = h / b - 1 / (2 * b), magnitude = std::fabs(h / b) + 1 / (2 * b);
      const ValueAndSlope<T> loss = ipo(h, beta);
      EXPECT_LE(error_in_epsilons(loss.value, u * u, magnitude * magnitude), 4);
      EXPECT_LE(error_in_epsilons(loss.slope, 2 * u / b, 2 * magnitude / b), 4);
      const T other = T(0.3) * h - 1;
      const Real w = other / b + 1 / (2 * b), other_magnitude = std::fabs(other / b) + 1 / (2 * b);
      const RewardLoss<T> sppo = sppo_hard(h, other, beta);
      EXPECT_LE(error_in_epsilons(sppo.value, u * u + w * w, magnitude * magnitude + other_magnitude * other_magnitude), 4);
      EXPECT_LE(error_in_epsilons(sppo.chosen, 2 * u / b, 2 * magnitude / b), 4);
      EXPECT_LE(error_in_epsilons(sppo.rejected, 2 * w / b, 2 * other_magnitude / b), 4);
    });
  }
}

TYPED_TEST(LossFormulas, HingeHasSlopeZeroAtItsKink) {
  EXPECT_EQ(hinge(TypeParam(1)).slope, TypeParam(0));
  EXPECT_EQ(hinge(TypeParam(1)).value, TypeParam(0));
}

TYPED_TEST(LossFormulas, Discopop) {
  using T = TypeParam;
  for (const T tau : {T(0.01), T(0.05), T(0.5), T(1)}) {
    const Real t = tau;
    test::for_each_argument<T>([=](T h) {
      const Real m = sigma(h / t), rest = sigma(-h / t), logistic = -ln_sigma(h), exponential = std::exp(-Real(h)) * m;
      expect_margin_loss(discopop(h, tau), {logistic * rest, exponential},
                         {exponential * rest / t, -exponential, -sigma(-h) * rest, -logistic * m * rest / t}, h);
    });
  }
}

TYPED_TEST(LossFormulas, RewardLosses) {
  using T = TypeParam;
  const T delta = T(0.1875);
  for (const T rejected : {T(-1e4), T(-1e3), T(-3), T(0), T(1e-5), T(0.75), T(40), T(1e4)}) {
    const Real r = rejected;
    test::for_each_argument<T>([=](T chosen) {
      const Real c = chosen, h = T(chosen - rejected);
      expect_reward_loss(nca_pair(chosen, rejected), {-ln_sigma(c), -ln_sigma(-c) / 2, -ln_sigma(-r) / 2},
                         {sigma(c) / 2, -sigma(-c)}, {sigma(r) / 2}, chosen);
      expect_reward_loss(apo_zero(chosen, rejected), {sigma(-c), sigma(r)}, {-sigma_slope(c)}, {sigma_slope(r)}, chosen);
      expect_reward_loss(apo_down(chosen, T(chosen - rejected)), {sigma(c), sigma(-h)}, {sigma_slope(c), -sigma_slope(h)},
                         {sigma_slope(h)}, chosen);
      // r − δ and r − z are rounded before they are used, so the truth is taken at the rounded differences.
      const Real over = -Real(T(delta - chosen)), under = T(rejected - delta);
      expect_reward_loss(bco_pair(chosen, rejected, delta), {-ln_sigma(over), -ln_sigma(-under)}, {-sigma(-over)}, {sigma(under)},
                         chosen);
      PreferenceParams<T> params;
      params.beta = T(0.25), params.kto_kl = T(0.75);  // exact product, fused or not
      params.kto_desirable_weight = T(1.25), params.kto_undesirable_weight = T(0.875);
      const T z = params.beta * params.kto_kl;
      const Real good = T(chosen - z), bad = T(rejected - z);
      expect_reward_loss(kto(chosen, rejected, params), {0.625L * sigma(-good), 0.4375L * sigma(bad)},
                         {-0.625L * sigma_slope(good)}, {0.4375L * sigma_slope(bad)}, chosen);
    });
  }
}

// ---- Rewards and sorted batches ----

TEST(Reward, IsWhatTheMetricsReport) {
  PreferenceParams<double> params;
  params.gamma = 0.5;
  const PairSide<double> side = {-8, -10, -3, 4};
  EXPECT_DOUBLE_EQ(reward(Loss::sigmoid, side, params), 0.1 * 2 - 1.5);
  EXPECT_DOUBLE_EQ(reward(Loss::sigmoid_norm, side, params), 0.1 * 2 / 4 - 1.5);
  EXPECT_DOUBLE_EQ(reward(Loss::cpo, side, params), 0.1 * -8 - 1.5);
  EXPECT_DOUBLE_EQ(reward(Loss::sft, side, params), 0.1 * 2 - 1.5);
  EXPECT_DOUBLE_EQ(reward(Loss::simpo, side, params), 0.1 * -8 / 4 - 1.5);
  EXPECT_DOUBLE_EQ(reward(Loss::orpo, side, params), 0.1 * -8 / 4 - 1.5);
  params.transform = Transform::forward_kl;
  EXPECT_DOUBLE_EQ(reward(Loss::hinge, side, params), -0.1 * std::exp(-2) - 1.5);
  EXPECT_DOUBLE_EQ(reward(Loss::linear, side, params), 0.1 * 2 - 1.5);
}

TEST(Reward, MarginSubtractsBeforeItScales) {
  // Two long answers whose log-ratios are large and nearly equal: r⁺ − r⁻ in float would be off by 1e-6.
  const PairSide<float> chosen = {-1000.125f, -2000, 0, 1}, rejected = {-1000.25f, -2000, 0, 1};
  PreferenceParams<float> params;
  EXPECT_EQ(pair_rewards(Loss::sigmoid, chosen, rejected, params).margin, 0.1f * 0.125f);
}

TEST(Aot, MarginsOfOnePairDifferByTheRewardMargin) {
  const PreferenceParams<double> params = test_params<double>(Transform::reverse_kl);
  for (const Pair& pair : pairs) {
    const auto chosen = pair.side<double>(pair.chosen), rejected = pair.side<double>(pair.rejected);
    EXPECT_NEAR(aot_policy_margin(chosen, rejected, params) - aot_reference_margin(chosen, rejected, params),
                pair_rewards(Loss::aot, chosen, rejected, params).margin, 1e-13);
  }
}

/// aot_unpaired over a batch, put together from the pieces as a backend does it.
std::vector<PairLoss<double>> aot_unpaired_batch(const std::vector<PairSide<double>>& chosen,
                                                 const std::vector<PairSide<double>>& rejected,
                                                 const PreferenceParams<double>& params) {
  const std::size_t count = chosen.size();
  std::vector<PairRewards<double>> rewards;
  std::vector<std::size_t> chosen_order, rejected_order;
  for (std::size_t i = 0; i < count; ++i) {
    rewards.push_back(pair_rewards(Loss::aot_unpaired, chosen[i], rejected[i], params));
    chosen_order.push_back(i), rejected_order.push_back(i);
  }
  std::ranges::sort(chosen_order, {}, [&](std::size_t i) { return rewards[i].chosen; });
  std::ranges::sort(rejected_order, {}, [&](std::size_t i) { return rewards[i].rejected; });
  std::vector<RewardLoss<double>> slopes(count);
  for (std::size_t rank = 0; rank < count; ++rank) {
    const std::size_t c = chosen_order[rank], r = rejected_order[rank];
    const auto loss = smoothed_sigmoid(rewards[c].chosen - rewards[r].rejected, params.label_smoothing);
    slopes[c].value = loss.value;
    slopes[c].chosen = loss.slope;
    slopes[r].rejected = -loss.slope;
  }
  std::vector<PairLoss<double>> result;
  for (std::size_t i = 0; i < count; ++i) result.push_back(chain_rewards(slopes[i], rewards[i]));
  return result;
}

TEST(Aot, ChainRewardsServesSortedBatches) {
  const PreferenceParams<double> params = test_params<double>(Transform::reverse_kl);
  std::vector<PairSide<double>> chosen, rejected;
  for (const Pair& pair : pairs) {
    chosen.push_back(pair.side<double>(pair.chosen)), rejected.push_back(pair.side<double>(pair.rejected));
  }
  const auto result = aot_unpaired_batch(chosen, rejected, params);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto total = [&](PairSide<double>& side, double PairSide<double>::*input, double x) {
      const double before = side.*input;
      side.*input = x;
      double sum = 0;
      for (const auto& loss : aot_unpaired_batch(chosen, rejected, params)) sum += loss.value;
      side.*input = before;
      return sum;
    };
    const auto slope = [&](PairSide<double>& side, double PairSide<double>::*input) {
      return test::five_point_slope([&](double x) { return total(side, input, x); }, side.*input, 1e-4);
    };
    EXPECT_NEAR(result[i].chosen_policy, slope(chosen[i], &PairSide<double>::policy), 1e-9);
    EXPECT_NEAR(result[i].rejected_policy, slope(rejected[i], &PairSide<double>::policy), 1e-9);
    EXPECT_NEAR(result[i].chosen_log_kernel, slope(chosen[i], &PairSide<double>::log_kernel), 1e-9);
    EXPECT_NEAR(result[i].rejected_log_kernel, slope(rejected[i], &PairSide<double>::log_kernel), 1e-9);
  }
}

static_assert(allows_transform(Loss::discopop) && !allows_transform(Loss::linear) && !allows_transform(Loss::nca_pair));
static_assert(needs_reference(Loss::kto) && !needs_reference(Loss::simpo));
static_assert(couples_batch(Loss::aot) && couples_batch(Loss::bco_pair) && !couples_batch(Loss::kto));
static_assert(needs_token_counts(Loss::ipo) && needs_token_counts(Loss::sft) && !needs_token_counts(Loss::sigmoid));

}  // namespace
}  // namespace dpo::math
