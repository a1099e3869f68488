#include "native/cuda/gram_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "native/cuda/device_functions.h"
#include "native/cuda/logit_check.h"
#include "native/cuda/matrix_product.h"
#include "native/cuda/reduce.h"
#include "native/cuda/grid.h"
#include "native/cuda/row_norm.h"
#include "native/cuda/spectral_features.h"

namespace dpo::cuda {
namespace {

constexpr std::int64_t kElementsOfChunk = std::int64_t{1} << 20, kMostRowsOfChunk = 4096;
constexpr std::int64_t kRowsOfSum = 256;  // rows that one thread adds up

/// The longest squared length: sums of several must stay within the range of T.
template <class T>
constexpr T longest = std::numeric_limits<T>::max() / 16;

std::int64_t blocks_of(std::int64_t extent, std::int64_t block) { return (extent + block - 1) / block; }

/// A thread a column and part of the rows.
Grid thread_a_column(std::int64_t columns, std::int64_t parts = 1) {
  const unsigned threads = block_threads(columns);
  return {{static_cast<unsigned>(blocks_of(columns, threads)), static_cast<unsigned>(parts), 1}, threads};
}
__device__ __forceinline__ std::int64_t column_of_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

/// What rows are divided by to become what kernels see, their squared lengths then, and the first row that they cannot see.
template <class S>
__global__ void measure_rows(const S* rows, std::int64_t depth, bool normalize, double* scales, double* squares,
                             unsigned long long* bad) {
  const std::int64_t r = blockIdx.x;
  const S* row = rows + r * depth;
  const Magnitude magnitude = magnitude_of_row(row, depth);
  const double scale = normalize ? inverse_norm_of_row(row, depth, magnitude) : 1;
  if (threadIdx.x != 0) return;
  scales[r] = scale;
  squares[r] = normalize ? 1 : magnitude.squares;
  const bool good = normalize ? std::isfinite(scale) 
                              : magnitude.squares <= static_cast<double>(longest<compute_t<S>>);
  if (!good) atomicMin(bad, static_cast<unsigned long long>(r));
}

template <class S>
__global__ void load_rows(const S* rows, std::int64_t depth, const double* scales, double* seen) {
  const std::int64_t r = blockIdx.x;
  const double scale = scales[r];
  double* to = seen + r * depth;
  for_each_of_row(rows + r * depth, depth, [=](std::int64_t i, double x) { to[i] = x * scale; });
}

template <class S>
__global__ void sum_rows(const S* rows, std::int64_t count, std::int64_t depth, const double* scales, double* partial) {
  const std::int64_t i = column_of_thread(), begin = blockIdx.y * kRowsOfSum, end = std::min(count, begin + kRowsOfSum);
  if (i >= depth) return;
  double sum = 0;
  for (std::int64_t r = begin; r < end; ++r) sum += static_cast<double>(to_compute(rows[r * depth + i])) * scales[r];
  partial[blockIdx.y * depth + i] = sum;
}

__global__ void add_parts(const double* partial, std::int64_t parts, std::int64_t depth, double* sums) {
  const std::int64_t i = column_of_thread();
  if (i >= depth) return;
  for (std::int64_t part = 0; part < parts; ++part) sums[i] += partial[part * depth + i];
}

__global__ void take_mean_off(const double* seen, const double* mean, std::int64_t rows, std::int64_t depth, double* centred) {
  for_each_element(rows, depth, [&](std::int64_t, std::int64_t i, std::int64_t at) { centred[at] = seen[at] - mean[i]; });
}

__global__ void scale_columns(const double* from, const double* scales, std::int64_t rows, std::int64_t columns, double* to) {
  for_each_element(rows, columns, [&](std::int64_t, std::int64_t i, std::int64_t at) { to[at] = from[at] * scales[i]; });
}

__global__ void make_fourier_features(const double* phases, std::int64_t rows, std::int64_t count, double* to) {
  const double scale = 1 / std::sqrt(static_cast<double>(count));
  for_each_element(rows, count, [&](std::int64_t r, std::int64_t k, std::int64_t at) {
    to[r * 2 * count + k] = scale * DeviceFunctions<double>::cos(phases[at]);
    to[r * 2 * count + count + k] = scale * DeviceFunctions<double>::sin(phases[at]);
  });
}

__global__ void scale_by_roots(const double* from, const double* lambdas, std::int64_t rows, std::int64_t rank, double* to) {
  for_each_element(rows, rank, [&](std::int64_t, std::int64_t k, std::int64_t at) { to[at] = from[at] * std::sqrt(lambdas[k]); });
}

template <class T>
__global__ void round_numbers(const double* from, std::int64_t count, T* to) {
  for_each_index(count, [&](std::int64_t i) { to[i] = static_cast<T>(from[i]); });
}

/// What a mapped row is measured by.
struct RowMeasure {
  double norm = 0, along_mean = 0, mean_square = 0;
  __device__ void merge(const RowMeasure& other) {
    norm += other.norm;
    along_mean += other.along_mean;
    mean_square += other.mean_square;
  }
};

/// Rounds mapped rows, of which `to` starts at `begin`, and takes the numbers per row from what was rounded. squares, mean: of the
/// rows themselves, or null.
template <class T>
__global__ void round_rows(const double* mapped, std::int64_t begin, const double* squares, const double* mean, MappedRows<T> to,
                           unsigned long long* too_long) {
  const std::int64_t row = begin + blockIdx.x;
  const double* from = mapped + blockIdx.x * to.depth;
  RowMeasure measure;
  for (std::int64_t i = threadIdx.x; i < to.depth; i += blockDim.x) {
    const T rounded = static_cast<T>(from[i]);
    const auto value = static_cast<double>(rounded);
    to.values[row * to.depth + i] = rounded;
    measure.norm += value * value;
    if (!mean) continue;
    measure.along_mean += value * mean[i];
    measure.mean_square += mean[i] * mean[i];
  }
  measure = merge_block(measure);
  if (threadIdx.x != 0) return;
  to.norms[row] = static_cast<T>(measure.norm);
  to.offsets[row] = static_cast<T>(measure.along_mean + measure.mean_square / 2);
  to.squares[row] = static_cast<T>(squares ? squares[blockIdx.x] : measure.norm);
  if (!(to.norms[row] <= longest<T>)) atomicMin(too_long, static_cast<unsigned long long>(row));
}

/// grads = the gradients of mapped rows, complete.
template <class T>
__global__ void complete_gradients(MappedRows<T> from, std::int64_t begin, std::int64_t rows, double* grads) {
  for_each_element(rows, from.depth, [&](std::int64_t r, std::int64_t, std::int64_t at) {
    const std::int64_t there = begin * from.depth + at;
    grads[at] = static_cast<double>(from.grads[there]) + from.self[begin + r] * static_cast<double>(from.values[there]);
  });
}

/// The same of the rows themselves, with what goes through their mean; added.
template <class T>
__global__ void add_row_gradients(MappedRows<T> from, const double* mean, std::int64_t begin, std::int64_t rows, double* grads) {
  for_each_element(rows, from.depth, [&](std::int64_t r, std::int64_t i, std::int64_t at) {
    const std::int64_t there = begin * from.depth + at;
    grads[at] += static_cast<double>(from.grads[there]) + from.self[begin + r] * static_cast<double>(from.values[there]) +
                 (mean ? from.mean[begin + r] * mean[i] : 0);
  });
}

/// to += from·diagonal, and sums += Σ from·rows.
__global__ void pull_back_diagonal(const double* from, const double* centred, const double* diagonal, std::int64_t rows,
                                   std::int64_t depth, double* to, double* sums) {
  const std::int64_t i = column_of_thread();
  if (i >= depth) return;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t at = r * depth + i;
    sums[i] += from[at] * centred[at];
    to[at] += from[at] * diagonal[i];
  }
}

template <class T>
__global__ void pull_back_phases(const double* grads, const T* features, std::int64_t rows, std::int64_t count, double* phases) {
  for_each_element(rows, count, [&](std::int64_t r, std::int64_t k, std::int64_t at) {
    const std::int64_t cosine = r * 2 * count + k, sine = cosine + count;
    phases[at] = grads[sine] * static_cast<double>(features[cosine]) - grads[cosine] * static_cast<double>(features[sine]);
  });
}

/// Mapped rows hold √λ·φ.
__global__ void pull_back_roots(const double* grads, const double* features, const double* lambdas, std::int64_t rows,
                                std::int64_t rank, double* feature_grads, double* sums) {
  const std::int64_t k = column_of_thread();
  if (k >= rank) return;
  const double root = std::sqrt(lambdas[k]);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t at = r * rank + k;
    feature_grads[at] = grads[at] * root;
    sums[k] += grads[at] * features[at] / (2 * root);
  }
}

