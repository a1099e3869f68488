#include "native/math/divergences.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "native/math/reward_transforms.h"

namespace dpo::math {
namespace {

using E = ScalarElementary<double>;

/// A point with log-ratio t, far from 0 and 1 in both probabilities.
Ratio<double> point(double t) {
  const double lp = -3 + t / 2, lq = -3 - t / 2;
  return ratio_of<E>(LogRatio<double>{lp, lq, t, 0, 0, 0});
}

const std::vector<double> kLogRatios{-5, -1.3, -0.7, -0.2, -1e-3, -1e-7, 1e-7, 1e-3, 0.2, 0.7, 1.3, 5};

/// w/p as a function of t is the slope of the generator: a multiple of φ, up to a constant.
template <class Functor>
void expect_slope(const Functor& functor, RewardTransform transform, double alpha, double scale) {
  const auto difference = [&](double t) {
    const Ratio<double> r = point(t);
    return functor.template at<E>(r).weight / r.p - scale * reward_transform(transform, t, alpha).value;
  };
  for (const double t : kLogRatios) EXPECT_NEAR(difference(t), difference(0.5), 1e-11) << "t = " << t;
}

TEST(Divergences, HaveTheGeneratorsOfTheRewardTransforms) {
  expect_slope(KullbackLeibler{}, RewardTransform::reverse_kl, 0, 1);
  expect_slope(ForwardKullbackLeibler{}, RewardTransform::forward_kl, 0, 1);
  expect_slope(JensenShannon{}, RewardTransform::js_divergence, 0, 1);
  expect_slope(GeneralizedJensenShannon{0.5}, RewardTransform::js_divergence, 0, 0.5);
  for (const double alpha : {-0.7, 0.3, 0.5, 0.9, 1.5, 2.0}) {
    // Of the sum of powers itself: its slope is α·e^((α−1)t)/k for S − 1 = k·Σ terms.
    const double k = alpha >= 0.5 ? alpha - 1 : -alpha;
    with_affinity(AffinityForm::linear, alpha, 1, 2, [&](const auto& functor) {
      expect_slope(functor, RewardTransform::alpha_divergence, alpha, alpha * (alpha - 1) / k);
      return 0;
    });
  }
}

/// The generator's own value, less f'(1)(r − 1), in extended precision.
template <class Functor, class Generator>
void expect_term(const Functor& functor, const Generator& centred) {
  for (const double t : kLogRatios) {
    const Ratio<double> r = point(t);
    const long double ratio = std::exp(static_cast<long double>(t));
    const auto truth = static_cast<double>(std::exp(-3.0L - static_cast<long double>(t) / 2) * centred(ratio));
    // The long double formulas cancel themselves next to t = 0.
    EXPECT_NEAR(functor.template at<E>(r).term, truth, 1e-14 * std::fabs(truth) + 1e-20) << "t = " << t;
  }
}

TEST(Divergences, HaveTermsThatAreTheirCentredGenerators) {
  expect_term(KullbackLeibler{}, [](long double r) { return r * std::log(r) - (r - 1); });
  expect_term(ForwardKullbackLeibler{}, [](long double r) { return -std::log(r) + (r - 1); });
  expect_term(Jeffreys{}, [](long double r) { return (r - 1) * std::log(r); });
  expect_term(TotalVariation{}, [](long double r) { return std::fabs(r - 1) / 2; });
  expect_term(JensenShannon{}, [](long double r) { return r * std::log(2 * r / (1 + r)) + std::log(2 / (1 + r)); });
  expect_term(GeneralizedJensenShannon{0.2}, [](long double r) {
    const long double m = 0.2L * r + 0.8L;
    return 0.2L * r * std::log(r / m) - 0.8L * std::log(m);
  });
  with_affinity(AffinityForm::linear, 2, 1, 2, [](const auto& functor) {
    expect_term(functor, [](long double r) { return (r - 1) * (r - 1); });
    return 0;
  });
  with_affinity(AffinityForm::linear, -1, 1, 2, [](const auto& functor) {
    expect_term(functor, [](long double r) { return (r - 1) * (r - 1) / r; });
    return 0;
  });
}

TEST(Divergences, AreZeroWhereBothSidesAreEqual) {
  const Ratio<double> r = point(0);
  const auto terms = {KullbackLeibler{}.at<E>(r),
                      ForwardKullbackLeibler{}.at<E>(r),
                      Jeffreys{}.at<E>(r),
                      TotalVariation{}.at<E>(r),
                      JensenShannon{}.at<E>(r),
                      GeneralizedJensenShannon{0.3}.at<E>(r),
                      AffinityByP{{AffinityForm::linear, 0.7, 1, 1}}.at<E>(r),
                      AffinityByQ{{AffinityForm::linear, 0.2, 1, 1}}.at<E>(r)};
  for (const PointTerms<double>& found : terms) {
    EXPECT_EQ(found.term, 0);
    EXPECT_EQ(found.weight, 0);
  }
}

/// The functor for disjoint rows has the same terms, and a w that differs by a multiple of p.
template <class Functor>
void expect_same_gradient(const Functor& functor) {
  const auto shift = [&](double t) {
    const Ratio<double> r = point(t);
    const PointTerms<double> near = functor.template at<E>(r), far = functor.for_disjoint().template at<E>(r);
    EXPECT_EQ(near.term, far.term);
    return (near.weight - far.weight) / r.p;
  };
  for (const double t : kLogRatios) EXPECT_NEAR(shift(t), shift(2), 1e-13) << "t = " << t;
}

TEST(Divergences, HaveTheSameGradientForDisjointRows) {
  expect_same_gradient(TotalVariation{});
  expect_same_gradient(JensenShannon{});
  expect_same_gradient(GeneralizedJensenShannon{0.3});
  const Ratio<double> apart = point(40);
  EXPECT_NEAR(JensenShannon{}.for_disjoint().at<E>(apart).weight / apart.p, -std::exp(-40.0), 1e-30);
}

/// The functor for distant rows, in single precision, has the same terms less `excess`·(p − q), and the same w less `shift`·p.
template <class Functor>
void expect_same_when_distant(const Functor& functor, double excess = 0, double shift = 0) {
  for (const double t : {-40.0, -5.0, -1.3, -0.7, -0.2, 0.0, 0.2, 0.7, 1.3, 5.0, 40.0}) {
    const Ratio<double> r = point(t);
    const PointTerms<double> truth = functor.template at<E>(r);
    const auto single = [](double x) { return static_cast<float>(x); };
    const LogRatio<float> rounded{single(r.lp), single(r.lq), single(r.t), 0, 0, 0};
    const auto [p, found] = functor.for_distant().template distant_at<ScalarElementary<float>>(rounded);
    // The terms cancel where t is small; what is left has the error of p and q themselves, of which ln p is rounded.
    const double error = 3e-7 * (1 + std::fabs(r.lp) + std::fabs(r.lq)) * (r.p + r.q + std::fabs(truth.term));
    EXPECT_NEAR(p, r.p, error) << "t = " << t;
    EXPECT_NEAR(found.term, truth.term + excess * r.difference, error) << "t = " << t;
    EXPECT_NEAR(found.weight, truth.weight + shift * r.p, error + 3e-7 * std::fabs(truth.weight)) << "t = " << t;
  }
}

TEST(Divergences, AreTheSameForDistantRows) {
  expect_same_when_distant(JensenShannon{});
  for (const double beta : {0.02, 0.3, 0.9}) expect_same_when_distant(GeneralizedJensenShannon{beta});
  for (const double alpha : {1.5, 1.8, 2.0})
    expect_same_when_distant(AffinityByP{{AffinityForm::linear, alpha, 1, 2}}, 1, alpha / (alpha - 1));
  for (const double alpha : {-1.0, -0.5}) expect_same_when_distant(AffinityByQ{{AffinityForm::linear, alpha, 1, 2}}, -1, -1);
}

TEST(Divergences, TakeRowsForDistantOnlyWhereThatLeavesDigits) {
  RowMoments row;
  row.x = row.y = {0, 10};
  row.blend = {0, 10};
  EXPECT_FALSE(JensenShannon{}.for_distant().likely(row));
  EXPECT_FALSE((AffinityByP{{AffinityForm::linear, 2, 1, 2}}.for_distant().likely(row)));
  row.x_differences = 5;
  row.blend.sum = 20;
  EXPECT_TRUE(JensenShannon{}.for_distant().likely(row));
  EXPECT_FALSE(GeneralizedJensenShannon{0.02}.for_distant().likely(row));
  EXPECT_TRUE((AffinityByP{{AffinityForm::linear, 2, 1, 2}}.for_distant().likely(row)));
  EXPECT_FALSE((AffinityByP{{AffinityForm::linear, 1.1, 1, 2}}.for_distant().likely(row)));
  row.x_differences = std::nan("");
  EXPECT_FALSE(JensenShannon{}.for_distant().likely(row));
  EXPECT_FALSE(JensenShannon{}.for_distant().holds(1e-3));
  EXPECT_TRUE(JensenShannon{}.for_distant().holds(0.1));
}

TEST(Divergences, GoOverIntoKlAsAlphaTendsTo1) {
  const Ratio<double> r = point(0.8);
  const double kl = KullbackLeibler{}.at<E>(r).term;
  double last = 1;
  for (double step = 0.1; step > 1e-15; step /= 10) {
    const double above = AffinityByP{{AffinityForm::linear, 1 + step, 1, 1}}.at<E>(r).term - kl;
    const double below = AffinityByP{{AffinityForm::linear, 1 - step, 1, 1}}.at<E>(r).term - kl;
    EXPECT_LE(std::fabs(above), step);
    EXPECT_LE(std::fabs(below), step);
    last = std::fabs(above);
  }
  EXPECT_LE(last, 1e-15);
}

TEST(RowMoments, MergeToThoseOfTheWholeRow) {
  const std::vector<double> x{0.3, -2, 1.7, 4, -1}, y{1, 0.5, -3, 2, 2.5};
  const auto of = [&](std::size_t begin, std::size_t end) {
    RowMoments found;
    for (std::size_t i = begin; i < end; ++i) {
      RowMoments one;
      one.x = {x[i], 1};
      one.y = {y[i], 1};
      one.blend = {0.3 * x[i] + 0.7 * y[i], 1};
      one.x_differences = one.y_differences = x[i] - y[i];
      found.merge(one);
    }
    return found;
  };
  RowMoments merged = of(0, 2);
  merged.merge(of(2, 5));
  double px = 0, py = 0, kl = 0, forward = 0, power = 0;
  for (const double v : x) px += std::exp(v);
  for (const double v : y) py += std::exp(v);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double p = std::exp(x[i]) / px, q = std::exp(y[i]) / py;
    kl += p * std::log(p / q);
    forward += q * std::log(q / p);
    power += std::pow(p, 0.3) * std::pow(q, 0.7);
  }
  EXPECT_NEAR(merged.kl(), kl, 1e-14);
  EXPECT_NEAR(merged.forward_kl(), forward, 1e-14);
  EXPECT_NEAR(merged.log_affinity(0.3), std::log(power), 1e-14);
}

}  // namespace
}  // namespace dpo::math
