#include "native/core/random_features.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "native/cpu/kernel_maps.h"
#include "native/cpu/kernel_rows.h"
#include "native/cpu/operation.h"
#include "native/cpu/operations.h"
#include "native/cpu/scratch.h"
#include "native/math/fourier_features.h"

namespace dpo::cpu {
namespace {

constexpr std::int64_t kRowsPerBlock = 64;
/// Each has a gradient of the frequencies of its own.
constexpr std::int64_t kMostChunks = 16;

/// The library's where a fused product is a call.
math::SinCos sin_cos(double phase) {
#ifdef __FMA__
  return math::sin_cos(phase);
#else
  return {std::sin(phase), std::cos(phase)};
#endif
}

/// A block of rows in double, and their phases W·x.
struct Block {
  double *rows, *scales, *phases, *row_grads, *workspace;
};

template <Storage S>
class RandomFeatures {
 public:
  RandomFeatures(dpo_job* job, const dpo_tensor& x, const dpo_tensor& frequencies, bool normalize)
      : job_(job),
        x_(x),
        rows_(x.shape[0]),
        depth_(x.shape[1]),
        count_(frequencies.shape[0]),
        stride_(row_stride(depth_)),
        normalize_(normalize),
        frequencies_(data<double>(frequencies)) {}

  dpo_status prepare() {
    if (!map_.prepare(job_, {frequencies_, 1, depth_}, depth_, count_)) return out_of_memory(job_);
    return check_rows();
  }

  std::int64_t rows_per_chunk() const {
    const std::int64_t blocks = (rows_ + kRowsPerBlock - 1) / kRowsPerBlock;
    return (blocks + kMostChunks - 1) / kMostChunks * kRowsPerBlock;
  }
  std::int64_t chunks() const { return (rows_ + rows_per_chunk() - 1) / rows_per_chunk(); }
  std::int64_t count() const { return count_; }
  std::int64_t depth() const { return depth_; }
  std::int64_t stride() const { return stride_; }
  bool normalizes() const { return normalize_; }
  const LinearMap& map() const { return map_; }

  /// Calls body(block, first row, rows, chunk) when the phases are there.
  template <class Body>
  dpo_status for_each_block(const Body& body) const {
    const std::int64_t n = std::min(rows_, kRowsPerBlock), workspace = LinearMap::matrix_workspace();
    const std::int64_t phases = row_stride(n * count_);
    Scratch<double> scratch(job_, 2 * n * stride_ + row_stride(n) + phases + workspace);
    const dpo_status status = parallel_for(job_, chunks(), [&](std::int64_t chunk) {
      scratch.with_buffer([&](double* buffer) {
        double* rows = buffer + workspace;
        const Block block{rows, rows + 2 * n * stride_ + phases, rows + 2 * n * stride_, rows + n * stride_, buffer};
        const std::int64_t end = std::min(rows_, (chunk + 1) * rows_per_chunk());
        for (std::int64_t begin = chunk * rows_per_chunk(); begin < end; begin += kRowsPerBlock) {
          const std::int64_t size = std::min(kRowsPerBlock, end - begin);
          for (std::int64_t r = 0; r < size; ++r)
            block.scales[r] = load_row(data<S>(x_) + (begin + r) * depth_, depth_, normalize_, block.rows + r * stride_).scale;
          map_.apply(block.rows, size, block.phases, block.workspace);
          body(block, begin, size, chunk);
        }
      });
    });
    return status == DPO_OK && scratch.exhausted() ? out_of_memory(job_) : status;
  }

 private:
  /// Zero rows have no direction; phases past the range of double have no cosine.
  dpo_status check_rows() const {
    double frequency = 0;
    for (std::int64_t i = 0; i < count_ * depth_; ++i) frequency = std::max(frequency, std::fabs(frequencies_[i]));
    for (std::int64_t r = 0; r < rows_; ++r) {
      const S* row = data<S>(x_) + r * depth_;
      double largest = 0;
      for (std::int64_t c = 0; c < depth_; ++c) largest = std::max(largest, std::fabs(static_cast<double>(to_compute(row[c]))));
      const auto index = static_cast<long long>(r);
      if (normalize_ && largest == 0)
        return fail(job_, DPO_ERR_RANGE, r * depth_, "x: row %lld is zero and cannot be normalised", index);
      if (!std::isfinite((normalize_ ? 1 : largest) * frequency * static_cast<double>(depth_)))
        return fail(job_, DPO_ERR_RANGE, r * depth_, "x, frequencies: phases of row %lld overflow", index);
    }
    return DPO_OK;
  }

