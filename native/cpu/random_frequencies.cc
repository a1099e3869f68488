#include "native/core/random_features.h"
#include "native/core/spectral_density.h"
#include "native/cpu/eigen_matrix.h"
#include "native/cpu/operations.h"
#include "native/math/lane_sum.h"

namespace dpo::cpu {
namespace {

double squared_length(const SpectralDensity& density, std::int64_t row, std::int64_t count) {
  return math::lane_sum(0, count, [&](double sum, std::int64_t i) { return density.add_square(sum, row, count, i); });
}

Matrix independent_frequencies(const SpectralDensity& density, std::int64_t rows) {
  const std::int64_t count = density.length_count(false);
  Matrix result(rows, density.depth);
  for (std::int64_t r = 0; r < rows; ++r) {
    const double square = squared_length(density, r, count);
    for (std::int64_t c = 0; c < density.depth; ++c) result(r, c) = density.independent(r, c, square);
  }
  return result;
}

/// Blocks of D rows at right angles to each other, each row as long as a normal one. Yu et al. (2016), "Orthogonal random
/// features".
Matrix orthogonal_frequencies(const SpectralDensity& density, std::int64_t rows) {
  const std::int64_t depth = density.depth, count = density.length_count(true);
  Matrix result(rows, depth), normal(depth, depth);
  for (std::int64_t begin = 0; begin < rows; begin += depth) {
    for (std::int64_t i = 0; i < depth; ++i) {
      for (std::int64_t c = 0; c < depth; ++c) normal(i, c) = density.normal(begin + i, c);
    }
    const Eigen::HouseholderQR<Matrix> qr(normal);
    const Matrix q = qr.householderQ();
    for (std::int64_t i = 0; i < std::min(depth, rows - begin); ++i) {
      // With the signs of R's diagonal Q is uniformly distributed.
      const double sign = qr.matrixQR()(i, i) < 0 ? -1 : 1, square = squared_length(density, begin + i, count);
      for (std::int64_t c = 0; c < depth; ++c) result(begin + i, c) = density.orthogonal(sign * q(c, i), square);
    }
  }
  return result;
}

dpo_status run(dpo_job* job, const dpo_random_frequencies_args& args) {
  const auto density = SpectralDensity::of(args);
  const std::int64_t rows = args.frequencies.shape[0];
  const Matrix result = args.orthogonal ? orthogonal_frequencies(density, rows) : independent_frequencies(density, rows);
  if (!result.allFinite()) return fail(job, DPO_ERR_RANGE, -1, "sigma: frequencies overflow");
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  write(args.frequencies, result);
  return DPO_OK;
}

}  // namespace

dpo_status random_frequencies(dpo_job* job, const dpo_random_frequencies_args* args) {
  return guarded(job, [&] { return run(job, *args); });
}

}  // namespace dpo::cpu
