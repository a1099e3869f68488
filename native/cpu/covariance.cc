#include "native/core/covariance.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "native/core/private_covariance.h"
#include "native/cpu/gemm.h"
#include "native/cpu/operation.h"
#include "native/cpu/operations.h"
#include "native/cpu/scratch.h"
#include "native/cpu/symmetric_eigen.h"
#include "native/math/gaussian_mechanism.h"
#include "native/math/shrinkage.h"

namespace dpo::cpu {
namespace {

constexpr std::int64_t kRowsPerBlock = 512;
constexpr std::int64_t kColumnsPerChunk = 64;

/// Sums over the rows, as the estimators see them: centred, or cut to a length.
template <Storage S>
class RowSums {
 public:
  RowSums(dpo_job* job, const dpo_covariance_args& args)
      : job_(job), args_(args), rows_(args.x.shape[0]), depth_(args.x.shape[1]), workspace_(job, gemm_workspace<double>) {}

  dpo_status run() {
    const std::int64_t block = std::min(rows_, kRowsPerBlock);
    mean_ = allocate<double>(job_, depth_);
    products_ = allocate<double>(job_, depth_ * depth_);
    block_ = allocate<double>(job_, block * depth_);
    lengths_ = allocate<double>(job_, block);
    if (!mean_ || !products_ || !block_ || !lengths_) return out_of_memory(job_);
    std::fill_n(mean_, depth_, 0.0);
    std::fill_n(products_, depth_ * depth_, 0.0);
    if (!args_.assume_centered && args_.method != DPO_COVARIANCE_PRIVATE) {
      if (const dpo_status status = find_mean(); status != DPO_OK) return status;
    }
    for (std::int64_t begin = 0; begin < rows_; begin += block) {
      const std::int64_t count = std::min(block, rows_ - begin);
      if (const dpo_status status = load(begin, count); status != DPO_OK) return status;
      for (std::int64_t r = 0; r < count; ++r) fourth_ += lengths_[r] * lengths_[r];
      if (const dpo_status status = add_products(count); status != DPO_OK) return status;
    }
    return DPO_OK;
  }

  const double* mean() const { return mean_; }
  /// [D, D]: Σ x·xᵀ.
  double* products() const { return products_; }
  /// Σ ‖x‖⁴.
  double fourth() const { return fourth_; }

 private:
  std::int64_t column_chunks() const { return (depth_ + kColumnsPerChunk - 1) / kColumnsPerChunk; }
  Range columns(std::int64_t chunk) const { return {chunk * kColumnsPerChunk, std::min(depth_, (chunk + 1) * kColumnsPerChunk)}; }
  double at(std::int64_t row, std::int64_t column) const {
    return static_cast<double>(to_compute(data<S>(args_.x)[row * depth_ + column]));
  }

  dpo_status find_mean() {
    return parallel_for(job_, column_chunks(), [&](std::int64_t chunk) {
      const Range part = columns(chunk);
      for (std::int64_t r = 0; r < rows_; ++r) {
        for (std::int64_t c = part.begin; c < part.end; ++c) mean_[c] += at(r, c);
      }
      for (std::int64_t c = part.begin; c < part.end; ++c) mean_[c] /= static_cast<double>(rows_);
    });
  }

  dpo_status load(std::int64_t begin, std::int64_t count) {
    constexpr std::int64_t kRowsPerChunk = 32;
    return parallel_for(job_, (count + kRowsPerChunk - 1) / kRowsPerChunk, [&](std::int64_t chunk) {
      for (std::int64_t r = chunk * kRowsPerChunk; r < std::min(count, (chunk + 1) * kRowsPerChunk); ++r) {
        lengths_[r] = load_row(begin + r, block_ + r * depth_);
      }
    });
  }

  /// Returns ‖x‖² of the row as it is then.
  double load_row(std::int64_t row, double* to) const {
    double largest = 0, square = 0;
    for (std::int64_t c = 0; c < depth_; ++c) {
      to[c] = at(row, c) - mean_[c];
      largest = std::max(largest, std::fabs(to[c]));
      square += to[c] * to[c];
    }
    if (args_.method != DPO_COVARIANCE_PRIVATE) return square;
    double shares = 0;
    for (std::int64_t c = 0; c < depth_; ++c) shares += to[c] / largest * (to[c] / largest);
    const double cut = clipping_factor(args_.clip, largest, shares);
    if (cut >= 1) return square;
    square = 0;
    for (std::int64_t c = 0; c < depth_; ++c) {
      to[c] *= cut;
      square += to[c] * to[c];
    }
    return square;
  }