  dpo_job* job_;
  const dpo_tensor& x_;
  std::int64_t rows_, depth_, count_, stride_;
  bool normalize_;
  const double* frequencies_;
  LinearMap map_;
};

template <Storage S>
dpo_status transform(dpo_job* job, const dpo_random_features_args& args) {
  RandomFeatures<S> features(job, args.x, args.frequencies, args.normalize != 0);
  if (const dpo_status status = features.prepare(); status != DPO_OK) return status;
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  const std::int64_t count = features.count();
  const math::FourierFeatures fourier(static_cast<double>(count));
  return features.for_each_block([&](const Block& block, std::int64_t begin, std::int64_t rows, std::int64_t) {
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t first = (begin + r) * 2 * count;
      for (std::int64_t k = 0; k < count; ++k) {
        const math::SinCos of_phase = fourier.at(sin_cos(block.phases[r * count + k]));
        set(args.features, first + k, of_phase.cos);
        set(args.features, first + count + k, of_phase.sin);
      }
    }
  });
}

/// Phases become the gradients in them.
void pull_back_phases(const dpo_tensor& upstream, std::int64_t begin, std::int64_t rows, std::int64_t count, double* phases) {
  const math::FourierFeatures fourier(static_cast<double>(count));
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t first = (begin + r) * 2 * count;
    for (std::int64_t k = 0; k < count; ++k) {
      double& phase = phases[r * count + k];
      phase = fourier.slope(sin_cos(phase), get(upstream, first + k), get(upstream, first + count + k));
    }
  }
}

template <Storage S>
dpo_status pull_back(dpo_job* job, const dpo_random_features_vjp_args& args) {
  RandomFeatures<S> features(job, args.x, args.frequencies, args.normalize != 0);
  if (const dpo_status status = features.prepare(); status != DPO_OK) return status;
  const std::int64_t count = features.count(), depth = features.depth(), stride = features.stride(), size = count * depth;
  auto* sums = allocate<double>(job, features.chunks() * size);
  if (!sums) return out_of_memory(job);
  std::fill_n(sums, features.chunks() * size, 0.0);
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  const auto body = [&](const Block& block, std::int64_t begin, std::int64_t rows, std::int64_t chunk) {
    pull_back_phases(args.upstream, begin, rows, count, block.phases);
    features.map().pull_back_matrix(block.rows, block.phases, rows, sums + chunk * size, block.workspace);
    features.map().pull_back(block.phases, rows, true, block.row_grads, block.workspace);
    for (std::int64_t r = 0; r < rows; ++r) {
      const double *row = block.rows + r * stride, *grad = block.row_grads + r * stride;
      double along = 0;
      for (std::int64_t c = 0; features.normalizes() && c < depth; ++c) along += row[c] * grad[c];
      const double scale = block.scales[r];
      store_row<Write::cached>(data<S>(args.grad_x) + (begin + r) * depth, depth,
                               [=](std::int64_t c) { return (load(grad + c) - along * load(row + c)) * scale; });
    }
  };
  if (const dpo_status status = features.for_each_block(body); status != DPO_OK) return status;
  for (std::int64_t k = 0; k < count; ++k) {
    for (std::int64_t c = 0; c < depth; ++c) {
      double sum = 0;
      for (std::int64_t chunk = 0; chunk < features.chunks(); ++chunk) sum += sums[chunk * size + c * count + k];
      set(args.grad_frequencies, k * depth + c, sum);
    }
  }
  return DPO_OK;
}

}  // namespace

dpo_status random_features(dpo_job* job, const dpo_random_features_args* args) {
  return dispatch_storage(args->x.dtype, [&]<class S>() { return guarded(job, [&] { return transform<S>(job, *args); }); });
}

dpo_status random_features_vjp(dpo_job* job, const dpo_random_features_vjp_args* args) {
  return dispatch_storage(args->x.dtype, [&]<class S>() { return guarded(job, [&] { return pull_back<S>(job, *args); }); });
}

}  // namespace dpo::cpu
