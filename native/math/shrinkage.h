// How much of the mean variance times I goes into an estimate of a covariance.
#pragma once

#include <algorithm>

#include "native/math/host_device.h"

namespace dpo::math {

/// Of the elements of a symmetric matrix.
struct Moments {
  double trace, squares;
};

/// Ledoit & Wolf (2004), "A well-conditioned estimator for large-dimensional covariance matrices". `fourth`: Σ ‖x‖⁴ of n rows.
inline double ledoit_wolf_shrinkage(const Moments& of, double fourth, double n, double depth) {
  if (depth == 1) return 0;
  const double mu = of.trace / depth;
  const double distance = (of.squares - 2 * mu * of.trace + depth * mu * mu) / depth;
  const double error = std::min((fourth / n - of.squares) / (depth * n), distance);
  return error == 0 ? 0 : error / distance;
}

/// Chen et al. (2010), "Shrinkage algorithms for MMSE covariance estimation", as scikit-learn takes it.
inline double oas_shrinkage(const Moments& of, double n, double depth) {
  if (depth == 1) return 0;
  const double alpha = of.squares / (depth * depth), mu = of.trace / depth;
  const double numerator = alpha + mu * mu, denominator = (n + 1) * (alpha - mu * mu / depth);
  return denominator == 0 ? 1 : std::min(numerator / denominator, 1.0);
}

/// An element of the estimate, of the mean variance on the diagonal.
DPO_HD inline double shrunk(double element, bool on_diagonal, double share, double mean_variance) {
  return element * (1 - share) + (on_diagonal ? share * mean_variance : 0);
}

}  // namespace dpo::math