  /// Upper rows of products are those left of the diagonal mirrored, later.
  dpo_status add_products(std::int64_t count) {
    const MatrixView<double> block{block_, depth_, 1};
    const dpo_status status = parallel_for(job_, column_chunks(), [&](std::int64_t chunk) {
      const Range part = columns(chunk);
      workspace_.with_buffer([&](double* buffer) {
        gemm(block.at(0, part.begin).transposed(), block, part.size(), part.end, count, products_ + part.begin * depth_, depth_,
             Update::accumulate, std::span<double>(buffer, gemm_workspace<double>));
      });
    });
    return status == DPO_OK && workspace_.exhausted() ? out_of_memory(job_) : status;
  }

  dpo_job* job_;
  const dpo_covariance_args& args_;
  std::int64_t rows_, depth_;
  Scratch<double> workspace_;
  double *mean_ = nullptr, *products_ = nullptr, *block_ = nullptr, *lengths_ = nullptr;
  double fourth_ = 0;
};

/// Mirrors the lower triangle, times `factor`, to the upper one.
math::Moments mirror(double* a, std::int64_t depth, double factor) {
  math::Moments moments{};
  for (std::int64_t i = 0; i < depth; ++i) {
    for (std::int64_t j = 0; j <= i; ++j) {
      const double value = a[i * depth + j] * factor;
      a[i * depth + j] = a[j * depth + i] = value;
      moments.squares += (i == j ? 1 : 2) * value * value;
    }
    moments.trace += a[i * depth + i];
  }
  return moments;
}

void shrink(double* a, std::int64_t depth, double trace, double share) {
  if (share == 0) return;
  const double mean = trace / static_cast<double>(depth);
  for (std::int64_t i = 0; i < depth; ++i) {
    for (std::int64_t j = 0; j < depth; ++j) a[i * depth + j] = math::shrunk(a[i * depth + j], i == j, share, mean);
  }
}

void add_noise(double* sums, std::int64_t depth, const SymmetricNoise& noise) {
  for (std::int64_t i = 0; i < depth; ++i) {
    for (std::int64_t j = 0; j <= i; ++j) sums[i * depth + j] += noise.at(i, j);
  }
}

/// The nearest positive semidefinite matrix: eigenvalues below 0 become 0.
dpo_status clip_eigenvalues(dpo_job* job, double* a, std::int64_t depth) {
  auto* values = allocate<double>(job, depth);
  auto* vectors = allocate<double>(job, depth * depth);
  if (!values || !vectors) return out_of_memory(job);
  if (!symmetric_eigen(depth, a, values, vectors)) {
    return fail(job, DPO_ERR_RANGE, -1, "covariance: its eigenvalues were not found: they do not converge, or memory ran out");
  }
  if (values[0] >= 0) return DPO_OK;
  return parallel_for(job, depth, [&](std::int64_t i) {
    for (std::int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < depth; ++k) sum += vectors[i * depth + k] * std::max(values[k], 0.0) * vectors[j * depth + k];
      a[i * depth + j] = sum;
    }
  });
}

template <Storage S>
dpo_status estimate(dpo_job* job, const dpo_covariance_args& args) {
  RowSums<S> sums(job, args);
  if (const dpo_status status = sums.run(); status != DPO_OK) return status;
  const std::int64_t depth = args.x.shape[1];
  const auto n = static_cast<double>(args.x.shape[0]);
  double* result = sums.products();
  double shrinkage = 0;
  if (args.method == DPO_COVARIANCE_PRIVATE) {
    add_noise(result, depth, SymmetricNoise::of(args));
    mirror(result, depth, 1 / args.count);
    if (const dpo_status status = clip_eigenvalues(job, result, depth); status != DPO_OK) return status;
    mirror(result, depth, 1);
  } else {
    const math::Moments moments = mirror(result, depth, 1 / n);
    if (args.method == DPO_COVARIANCE_LEDOIT_WOLF)
      shrinkage = math::ledoit_wolf_shrinkage(moments, sums.fourth(), n, static_cast<double>(depth));
    if (args.method == DPO_COVARIANCE_OAS) shrinkage = math::oas_shrinkage(moments, n, static_cast<double>(depth));
    shrink(result, depth, moments.trace, shrinkage);
  }
  if (!std::all_of(result, result + depth * depth, [](double value) { return std::isfinite(value); })) {
    return fail(job, DPO_ERR_RANGE, -1, "covariance: overflows");
  }
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  std::copy_n(result, depth * depth, data<double>(args.covariance));
  std::copy_n(sums.mean(), depth, data<double>(args.mean));
  set(args.shrinkage, 0, shrinkage);
  return DPO_OK;
}

}  // namespace

dpo_status covariance(dpo_job* job, const dpo_covariance_args* args) {
  return dispatch_storage(args->x.dtype, [&]<class S>() { return guarded(job, [&] { return estimate<S>(job, *args); }); });
}

dpo_status gaussian_noise_scale(dpo_job* job, const dpo_gaussian_noise_scale_args* args) {
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  set(args->noise_scale, 0, args->sensitivity * math::gaussian_noise_scale(args->epsilon, args->delta));
  return DPO_OK;
}

}  // namespace dpo::cpu