/// Through normalisation, which takes the part along the row itself out.
template <class S>
__global__ void store_gradients(const double* grads, const double* seen, const double* scales, bool normalize, std::int64_t depth,
                                S* to) {
  const std::int64_t r = blockIdx.x;
  const double *grad = grads + r * depth, *row = seen + r * depth;
  Sum sum;
  for (std::int64_t i = threadIdx.x; normalize && i < depth; i += blockDim.x) sum.value += grad[i] * row[i];
  const double along = merge_block_for_all(sum).value, scale = scales[r];
  const auto made = [=](std::int64_t i) { return to_storage<S>(static_cast<compute_t<S>>((grad[i] - along * row[i]) * scale)); };
  constexpr std::int64_t kPack = Pack<S>::size;
  const std::int64_t whole = depth / kPack * kPack;
  const bool aligned = holds_packs(to + r * depth);
  for (std::int64_t i = threadIdx.x * kPack; i < whole; i += blockDim.x * kPack) {
    Pack<S> pack;
#pragma unroll
    for (int k = 0; k < kPack; ++k) pack.values[k] = made(i + k);
    store_pack(to + r * depth + i, pack, aligned);
  }
  for (std::int64_t i = whole + threadIdx.x; i < depth; i += blockDim.x) to[r * depth + i] = made(i);
}

