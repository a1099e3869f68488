#include "native/cuda/spectral_features.h"

#include <limits>
#include <type_traits>

#include "native/cuda/device_functions.h"
#include "native/cuda/matrix_product.h"
#include "native/cuda/reduce.h"
#include "native/cuda/row_packs.h"

namespace dpo::cuda {
namespace {

/// Below this share of ‖u‖² + ‖l‖² a squared distance is measured again, as a sum of squared differences.
constexpr double kCancelled = 1e-4;

struct Largest {
  double value = -std::numeric_limits<double>::infinity();
  __device__ void merge(const Largest& other) { value = value < other.value ? other.value : value; }
};

__device__ double distance_to_landmark(const KernelMember& member, const SeenRows& of, std::int64_t r, std::int64_t l,
                                       double inner) {
  const double squares = of.squares[r] + member.landmark_squares[l];
  const double squared = squares - 2 * inner;
  if (squared > kCancelled * squares) return squared;
  const double *row = of.rows + r * of.depth, *landmark = member.landmarks + l * of.depth;
  double sum = 0;
  for (std::int64_t i = 0; i < of.depth; ++i) {
    const double difference = row[i] - landmark[i];
    sum += difference * difference;
  }
  return sum;
}

/// Inner products with the landmarks become base values and slopes. A block a row.
__global__ void evaluate_base(KernelMember member, SeenRows of, SpectralMemory memory) {
  using E = DeviceFunctions<double>;
  const std::int64_t r = blockIdx.x, count = member.width;
  double *base = memory.base + r * count, *slopes = memory.slopes + r * count, *self_slopes = memory.self_slopes + r * count;
  Largest largest;
  math::with_log_kernel<double>(member.base, [&](const auto& kernel) {
    using Kernel = std::remove_cvref_t<decltype(kernel)>;
    for (std::int64_t l = threadIdx.x; l < count; l += blockDim.x) {
      if constexpr (Kernel::seen == math::Seen::inner_product) {
        const auto point =
            kernel.template at<E>(math::InnerProducts<double>{base[l], of.squares[r], member.landmark_squares[l]});
        base[l] = point.value;
        slopes[l] = point.slopes.uv;
        self_slopes[l] = point.slopes.uu;
      } else {
        const auto point = kernel.template at<E>(distance_to_landmark(member, of, r, l, base[l]));
        base[l] = point.value;
        slopes[l] = point.slope;
        self_slopes[l] = 0;
      }
      largest.merge({base[l]});
    }
  });
  largest = merge_block_for_all(largest);
  for (std::int64_t l = threadIdx.x; l < count; l += blockDim.x) base[l] = std::exp(base[l] - largest.value);
  if (threadIdx.x == 0) memory.log_scales[r] = largest.value;
}

/// Gradients in base values become those in inner products with the landmarks. A block a row.
__global__ void pull_back_base(KernelMember member, SpectralMemory memory) {
  const std::int64_t r = blockIdx.x, begin = r * member.width;
  const bool of_distance = math::seen_by(member.base.kind) == math::Seen::squared_distance;
  Sum along;
  for (std::int64_t l = begin + threadIdx.x; l < begin + member.width; l += blockDim.x) {
    const double grad = memory.coefficients[l] * memory.base[l];
    const double inner = grad * memory.slopes[l];
    // ‖u − l‖² = ‖u‖² − 2⟨u, l⟩ + ‖l‖².
    memory.coefficients[l] = of_distance ? -2 * inner : inner;
    along.value += 2 * (of_distance ? inner : grad * memory.self_slopes[l]);
  }
  along = merge_block(along);
  if (threadIdx.x == 0) memory.along[r] = along.value;
}

__global__ void add_along(SeenRows of, const double* along, double* row_grads) {
  const std::int64_t begin = blockIdx.x * of.depth;
  for (std::int64_t i = threadIdx.x; i < of.depth; i += blockDim.x) row_grads[begin + i] += along[blockIdx.x] * of.rows[begin + i];
}

Grid block_a_row(std::int64_t rows, std::int64_t columns) {
  const unsigned threads = row_threads(columns);
  return {{static_cast<unsigned>(rows), 1, 1}, threads, merge_block_bytes<Sum>(threads)};
}

}  // namespace

SpectralMemory SpectralMemory::allocate(Call& call, std::int64_t rows, std::int64_t landmarks, std::int64_t rank) {
  const auto take = [&](std::int64_t columns) { return call.allocate<double>(rows * columns); };
  return {take(landmarks), take(landmarks), take(landmarks), take(rank), take(1), take(rank), take(landmarks), take(1)};
}

void spectral_features(Call& call, const KernelMember& member, const SeenRows& of, const SpectralMemory& memory) {
  const std::int64_t count = member.width;
  multiply<double>(call, {of.count, count, of.depth}, {of.rows, of.depth}, {member.landmarks, of.depth, true}, memory.base, count,
                   Accumulate::no);
  call.launch(evaluate_base, block_a_row(of.count, count), member, of, memory);
  multiply<double>(call, {of.count, member.rank(), count}, {memory.base, count}, {member.matrix, count, true}, memory.features,
                   member.rank(), Accumulate::no);
}

void spectral_pull_back(Call& call, const KernelMember& member, const SeenRows& of, bool normalized, const SpectralMemory& memory,
                        double* row_grads) {
  const std::int64_t count = member.width, rank = member.rank();
  multiply<double>(call, {of.count, count, rank}, {memory.grads, rank}, {member.matrix, count}, memory.coefficients, count,
                   Accumulate::no);
  call.launch(pull_back_base, block_a_row(of.count, count), member, memory);
  multiply<double>(call, {of.count, of.depth, count}, {memory.coefficients, count}, {member.landmarks, of.depth}, row_grads,
                   of.depth, Accumulate::yes);
  if (!normalized) call.launch(add_along, block_a_row(of.count, of.depth), of, memory.along, row_grads);
}

}  // namespace dpo::cuda
