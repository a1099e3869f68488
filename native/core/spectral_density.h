// Frequencies of the spectral density of a kernel (Rahimi & Recht 2007), from a seed: what is drawn for each, the same on every
// backend.
#pragma once

#include "native/core/philox.h"
#include "native/core/random_features.h"

namespace dpo {

/// Rows of `depth` frequencies of a kernel of this sigma.
struct SpectralDensity {
  std::int32_t kind, freedom;
  std::int64_t depth;
  double sigma;
  Philox directions, lengths;  // streams of one seed

  static SpectralDensity of(const dpo_random_frequencies_args& args) {
    const auto seed = static_cast<std::uint64_t>(args.seed);
    return {args.density, args.freedom, args.frequencies.shape[1], args.sigma, {seed, 0}, {seed, 1}};
  }

  /// Of a row's lengths[row·count ..]: its length is made of the squares of so many.
  std::int64_t length_count(bool orthogonal) const { return orthogonal ? depth : kind == DPO_DENSITY_STUDENT ? freedom : 0; }

  /// sum + the square of the row's normal i of `count`; the sum is χ² distributed.
  DPO_HD double add_square(double sum, std::int64_t row, std::int64_t count, std::int64_t i) const {
    const double z = lengths.normal(static_cast<std::uint64_t>(row * count + i));
    return std::fma(z, z, sum);
  }

  /// Of matern a Student's t of 2ν degrees. `square`: the row's sum of squares.
  DPO_HD double independent(std::int64_t row, std::int64_t column, double square) const {
    const auto index = static_cast<std::uint64_t>(row * depth + column);
    if (kind == DPO_DENSITY_CAUCHY) {
      const math::SinCos angle = math::sin_cos(3.14159265358979323846 * (directions.uniform(index) - 0.5));
      return angle.sin / angle.cos / sigma;
    }
    const double normal = directions.normal(index);
    return (kind == DPO_DENSITY_STUDENT ? std::sqrt(freedom / square) * normal : normal) / sigma;
  }

  /// Of orthogonal rows: normal ones, which become orthonormal, and then as long as a normal row of this sum of squares.
  DPO_HD double normal(std::int64_t row, std::int64_t column) const {
    return directions.normal(static_cast<std::uint64_t>(row * depth + column));
  }
  DPO_HD double orthogonal(double unit, double square) const { return std::sqrt(square) * unit / sigma; }
};

}  // namespace dpo
