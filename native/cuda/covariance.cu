#include "native/core/covariance.h"

#include "native/core/private_covariance.h"
#include "native/cuda/alarm.h"
#include "native/cuda/dense_solvers.h"
#include "native/cuda/magnitude.h"
#include "native/cuda/matrix_product.h"
#include "native/cuda/operations.h"
#include "native/cuda/row_chunks.h"
#include "native/cuda/row_packs.h"
#include "native/cuda/scalars.h"
#include "native/math/gaussian_mechanism.h"
#include "native/math/shrinkage.h"

namespace dpo::cuda {
namespace {

constexpr unsigned kColumnThreads = 256, kColumnWarps = kColumnThreads / kWarpSize;

/// parts[y, column]: sums over the rows y·rows_each … of 32 columns, a lane a column.
template <class S>
__global__ void sum_column_parts(const S* x, std::int64_t rows, std::int64_t depth, std::int64_t rows_each, double* parts) {
  auto* sums = static_cast<double*>(shared_memory());
  const unsigned lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kWarpSize + lane, begin = blockIdx.y * rows_each;
  const std::int64_t end = begin + rows_each < rows ? begin + rows_each : rows;
  double sum = 0;
  for (std::int64_t r = begin + warp; column < depth && r < end; r += kColumnWarps)
    sum += static_cast<double>(to_compute(x[r * depth + column]));
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (warp != 0 || column >= depth) return;
  for (unsigned other = 1; other < kColumnWarps; ++other) sum += sums[other * kWarpSize + lane];
  parts[blockIdx.y * depth + column] = sum;
}

__global__ void average_parts(const double* parts, std::int64_t count, std::int64_t rows, std::int64_t depth, double* mean) {
  for_each_index(depth, [&](std::int64_t column) {
    double sum = 0;
    for (std::int64_t part = 0; part < count; ++part) sum += parts[part * depth + column];
    mean[column] = sum / static_cast<double>(rows);
  });
}

template <class S>
void find_mean(Call& call, const S* x, std::int64_t rows, std::int64_t depth, double* mean) {
  constexpr std::int64_t kLeastRows = 1024, kMostParts = 1024;
  const std::int64_t rows_each = std::max(kLeastRows, (rows + kMostParts - 1) / kMostParts),
                     count = (rows + rows_each - 1) / rows_each;
  auto* parts = call.allocate<double>(count * depth);
  const dim3 blocks{static_cast<unsigned>((depth + kWarpSize - 1) / kWarpSize), static_cast<unsigned>(count), 1};
  call.launch(sum_column_parts<S>, {blocks, kColumnThreads, kColumnThreads * sizeof(double)}, x, rows, depth, rows_each, parts);
  call.launch(average_parts, grid_of(depth), parts, count, rows, depth, mean);
}

/// A block a row: what the estimators see of it, and its squared length.
template <class S>
__global__ void center_rows(const S* x, std::int64_t depth, const double* mean, double* to, double* squares) {
  const std::int64_t r = blockIdx.x;
  Sum square;
  for_each_of_row(x + r * depth, depth, [&](std::int64_t i, double value) {
    const double centered = value - mean[i];
    to[r * depth + i] = centered;
    square.value += centered * centered;
  });
  square = merge_block(square);
  if (threadIdx.x == 0) squares[r] = square.value;
}

/// A block a row: cuts it to the length `clip`.
__global__ void clip_rows(double* rows, std::int64_t depth, double clip) {
  double* row = rows + blockIdx.x * depth;
  Magnitude whole, shares;
  for (std::int64_t i = threadIdx.x; i < depth; i += blockDim.x) whole.add(row[i]);
  const double largest = merge_block_for_all(whole).largest;
  for (std::int64_t i = threadIdx.x; i < depth; i += blockDim.x) shares.add(row[i] / largest);
  const double factor = clipping_factor(clip, largest, merge_block_for_all(shares).squares);
  if (factor >= 1) return;
  for (std::int64_t i = threadIdx.x; i < depth; i += blockDim.x) row[i] *= factor;
}

/// Σ x·xᵀ and ‖x‖² of all rows.
struct RowSums {
  double *products, *squares;  // [D, D], [N]
};

template <class S>
RowSums sum_rows(Call& call, const dpo_covariance_args& args, const S* x, const double* mean) {
  const std::int64_t rows = args.x.shape[0], depth = args.x.shape[1];
  const auto chunks = RowChunks::of(rows, depth);
  auto* chunk = call.allocate<double>(chunks.at_once * depth);
  const RowSums sums{call.allocate<double>(depth * depth), call.allocate<double>(rows)};
  chunks.for_each(call, [&](std::int64_t begin, std::int64_t count) {
    const Grid grid = block_rows<Magnitude>(count, depth);
    call.launch(center_rows<S>, grid, x + begin * depth, depth, mean, chunk, sums.squares + begin);
    if (args.method == DPO_COVARIANCE_PRIVATE) call.launch(clip_rows, grid, chunk, depth, args.clip);
    multiply<double>(call, {depth, depth, count}, {chunk, depth, true}, {chunk, depth}, sums.products, depth,
                     begin == 0 ? Accumulate::no : Accumulate::yes);
  });
  return sums;
}

/// Elements i, j ≤ i of symmetric matrices.
struct Lower {
  const double* a;
  std::int64_t n;
  double factor;
  __device__ double operator()(std::int64_t i, std::int64_t j) const { return a[i * n + j] * factor; }
};
struct NoisyLower {
  const double* a;
  std::int64_t n;
  double factor;
  SymmetricNoise noise;
  __device__ double operator()(std::int64_t i, std::int64_t j) const { return (a[i * n + j] + noise.at(i, j)) * factor; }
};

template <class At>
__global__ void fill_symmetric(At at, std::int64_t n, double* to) {
  for_each_element(n, n, [&](std::int64_t i, std::int64_t j, std::int64_t index) { to[index] = j <= i ? at(i, j) : at(j, i); });
}

struct MomentSums {
  double trace = 0, squares = 0;
  __device__ void merge(const MomentSums& other) {
    trace += other.trace;
    squares += other.squares;
  }
};

__global__ void find_moments(const double* a, std::int64_t n, MomentSums* parts) {
  MomentSums sums;
  for_each_element(n, n, [&](std::int64_t i, std::int64_t j, std::int64_t index) {
    sums.merge({i == j ? a[index] : 0, a[index] * a[index]});
  });
  sums = merge_block(sums);
  if (threadIdx.x == 0) parts[blockIdx.x] = sums;
}

math::Moments moments_of(Call& call, const double* a, std::int64_t n) {
  Grid grid = passes(n * n);
  grid.shared_bytes = merge_block_bytes<MomentSums>(grid.threads);
  auto* parts = call.allocate<MomentSums>(grid.blocks.x);
  call.launch(find_moments, grid, a, n, parts);
  const MomentSums sums = call.read(merge_all(call, parts, grid.blocks.x));
  return {sums.trace, sums.squares};
}

__global__ void shrink(double* a, std::int64_t n, double share, double mean_variance) {
  for_each_element(n, n, [&](std::int64_t i, std::int64_t j, std::int64_t index) {
    a[index] = math::shrunk(a[index], i == j, share, mean_variance);
  });
}

/// Shrinks an estimate of `rows` rows; the share of the mean variance in it.
double shrink_by_method(Call& call, const dpo_covariance_args& args, const RowSums& sums, double* estimate) {
  const std::int64_t rows = args.x.shape[0], n = args.x.shape[1];
  if (args.method == DPO_COVARIANCE_SAMPLE) return 0;
  const math::Moments moments = moments_of(call, estimate, n);
  const auto count = static_cast<double>(rows), depth = static_cast<double>(n);
  double share = 0;
  if (args.method == DPO_COVARIANCE_OAS) {
    share = math::oas_shrinkage(moments, count, depth);
  } else {
    const double fourth = call.read(measure(call, sums.squares, rows, 1, Part::all)).squares;
    share = math::ledoit_wolf_shrinkage(moments, fourth, count, depth);
  }
  if (share != 0) call.launch(shrink, passes(n * n), estimate, n, share, moments.trace / depth);
  return share;
}

/// Rows of vectors times their eigenvalues, those below 0 as 0.
__global__ void weigh_vectors(const double* vectors, const double* values, std::int64_t n, const Magnitude* magnitude,
                              double* to) {
  const int exponent = exponent_of(*magnitude);
  for_each_element(n, n, [&](std::int64_t k, std::int64_t, std::int64_t index) {
    to[index] = values[k] > 0 ? std::ldexp(values[k], exponent) * vectors[index] : 0;
  });
}

/// The nearest positive semidefinite matrix: eigenvalues below 0 become 0.
void clip_eigenvalues(Call& call, std::int64_t n, double* a) {
  auto *vectors = call.allocate<double>(n * n), *weighed = call.allocate<double>(n * n), *product = call.allocate<double>(n * n);
  auto* values = call.allocate<double>(n);
  const Magnitude* magnitude = measure(call, a, n, n, Part::lower);
  call.launch(scale_lower<double>, passes(n * n), a, n, magnitude, vectors);
  if (!decompose(call, n, vectors, values)) {
    call.fail(DPO_ERR_RANGE, "covariance: its eigenvalues were not found: they do not converge, or memory ran out");
    return;
  }
  if (call.read(values) >= 0) return;
  call.launch(weigh_vectors, passes(n * n), vectors, values, n, magnitude, weighed);
  multiply<double>(call, {n, n, n}, {vectors, n, true}, {weighed, n}, product, n, Accumulate::no);
  call.launch(fill_symmetric<Lower>, passes(n * n), Lower{product, n, 1}, n, a);
}

__global__ void find_overflow(const double* a, std::int64_t count, Alarm* overflow) {
  bool fit = true;
  for_each_index(count, [&](std::int64_t i) { fit = fit && fits<double>(a[i]); });
  if (!fit) atomicMax(overflow, 1);
}

template <class S>
dpo_status estimate(Call& call, const dpo_covariance_args& args) {
  const std::int64_t rows = args.x.shape[0], n = args.x.shape[1];
  const bool is_private = args.method == DPO_COVARIANCE_PRIVATE;
  const S* x = call.input<S>(args.x);
  auto *covariance = call.output<double>(args.covariance), *mean = call.output<double>(args.mean);
  if (args.assume_centered || is_private) {
    call.fill(mean, 0, bytes_of(args.mean));
  } else {
    find_mean(call, x, rows, n, mean);
  }
  const RowSums sums = sum_rows(call, args, x, mean);
  double share = 0;
  if (is_private) {
    const NoisyLower noisy{sums.products, n, 1 / args.count, SymmetricNoise::of(args)};
    call.launch(fill_symmetric<NoisyLower>, grid_of(n * n), noisy, n, covariance);
    clip_eigenvalues(call, n, covariance);
  } else {
    call.launch(fill_symmetric<Lower>, passes(n * n), Lower{sums.products, n, 1 / static_cast<double>(rows)}, n, covariance);
    share = shrink_by_method(call, args, sums, covariance);
  }
  Alarm* overflow = new_alarm(call);
  call.launch(find_overflow, passes(n * n), covariance, n * n, overflow);
  if (call.read(overflow) != 0) return call.fail(DPO_ERR_RANGE, "covariance: overflows");
  call.launch(write_number<double>, {{1, 1, 1}, 1}, call.output<double>(args.shrinkage), share);
  return call.finish();
}

}  // namespace

dpo_status covariance(dpo_job* job, const dpo_covariance_args* args) {
  return run(job,
             [&](Call& call) { return dispatch_storage(args->x.dtype, [&]<class S>() { return estimate<S>(call, *args); }); });
}

dpo_status gaussian_noise_scale(dpo_job* job, const dpo_gaussian_noise_scale_args* args) {
  return run(job, [&](Call& call) {
    const double scale = args->sensitivity * math::gaussian_noise_scale(args->epsilon, args->delta);
    call.launch(write_number<double>, {{1, 1, 1}, 1}, call.output<double>(args->noise_scale), scale);
    return call.finish();
  });
}

}  // namespace dpo::cuda
