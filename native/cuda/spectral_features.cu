#include "native/cuda/spectral_features.h"

#include <limits>

#include "native/cuda/kernel_points.h"
#include "native/cuda/reduce.h"
#include "native/cuda/row_packs.h"

namespace dpo::cuda {
namespace {

struct Largest {
  double value = -std::numeric_limits<double>::infinity();
  __device__ void add(double x) { value = x > value ? x : value; }
  __device__ void merge(const Largest& other) { add(other.value); }
};

__device__ double squared_distance(const double* u, const double* v, std::int64_t depth) {
  double sum = 0;
  for (std::int64_t i = 0; i < depth; ++i) sum += (u[i] - v[i]) * (u[i] - v[i]);
  return sum;
}

/// A block a row: inner products with the landmarks, which are in `base`, become base values and slopes.
__global__ void evaluate_base(KernelMember member, SeenRows of, SpectralScratch scratch) {
  const std::int64_t r = blockIdx.x, count = member.width, first = r * count;
  const bool of_distance = math::seen_by(member.base.kind) == math::Seen::squared_distance;
  Largest largest;
  for (std::int64_t l = threadIdx.x; l < count; l += blockDim.x) {
    Products seen{scratch.base[first + l], of.squares[r], member.landmark_squares[l]};
    if (of_distance) {
      seen.uv = math::squared_distance(seen.uu + seen.vv, seen.uv, [&] {
        return squared_distance(of.rows + r * of.depth, member.landmarks + l * of.depth, of.depth);
      });
    }
    const LogKernelPoint point = point_of(member.base, seen);
    scratch.base[first + l] = point.value;
    scratch.slopes[first + l] = point.slopes.uv;
    scratch.self_slopes[first + l] = point.slopes.uu;
    largest.add(point.value);
  }
  largest = merge_block_for_all(largest);
  if (threadIdx.x == 0) scratch.log_scales[r] = largest.value;
  for (std::int64_t l = threadIdx.x; l < count; l += blockDim.x)
    scratch.base[first + l] = std::exp(scratch.base[first + l] - largest.value);
}

/// A block a row: gradients in base values, which are in `coefficients`, become those in the inner products.
__global__ void pull_back_base(KernelMember member, SpectralScratch scratch, double* along) {
  const std::int64_t r = blockIdx.x, count = member.width;
  const bool of_distance = math::seen_by(member.base.kind) == math::Seen::squared_distance;
  Sum sum;
  for (std::int64_t l = r * count + threadIdx.x; l < (r + 1) * count; l += blockDim.x) {
    const double grad = scratch.coefficients[l] * scratch.base[l];
    const double inner = grad * scratch.slopes[l];
    // ‖u − l‖² = ‖u‖² − 2⟨u, l⟩ + ‖l‖².
    scratch.coefficients[l] = of_distance ? -2 * inner : inner;
    sum.value += 2 * (of_distance ? inner : grad * scratch.self_slopes[l]);
  }
  sum = merge_block(sum);
  if (threadIdx.x == 0) along[r] += sum.value;
}

template <class T>
Grid blocks_of(std::int64_t rows, std::int64_t columns) {
  const unsigned threads = row_threads(columns);
  return {{static_cast<unsigned>(rows), 1, 1}, threads, merge_block_bytes<T>(threads)};
}

}  // namespace

SpectralScratch SpectralScratch::carve(Carver& from, const KernelMember& member, std::int64_t rows, double* log_scales) {
  const auto by_landmark = [&] { return from.take(rows * member.width); };
  const auto by_rank = [&] { return from.take(rows * member.rank()); };
  return {by_landmark(), by_landmark(), by_landmark(), by_rank(), log_scales, by_rank(), by_landmark()};
}

void spectral_features(Call& call, const KernelMember& member, const SeenRows& of, const SpectralScratch& scratch) {
  const std::int64_t landmarks = member.width, rank = member.rank();
  multiply<double>(call, {of.count, landmarks, of.depth}, {of.rows, of.depth}, {member.landmarks, of.depth, true}, scratch.base,
                   landmarks, Accumulate::no);
  call.launch(evaluate_base, blocks_of<Largest>(of.count, landmarks), member, of, scratch);
  multiply<double>(call, {of.count, rank, landmarks}, {scratch.base, landmarks}, {member.matrix, landmarks, true},
                   scratch.features, rank, Accumulate::no);
}

void spectral_pull_back(Call& call, const KernelMember& member, const SeenRows& of, const SpectralScratch& scratch,
                        Accumulate accumulate, double* row_grads, double* along) {
  const std::int64_t landmarks = member.width, rank = member.rank();
  multiply<double>(call, {of.count, landmarks, rank}, {scratch.grads, rank}, {member.matrix, landmarks}, scratch.coefficients,
                   landmarks, Accumulate::no);
  call.launch(pull_back_base, blocks_of<Sum>(of.count, landmarks), member, scratch, along);
  multiply<double>(call, {of.count, of.depth, landmarks}, {scratch.coefficients, landmarks}, {member.landmarks, of.depth},
                   row_grads, of.depth, accumulate);
}

}  // namespace dpo::cuda