/// A block a row.
__global__ void add_along(SeenRows of, const double* along, double* row_grads) {
  const std::int64_t begin = blockIdx.x * of.depth;
  for (std::int64_t i = threadIdx.x; i < of.depth; i += blockDim.x) row_grads[begin + i] += along[blockIdx.x] * of.rows[begin + i];
}

}  // namespace

/// Some rows in double, as kernels see them, and working memory.
template <class S>
struct GramRows<S>::Chunk {
  std::int64_t begin, rows;
  double* seen;     // [rows, depth]
  double* centred;  // [rows, depth]: without the mean
  double* grads;    // [rows, depth] in the rows as kernels see them
  double* mapped;   // [rows, widest map]
  double* mapped_grads;
  SpectralScratch spectral;
  double* along;  // [rows]: gradient along the row itself
};

template <class S>
GramRows<S>::GramRows(Call& call, const GramPlan& plan, const KernelMembers& members, const char* name, const dpo_tensor& rows)
    : call_(call),
      plan_(plan),
      members_(members),
      name_(name),
      rows_(call.input<S>(rows)),
      count_(rows.shape[0]),
      depth_(rows.shape[1]),
      scales_(call.allocate<double>(count_)),
      squares_(call.allocate<double>(count_)) {}

template <class S>
bool GramRows<S>::measure() {
  unsigned long long* bad = first_bad_row(call_);
  call_.launch(measure_rows<S>, block_rows<Magnitude>(count_, depth_), rows_, depth_, members_.normalizes(), scales_, squares_, bad);
  const unsigned long long row = call_.read(bad);
  return call_.ok() && (row == kNoRow || fail_at(static_cast<std::int64_t>(row)));
}

