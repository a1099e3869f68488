// The analytic Gaussian mechanism: Balle & Wang (2018), "Improving the Gaussian mechanism for differential privacy", arXiv
// 1805.06530.
#pragma once

#include <cmath>

namespace dpo::math {

/// e^(x²)·erfc(x), x ≥ 0.
inline double scaled_complementary_error(double x) {
  constexpr double kAsymptotic = 20;
  if (x < kAsymptotic) return std::exp(x * x) * std::erfc(x);
  const double t = 1 / (2 * x * x);
  return (1 - t * (1 - 3 * t * (1 - 5 * t * (1 - 7 * t * (1 - 9 * t))))) / (x * 1.7724538509055160273);
}

/// The least δ for which noise of `scale` times the sensitivity is (ε, δ) private: Φ(a) − e^ε·Φ(b), a = 1/(2s) − εs,
/// b = −1/(2s) − εs. b² = a² + 2ε, so that e^ε·Φ(b) = ½·e^(−a²/2)·erfcx(−b/√2) never leaves the range.
inline double gaussian_mechanism_delta(double epsilon, double scale) {
  const double half = 1 / (2 * scale), a = half - epsilon * scale, b = -half - epsilon * scale;
  const double falling = 0.5 * std::exp(-a * a / 2), of_b = scaled_complementary_error(-b * M_SQRT1_2);
  if (a > 0) return 0.5 * std::erfc(-a * M_SQRT1_2) - falling * of_b;
  return falling * (scaled_complementary_error(-a * M_SQRT1_2) - of_b);
}

/// The smallest standard deviation, in units of the sensitivity, that is (ε, δ) private; never below it by rounding.
inline double gaussian_noise_scale(double epsilon, double delta) {
  constexpr double kRounding = 1e-12;
  double low = 1, high = 1;
  while (gaussian_mechanism_delta(epsilon, high) > delta) high *= 2;
  while (gaussian_mechanism_delta(epsilon, low) <= delta) low /= 2;
  while (high > low * (1 + kRounding)) {
    const double middle = std::sqrt(low * high);
    (gaussian_mechanism_delta(epsilon, middle) <= delta ? high : low) = middle;
  }
  return high * (1 + kRounding);
}

}  // namespace dpo::math
