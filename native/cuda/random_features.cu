#include "native/core/random_features.h"

#include "native/cuda/alarm.h"
#include "native/cuda/magnitude.h"
#include "native/cuda/matrix_product.h"
#include "native/cuda/operations.h"
#include "native/cuda/row_chunks.h"
#include "native/cuda/row_norm.h"
#include "native/cuda/scalars.h"
#include "native/math/fourier_features.h"

namespace dpo::cuda {
namespace {

/// Why a row ends the call; of the first row that does, the number is row·2 + this.
enum class RowFailure : Alarm { zero, overflow };

/// Rows as they enter the phases, in double, each times its scale.
struct SeenRows {
  double *rows, *scales;  // [n, D], [n]
};

/// A block a row. Zero rows have no direction; phases past the range of double have no cosine.
template <class S>
__global__ void see_rows(const S* x, std::int64_t begin, std::int64_t count, std::int64_t depth, bool normalize,
                         const Magnitude* frequencies, SeenRows to, Alarm* first_failure) {
  for (std::int64_t r = blockIdx.x; r < count; r += gridDim.x) {
    const S* row = x + (begin + r) * depth;
    const Magnitude magnitude = magnitude_of_row(row, depth);
    const double largest = normalize ? 1 : magnitude.largest;
    const bool zero = normalize && magnitude.largest == 0;
    const bool overflows = !fits<double>(largest * frequencies->largest * static_cast<double>(depth));
    if (threadIdx.x == 0 && (zero || overflows))
      atomicMin(first_failure,
                static_cast<Alarm>(begin + r) * 2 + static_cast<Alarm>(zero ? RowFailure::zero : RowFailure::overflow));
    const double scale = normalize ? inverse_norm_of_row(row, depth, magnitude) : 1;
    for_each_of_row(row, depth, [&](std::int64_t i, double value) { to.rows[r * depth + i] = value * scale; });
    if (threadIdx.x == 0) to.scales[r] = scale;
  }
}

template <class T>
__global__ void write_features(const double* phases, std::int64_t rows, std::int64_t count, math::FourierFeatures fourier,
                               T* features) {
  for_each_element(rows, count, [&](std::int64_t r, std::int64_t k, std::int64_t index) {
    const math::SinCos of_phase = fourier.at(math::sin_cos(phases[index]));
    T* row = features + r * 2 * count;
    row[k] = static_cast<T>(of_phase.cos);
    row[count + k] = static_cast<T>(of_phase.sin);
  });
}

/// Phases of the rows from `begin` on become the gradients in them.
__global__ void pull_back_phases(Scalars upstream, std::int64_t begin, std::int64_t rows, std::int64_t count,
                                 math::FourierFeatures fourier, double* phases) {
  for_each_element(rows, count, [&](std::int64_t r, std::int64_t k, std::int64_t index) {
    const std::int64_t first = (begin + r) * 2 * count + k;
    phases[index] = fourier.slope(math::sin_cos(phases[index]), upstream.at(first), upstream.at(first + count));
  });
}

/// A block a row. Where rows are normalised, a gradient along the row goes nowhere.
template <class S>
__global__ void write_row_gradients(SeenRows seen, const double* grads, std::int64_t count, std::int64_t depth, bool normalize,
                                    S* to) {
  for (std::int64_t r = blockIdx.x; r < count; r += gridDim.x) {
    const double *row = seen.rows + r * depth, *grad = grads + r * depth;
    Sum along;
    for (std::int64_t i = threadIdx.x; normalize && i < depth; i += blockDim.x) along.value += row[i] * grad[i];
    if (normalize) along = merge_block_for_all(along);
    for (std::int64_t i = threadIdx.x; i < depth; i += blockDim.x) {
      const double value = (grad[i] - along.value * row[i]) * seen.scales[r];
      to[r * depth + i] = to_storage<S>(static_cast<compute_t<S>>(value));
    }
  }
}

/// The rows and frequencies of a call, on the device.
template <class S>
class Phases {
 public:
  Phases(Call& call, const dpo_tensor& x, const dpo_tensor& frequencies, bool normalize)
      : call_(call),
        depth_(x.shape[1]),
        count_(frequencies.shape[0]),
        normalize_(normalize),
        chunks_(RowChunks::of(x.shape[0], std::max(depth_, count_))),
        x_(call.input<S>(x)),
        frequencies_(call.input<double>(frequencies)),
        magnitude_(measure(call, frequencies_, count_, depth_, Part::all)),
        seen_{call.allocate<double>(chunks_.at_once * depth_), call.allocate<double>(chunks_.at_once)},
        phases_(call.allocate<double>(chunks_.at_once * count_)),
        failure_(call.allocate<Alarm>(1)) {
    call.fill(failure_, 0xff, sizeof *failure_);
  }