template <class S>
bool GramRows<S>::fail_at(std::int64_t row) const {
  const std::vector<S> values = call_.read(rows_ + row * depth_, depth_);
  const auto first = static_cast<long long>(row * depth_);
  bool zero = true;
  for (std::int64_t i = 0; i < depth_; ++i) {
    const T value = to_compute(values[static_cast<std::size_t>(i)]);
    if (!std::isfinite(value)) {
      call_.fail_at(first + i, DPO_ERR_NONFINITE, "%s: element %lld is not finite", name_, first + i);
      return false;
    }
    zero = zero && value == 0;
  }
  if (zero) {
    call_.fail_at(first, DPO_ERR_RANGE, "%s: row %lld is zero and cannot be normalised", name_, static_cast<long long>(row));
  } else {
    call_.fail_at(first, DPO_ERR_RANGE, "%s: row %lld is so long that distances overflow", name_, static_cast<long long>(row));
  }
  return false;
}

template <class S>
void GramRows<S>::add_sums(double* sums) const {
  const std::int64_t parts = blocks_of(count_, kRowsOfSum);
  auto* partial = call_.allocate<double>(parts * depth_);
  call_.launch(sum_rows<S>, thread_a_column(depth_, parts), rows_, count_, depth_, scales_, partial);
  call_.launch(add_parts, thread_a_column(depth_), partial, parts, depth_, sums);
}

template <class S>
std::int64_t GramRows<S>::rows_per_chunk() const {
  std::int64_t widest = depth_;
  for (std::int32_t m = 0; m < members_.count(); ++m)
    widest = std::max({widest, members_[m].width, members_[m].plain() ? depth_ : plan_.width(m)});
  return std::min(count_, std::clamp<std::int64_t>(kElementsOfChunk / widest, 1, kMostRowsOfChunk));
}

template <class S>
typename GramRows<S>::Chunk GramRows<S>::allocate_chunk() const {
  std::int64_t widest = depth_, landmarks = 0, rank = 0;
  for (std::int32_t m = 0; m < members_.count(); ++m) {
    const KernelMember& member = members_[m];
    if (!member.plain()) widest = std::max(widest, plan_.width(m));
    if (member.map != KernelMap::landmarks) continue;
    landmarks = std::max(landmarks, member.width);
    rank = std::max(rank, member.rank());
  }
  const std::int64_t rows = rows_per_chunk();
  const auto take = [&](std::int64_t columns) { return call_.allocate<double>(rows * columns); };
  Chunk chunk{0, 0, take(depth_), nullptr, take(depth_), take(widest), take(widest), {}, nullptr};
  chunk.centred = mean_ ? take(depth_) : chunk.seen;
  if (landmarks == 0) return chunk;
  chunk.spectral = {take(landmarks), take(landmarks), take(landmarks), take(rank), take(1), take(rank), take(landmarks)};
  chunk.along = take(1);
  return chunk;
}

template <class S>
void GramRows<S>::load(Chunk& chunk, std::int64_t begin) const {
  chunk.begin = begin;
  chunk.rows = std::min(rows_per_chunk(), count_ - begin);
  call_.launch(load_rows<S>, block_rows<Sum>(chunk.rows, depth_), rows_ + begin * depth_, depth_, scales_ + begin, chunk.seen);
  if (mean_) call_.launch(take_mean_off, passes(chunk.rows * depth_), chunk.seen, mean_, chunk.rows, depth_, chunk.centred);
}

