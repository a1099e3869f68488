#include <cmath>

#include "native/core/philox.h"
#include "native/core/random_features.h"
#include "native/cpu/eigen_matrix.h"
#include "native/cpu/operations.h"

namespace dpo::cpu {
namespace {

// Streams of one seed.
constexpr std::uint64_t kDirections = 0, kLengths = 1;

/// Σ of `freedom` squared normals.
double chi_squared(const Philox& random, std::int64_t row, std::int64_t freedom) {
  double sum = 0;
  for (std::int64_t i = 0; i < freedom; ++i) {
    const double z = random.normal(static_cast<std::uint64_t>(row * freedom + i));
    sum += z * z;
  }
  return sum;
}

/// Rows of the spectral density of the kernel with sigma 1 (Rahimi & Recht 2007): of matern a Student's t of 2ν degrees.
Matrix independent_frequencies(const dpo_random_frequencies_args& args, std::int64_t rows, std::int64_t depth) {
  const auto seed = static_cast<std::uint64_t>(args.seed);
  const Philox directions{seed, kDirections}, lengths{seed, kLengths};
  Matrix result(rows, depth);
  for (std::int64_t r = 0; r < rows; ++r) {
    const double stretch =
        args.density == DPO_DENSITY_STUDENT ? std::sqrt(args.freedom / chi_squared(lengths, r, args.freedom)) : 1;
    for (std::int64_t c = 0; c < depth; ++c) {
      const auto index = static_cast<std::uint64_t>(r * depth + c);
      result(r, c) = args.density == DPO_DENSITY_CAUCHY ? std::tan(M_PI * (directions.uniform(index) - 0.5))
                                                        : stretch * directions.normal(index);
    }
  }
  return result;
}

/// Blocks of D rows at right angles to each other, each row as long as a normal one. Yu et al. (2016), "Orthogonal random
/// features".
Matrix orthogonal_frequencies(const dpo_random_frequencies_args& args, std::int64_t rows, std::int64_t depth) {
  const std::int64_t blocks = (rows + depth - 1) / depth;
  Matrix result = independent_frequencies(args, blocks * depth, depth);
  const Philox lengths{static_cast<std::uint64_t>(args.seed), kLengths};
  for (std::int64_t block = 0; block < blocks; ++block) {
    const Matrix normal = result.middleRows(block * depth, depth);
    const Eigen::HouseholderQR<Matrix> qr(normal);
    Matrix q = qr.householderQ();
    for (std::int64_t i = 0; i < depth; ++i) {
      // With the signs of R's diagonal Q is uniformly distributed.
      const double sign = qr.matrixQR()(i, i) < 0 ? -1 : 1;
      result.row(block * depth + i) = sign * std::sqrt(chi_squared(lengths, block * depth + i, depth)) * q.col(i).transpose();
    }
  }
  return result.topRows(rows);
}

dpo_status run(dpo_job* job, const dpo_random_frequencies_args& args) {
  const std::int64_t rows = args.frequencies.shape[0], depth = args.frequencies.shape[1];
  const Matrix result =
      (args.orthogonal ? orthogonal_frequencies(args, rows, depth) : independent_frequencies(args, rows, depth)) / args.sigma;
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
