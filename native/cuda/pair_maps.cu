#include "native/cuda/pair_maps.h"

#include "native/cuda/grid.h"
#include "native/cuda/reduce.h"
#include "native/cuda/row_packs.h"

namespace dpo::cuda {
namespace {

template <class T>
Grid blocks_of(std::int64_t pairs, std::int64_t width) {
  const unsigned threads = row_threads(width);
  return {{static_cast<unsigned>(pairs), 1, 1}, threads, merge_block_bytes<T>(threads)};
}

/// A block a pair: its mapped difference's squared norm, or mean cosine.
__global__ void measure_mapped(KernelMap map, std::int64_t width, const double* mapped, Products* seen) {
  const double* row = mapped + blockIdx.x * width;
  Sum sum;
  for (std::int64_t k = threadIdx.x; k < width; k += blockDim.x)
    sum.value += map == KernelMap::factor ? row[k] * row[k] : DeviceFunctions<double>::cos(row[k]);
  sum = merge_block(sum);
  if (threadIdx.x != 0) return;
  seen[blockIdx.x] =
      map == KernelMap::factor ? Products{sum.value, 0, 0} : Products{sum.value / static_cast<double>(width), 1, 1};
}

__global__ void pull_back_mapped(KernelMap map, std::int64_t pairs, std::int64_t width, const double* grads, double* mapped) {
  for_each_index(pairs * width, [&](std::int64_t i) {
    const double grad = grads[i / width];
    mapped[i] = map == KernelMap::factor ? 2 * grad * mapped[i] : -grad * DeviceFunctions<double>::sin(mapped[i]) / static_cast<double>(width);
  });
}

struct ProductSums : Products {
  __device__ void merge(const ProductSums& other) {
    uv += other.uv;
    uu += other.uu;
    vv += other.vv;
  }
};

/// A block a pair.
__global__ void measure_features(PairRows rows, std::int64_t rank, const double* lambdas, const double* features,
                                 Products* seen) {
  const std::int64_t pair = blockIdx.x, side = pair / rows.rows, r = pair % rows.rows;
  const double *u = features + r * rank, *v = features + rows.row(1 + side, r) * rank;
  ProductSums sums{};
  for (std::int64_t k = threadIdx.x; k < rank; k += blockDim.x) {
    sums.uv += lambdas[k] * u[k] * v[k];
    sums.uu += lambdas[k] * u[k] * u[k];
    sums.vv += lambdas[k] * v[k] * v[k];
  }
  sums = merge_block(sums);
  if (threadIdx.x == 0) seen[pair] = sums;
}

/// weights, points [pairs] and terms [rank, pairs] of one kernel.
__global__ void pull_back_measured(PairRows rows, std::int64_t rank, const double* lambdas, const double* features,
                                   const double* weights, const LogKernelPoint* points, double* grads, double* terms) {
  for_each_index(rows.rows * rank, [&](std::int64_t i) {
    const std::int64_t r = i / rank, k = i % rank;
    const double u = features[i];
    double of_u = 0;
    for (std::int64_t side = 0; side < rows.sides; ++side) {
      const std::int64_t pair = rows.pair(side, r), at_v = rows.row(1 + side, r) * rank + k;
      const double v = features[at_v], w = weights[pair];
      const Products slopes = points[pair].slopes;
      terms[k * rows.pairs() + pair] = w * (slopes.uv * u * v + slopes.uu * u * u + slopes.vv * v * v);
      of_u += w * lambdas[k] * (slopes.uv * v + 2 * slopes.uu * u);
      grads[at_v] = w * lambdas[k] * (slopes.uv * u + 2 * slopes.vv * v);
    }
    grads[i] = of_u;
  });
}

SeenRows seen_rows(const PairRows& rows) { return {rows.seen, rows.squares, rows.operands() * rows.rows, rows.depth}; }

}  // namespace

void map_differences(Call& call, const KernelMember& member, std::int32_t m, const PairRows& rows, const PairPoints& points,
                     double* mapped) {
  const std::int64_t pairs = rows.pairs(), depth = rows.depth, width = member.width;
  const bool by_rows = member.map == KernelMap::frequencies;  // [width, depth], where a factor is [depth, width]
  multiply<double>(call, {pairs, width, depth}, {points.differences, depth}, {member.matrix, by_rows ? depth : width, by_rows},
                   mapped, width, Accumulate::no);
  call.launch(measure_mapped, blocks_of<Sum>(pairs, width), member.map, width, mapped, points.seen + m * pairs);
}

void pull_back_differences(Call& call, const KernelMember& member, std::int32_t m, const PairRows& rows, const PairPoints& points,
                           double* mapped, const PairGradients& grads, Accumulate accumulate, double* factor) {
  const std::int64_t pairs = rows.pairs(), depth = rows.depth, width = member.width;
  const bool by_rows = member.map == KernelMap::frequencies;
  call.launch(pull_back_mapped, grid_of(pairs * width), member.map, pairs, width, grads.seen + m * pairs, mapped);
  multiply<double>(call, {pairs, depth, width}, {mapped, width}, {member.matrix, by_rows ? depth : width, !by_rows},
                   grads.differences, depth, accumulate);
  if (member.map != KernelMap::factor) return;
  multiply<double>(call, {depth, width, pairs}, {points.differences, depth, true}, {mapped, width}, factor, width,
                   Accumulate::yes);
}

void map_to_features(Call& call, const KernelMember& member, std::int32_t m, const PairRows& rows, const PairPoints& points,
                     const SpectralScratch& scratch) {
  spectral_features(call, member, seen_rows(rows), scratch);
  call.launch(measure_features, blocks_of<ProductSums>(rows.pairs(), member.rank()), rows, member.rank(),
              member.formula.parameters, scratch.features, points.seen + m * rows.pairs());
}

void pull_back_features(Call& call, const KernelMember& member, std::int32_t m, const PairRows& rows, const PairPoints& points,
                        const SpectralScratch& scratch, const PairGradients& grads, std::int64_t first_term,
                        Accumulate accumulate) {
  const std::int64_t pairs = rows.pairs();
  call.launch(pull_back_measured, grid_of(rows.rows * member.rank()), rows, member.rank(), member.formula.parameters,
              scratch.features, grads.terms.terms + m * pairs, points.points + m * pairs, scratch.grads,
              grads.terms.terms + first_term * pairs);
  spectral_pull_back(call, member, seen_rows(rows), scratch, accumulate, grads.rows, grads.along);
}

}  // namespace dpo::cuda