template <class S>
MappedRows<typename GramRows<S>::T> GramRows<S>::allocate_mapped(std::int32_t map, bool gradient) const {
  MappedRows<T> to{};
  to.count = count_;
  to.depth = plan_.width(map);
  const auto size = static_cast<std::size_t>(count_ * to.depth);
  to.values = call_.allocate<T>(count_ * to.depth);
  to.norms = call_.allocate<T>(count_);
  to.offsets = call_.allocate<T>(count_);
  to.squares = call_.allocate<T>(count_);
  to.log_scales = call_.allocate<T>(count_);
  call_.fill(to.log_scales, 0, static_cast<std::size_t>(count_) * sizeof(T));
  if (!gradient) return to;
  to.grads = call_.allocate<T>(count_ * to.depth);
  to.self = call_.allocate<double>(count_);
  to.mean = call_.allocate<double>(count_);
  call_.fill(to.grads, 0, size * sizeof(T));
  call_.fill(to.self, 0, static_cast<std::size_t>(count_) * sizeof(double));
  call_.fill(to.mean, 0, static_cast<std::size_t>(count_) * sizeof(double));
  return to;
}

template <class S>
bool GramRows<S>::map(const double* mean, bool gradient) {
  mean_ = mean;
  for (const std::int32_t of : plan_.maps) mapped_.push_back(allocate_mapped(of, gradient));
  std::vector<unsigned long long*> too_long;
  for (std::size_t place = 0; place < mapped_.size(); ++place) too_long.push_back(first_bad_row(call_));
  Chunk chunk = allocate_chunk();
  for (std::int64_t begin = 0; begin < count_ && call_.ok(); begin += rows_per_chunk()) {
    load(chunk, begin);
    for (std::size_t place = 0; place < mapped_.size(); ++place) map_chunk(chunk, place, too_long[place]);
  }
  for (const unsigned long long* found : too_long) {
    const unsigned long long row = call_.read(found);
    if (!call_.ok()) return false;
    if (row == kNoRow) continue;
    call_.fail_at(static_cast<std::int64_t>(row) * depth_, DPO_ERR_RANGE,
                  "%s: what the kernel's factor makes of row %lld is so long that distances overflow", name_,
                  static_cast<long long>(row));
    return false;
  }
  return call_.ok();
}

template <class S>
void GramRows<S>::make_phases(const Chunk& chunk, const KernelMember& member) const {
  multiply<double>(call_, {chunk.rows, member.width, depth_}, {chunk.seen, depth_}, {member.matrix, depth_, true},
                   chunk.mapped_grads, member.width, Accumulate::no);
}

template <class S>
void GramRows<S>::map_chunk(const Chunk& chunk, std::size_t place, unsigned long long* too_long) const {
  const MappedRows<T>& to = mapped_[place];
  const std::int32_t map = plan_.maps[place];
  const Grid grid = block_rows<RowMeasure>(chunk.rows, to.depth);
  if (map == kNoMap) {
    call_.launch(round_rows<T>, grid, chunk.centred, chunk.begin, squares_ + chunk.begin, mean_, to, too_long);
    return;
  }
  const KernelMember& member = members_[map];
  switch (member.map) {
    case KernelMap::diagonal:
      call_.launch(scale_columns, passes(chunk.rows * depth_), chunk.centred, member.matrix, chunk.rows, depth_, chunk.mapped);
      break;
    case KernelMap::factor:
      multiply<double>(call_, {chunk.rows, member.width, depth_}, {chunk.centred, depth_}, {member.matrix, member.width},
                       chunk.mapped, member.width, Accumulate::no);
      break;
    case KernelMap::frequencies:
      make_phases(chunk, member);
      call_.launch(make_fourier_features, passes(chunk.rows * member.width), chunk.mapped_grads, chunk.rows, member.width,
                   chunk.mapped);
      break;
    default:
      spectral_features(call_, member, {chunk.seen, squares_ + chunk.begin, chunk.rows, depth_}, chunk.spectral);
      call_.launch(scale_by_roots, passes(chunk.rows * to.depth), chunk.spectral.features, member.formula.parameters, chunk.rows,
                   to.depth, chunk.mapped);
      call_.launch(round_numbers<T>, passes(chunk.rows), chunk.spectral.log_scales, chunk.rows, to.log_scales + chunk.begin);
  }
  call_.launch(round_rows<T>, grid, chunk.mapped, chunk.begin, nullptr, nullptr, to, too_long);
}