  std::int64_t count() const { return count_; }
  std::int64_t depth() const { return depth_; }
  bool normalizes() const { return normalize_; }
  const RowChunks& chunks() const { return chunks_; }
  const double* frequencies() const { return frequencies_; }
  const SeenRows& seen() const { return seen_; }
  math::FourierFeatures fourier() const { return math::FourierFeatures(static_cast<double>(count_)); }

  /// Calls body(first row, rows, phases [rows, R]).
  template <class Body>
  void for_each_chunk(const Body& body) {
    chunks_.for_each(call_, [&](std::int64_t begin, std::int64_t rows) {
      call_.launch(see_rows<S>, block_rows<Magnitude>(rows, depth_), x_, begin, rows, depth_, normalize_, magnitude_, seen_,
                   failure_);
      multiply<double>(call_, {rows, count_, depth_}, {seen_.rows, depth_}, {frequencies_, depth_, true}, phases_, count_,
                       Accumulate::no);
      body(begin, rows, phases_);
    });
  }

  /// Ends the call because of the first bad row, or with its results.
  dpo_status finish() {
    const Alarm found = call_.read(failure_);
    if (!call_.ok() || found == ~Alarm{0}) return call_.finish();
    const auto row = static_cast<std::int64_t>(found / 2);
    const auto index = static_cast<long long>(row);
    if (static_cast<RowFailure>(found % 2) == RowFailure::zero)
      return call_.fail_at(row * depth_, DPO_ERR_RANGE, "x: row %lld is zero and cannot be normalised", index);
    return call_.fail_at(row * depth_, DPO_ERR_RANGE, "x, frequencies: phases of row %lld overflow", index);
  }

 private:
  Call& call_;
  std::int64_t depth_, count_;
  bool normalize_;
  RowChunks chunks_;
  const S* x_;
  const double* frequencies_;
  const Magnitude* magnitude_;
  SeenRows seen_;
  double* phases_;
  Alarm* failure_;
};

template <class S>
dpo_status transform(Call& call, const dpo_random_features_args& args) {
  using T = compute_t<S>;
  Phases<S> phases(call, args.x, args.frequencies, args.normalize != 0);
  T* features = call.output<T>(args.features);
  const std::int64_t count = phases.count();
  phases.for_each_chunk([&](std::int64_t begin, std::int64_t rows, const double* of_rows) {
    call.launch(write_features<T>, grid_of(rows * count), of_rows, rows, count, phases.fourier(), features + begin * 2 * count);
  });
  return phases.finish();
}

template <class S>
dpo_status pull_back(Call& call, const dpo_random_features_vjp_args& args) {
  Phases<S> phases(call, args.x, args.frequencies, args.normalize != 0);
  const Scalars upstream = Scalars::of(call, args.upstream);
  S* grad_x = call.output<S>(args.grad_x);
  auto* grad_frequencies = call.output<double>(args.grad_frequencies);
  const std::int64_t count = phases.count(), depth = phases.depth();
  auto* grads = call.allocate<double>(phases.chunks().at_once * depth);
  phases.for_each_chunk([&](std::int64_t begin, std::int64_t rows, double* of_rows) {
    call.launch(pull_back_phases, grid_of(rows * count), upstream, begin, rows, count, phases.fourier(), of_rows);
    multiply<double>(call, {count, depth, rows}, {of_rows, count, true}, {phases.seen().rows, depth}, grad_frequencies, depth,
                     begin == 0 ? Accumulate::no : Accumulate::yes);
    multiply<double>(call, {rows, depth, count}, {of_rows, count}, {phases.frequencies(), depth}, grads, depth, Accumulate::no);
    call.launch(write_row_gradients<S>, block_rows<Sum>(rows, depth), phases.seen(), grads, rows, depth, phases.normalizes(),
                grad_x + begin * depth);
  });
  return phases.finish();
}

}  // namespace

dpo_status random_features(dpo_job* job, const dpo_random_features_args* args) {
  return run(job,
             [&](Call& call) { return dispatch_storage(args->x.dtype, [&]<class S>() { return transform<S>(call, *args); }); });
}

dpo_status random_features_vjp(dpo_job* job, const dpo_random_features_vjp_args* args) {
  return run(job,
             [&](Call& call) { return dispatch_storage(args->x.dtype, [&]<class S>() { return pull_back<S>(call, *args); }); });
}

}  // namespace dpo::cuda