template <class S>
void GramRows<S>::pull_back(const dpo_tensor& grads, double* sums) const {
  S* to = call_.output<S>(grads);
  Chunk chunk = allocate_chunk();
  for (std::int64_t begin = 0; begin < count_ && call_.ok(); begin += rows_per_chunk()) {
    load(chunk, begin);
    call_.fill(chunk.grads, 0, static_cast<std::size_t>(chunk.rows * depth_) * sizeof(double));
    for (std::size_t place = 0; place < mapped_.size(); ++place) pull_back_chunk(chunk, place, sums);
    call_.launch(store_gradients<S>, block_rows<Sum>(chunk.rows, depth_), chunk.grads, chunk.seen, scales_ + begin,
                 members_.normalizes(), depth_, to + begin * depth_);
  }
}

template <class S>
void GramRows<S>::pull_back_chunk(const Chunk& chunk, std::size_t place, double* sums) const {
  const MappedRows<T>& from = mapped_[place];
  const std::int32_t map = plan_.maps[place];
  const std::int64_t rows = chunk.rows, width = from.depth;
  if (map == kNoMap) {
    call_.launch(add_row_gradients<T>, passes(rows * width), from, mean_, chunk.begin, rows, chunk.grads);
    return;
  }
  const KernelMember& member = members_[map];
  const auto m = static_cast<std::size_t>(map);
  double* grads = chunk.mapped_grads;
  double* factor_sums = sums + members_.places().factors[m];
  call_.launch(complete_gradients<T>, passes(rows * width), from, chunk.begin, rows, grads);
  switch (member.map) {
    case KernelMap::diagonal:
      call_.launch(pull_back_diagonal, thread_a_column(depth_), grads, chunk.centred, member.matrix, rows, depth_, chunk.grads,
                   factor_sums);
      break;
    case KernelMap::factor:
      multiply<double>(call_, {rows, depth_, width}, {grads, width}, {member.matrix, width, true}, chunk.grads, depth_,
                       Accumulate::yes);
      multiply<double>(call_, {depth_, width, rows}, {chunk.centred, depth_, true}, {grads, width}, factor_sums, width,
                       Accumulate::yes);
      break;
    case KernelMap::frequencies:
      call_.launch(pull_back_phases<T>, passes(rows * member.width), grads, from.values + chunk.begin * width, rows, member.width,
                   chunk.mapped);
      multiply<double>(call_, {rows, depth_, member.width}, {chunk.mapped, member.width}, {member.matrix, depth_}, chunk.grads,
                       depth_, Accumulate::yes);
      break;
    default: {
      const SeenRows seen{chunk.seen, squares_ + chunk.begin, rows, depth_};
      spectral_features(call_, member, seen, chunk.spectral);
      call_.launch(pull_back_roots, thread_a_column(width), grads, chunk.spectral.features, member.formula.parameters, rows, width,
                   chunk.spectral.grads, sums + members_.places().parameters[m]);
      call_.fill(chunk.along, 0, static_cast<std::size_t>(rows) * sizeof(double));
      spectral_pull_back(call_, member, seen, chunk.spectral, Accumulate::yes, chunk.grads, chunk.along);
      if (!members_.normalizes()) call_.launch(add_along, block_rows<Sum>(rows, depth_), seen, chunk.along, chunk.grads);
    }
  }
}

template class GramRows<float>;
template class GramRows<double>;
template class GramRows<__half>;
template class GramRows<__nv_bfloat16>;

}  // namespace dpo::cuda
