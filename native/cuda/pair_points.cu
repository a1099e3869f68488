#include "native/cuda/pair_points.h"

#include "native/cuda/grid.h"
#include "native/cuda/reduce.h"
#include "native/cuda/row_packs.h"

namespace dpo::cuda {
namespace {

struct Geometry {
  double squared = 0, absolute = 0, inner = 0;
  __device__ void add(double x, double y) {
    const double difference = x - y;
    squared += difference * difference;
    absolute += std::fabs(difference);
    inner += x * y;
  }
  __device__ void merge(const Geometry& other) {
    squared += other.squared;
    absolute += other.absolute;
    inner += other.inner;
  }
};

__device__ Products seen_of(const PairRows& rows, math::Seen what, const Geometry& of, double uu, double vv) {
  switch (what) {
    case math::Seen::squared_distance:
      return {of.squared, 0, 0};
    case math::Seen::absolute_distance:
      return {of.absolute, 0, 0};
    default:
      // Of normalised rows ⟨u, v⟩ = 1 − ‖u − v‖²/2, which is exactly 1 where u = v.
      return {rows.normalized ? 1 - of.squared / 2 : of.inner, uu, vv};
  }
}

/// A block a pair.
__global__ void measure(PairRows rows, PairPoints points) {
  const std::int64_t r = blockIdx.x, side = blockIdx.y, pair = rows.pair(side, r), of_v = rows.row(1 + side, r);
  const double *u = rows.seen + r * rows.depth, *v = rows.seen + of_v * rows.depth;
  Geometry geometry;
  for (std::int64_t i = threadIdx.x; i < rows.depth; i += blockDim.x) {
    geometry.add(u[i], v[i]);
    if (points.differences) points.differences[pair * rows.depth + i] = u[i] - v[i];
  }
  geometry = merge_block_for_all(geometry);
  for (std::int32_t m = 0; m < points.count; ++m) {
    const KernelMember& member = points.members[m];
    Products& seen = points.seen[m * rows.pairs() + pair];
    if (member.map == KernelMap::diagonal) {
      Sum sum;
      for (std::int64_t i = threadIdx.x; i < rows.depth; i += blockDim.x) {
        const double term = member.matrix[i] * (u[i] - v[i]);
        sum.value += term * term;
      }
      sum = merge_block_for_all(sum);
      if (threadIdx.x == 0) seen = {sum.value, 0, 0};
    } else if (member.plain() && threadIdx.x == 0) {
      seen = seen_of(rows, member.seen, geometry, rows.squares[r], rows.squares[of_v]);
    }
  }
}

__global__ void evaluate(PairRows rows, PairPoints points) {
  const std::int64_t pairs = rows.pairs();
  for_each_index(pairs, [&](std::int64_t pair) {
    const std::int64_t side = pair / rows.rows, r = pair % rows.rows, of_row = rows.operands() * rows.rows;
    math::LogMixture mixture;
    for (std::int32_t m = 0; m < points.count; ++m) {
      const KernelMember& member = points.members[m];
      LogKernelPoint point = point_of(member.formula, points.seen[m * pairs + pair]);
      if (member.map == KernelMap::landmarks && !member.formula.unit_diagonal)
        point.value += points.log_scales[m * of_row + r] + points.log_scales[m * of_row + rows.row(1 + side, r)];
      points.points[m * pairs + pair] = point;
      mixture.add(member.log_weight, point.value);
    }
    const double log_k = points.is_mixture ? mixture.value() : points.points[pair].value;
    points.log_k[pair] = log_k;
    for (std::int32_t m = 0; m < points.count; ++m) {
      points.responsibilities[m * pairs + pair] =
          points.is_mixture ? math::responsibility(points.members[m].log_weight, points.points[m * pairs + pair].value, log_k)
                            : 1;
    }
  });
}

struct PlainGradients {
  double distance = 0, absolute = 0;
  Products products{};

  __device__ void add(math::Seen what, double weight, const Products& slopes, bool normalized) {
    if (what == math::Seen::squared_distance) {
      distance += weight * slopes.uv;
    } else if (what == math::Seen::absolute_distance) {
      absolute += weight * slopes.uv;
    } else if (normalized) {
      distance -= weight * slopes.uv / 2;
    } else {
      products.uv += weight * slopes.uv;
      products.uu += weight * slopes.uu;
      products.vv += weight * slopes.vv;
    }
  }
};

__global__ void pull_back(PairRows rows, PairPoints points, Scalars upstream, std::int64_t all_rows, std::int64_t first,
                          PairGradients grads) {
  const std::int64_t pairs = rows.pairs();
  for_each_index(pairs, [&](std::int64_t pair) {
    const double given = upstream.at(pair / rows.rows * all_rows + first + pair % rows.rows);
    PlainGradients plain;
    for (std::int32_t m = 0; m < points.count; ++m) {
      const KernelMember& member = points.members[m];
      const double weight = given * points.responsibilities[m * pairs + pair];
      const Products slopes = points.points[m * pairs + pair].slopes;
      grads.seen[m * pairs + pair] = weight * slopes.uv;
      grads.terms.terms[m * pairs + pair] = weight;
      if (member.plain()) plain.add(member.seen, weight, slopes, rows.normalized);
      if (member.map == KernelMap::landmarks) continue;  // its lambdas are no part of the formula
      double* terms = grads.terms.terms + grads.terms.firsts[m] * pairs + pair;
      math::with_log_kernel<double>(member.formula, [&](const auto& kernel) {
        math::parameter_slopes_of<DeviceFunctions<double>>(kernel, points.seen[m * pairs + pair],
                                              [&](std::int64_t p, double slope) { terms[p * pairs] = weight * slope; });
      });
    }
    grads.distances[pair] = plain.distance;
    grads.absolutes[pair] = plain.absolute;
    grads.products[pair] = plain.products;
  });
}

/// A block a row of terms.
__global__ void sum_terms(std::int64_t pairs, ParameterTerms terms, double* sums) {
  const double* from = terms.terms + blockIdx.x * pairs;
  Sum sum;
  for (std::int64_t pair = threadIdx.x; pair < pairs; pair += blockDim.x) sum.value += from[pair];
  sum = merge_block(sum);
  if (threadIdx.x == 0) sums[terms.places[blockIdx.x]] += sum.value;
}

constexpr unsigned kColumnWarps = 8;

/// A block for 32 columns: warps share out the pairs, lanes the columns.
__global__ void sum_diagonal(PairRows rows, const double* diagonal, const double* grads, double* factor) {
  const std::int64_t lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize, column = blockIdx.x * kWarpSize + lane;
  auto* sums = static_cast<double*>(shared_memory());
  double sum = 0;
  for (std::int64_t pair = warp; pair < rows.pairs() && column < rows.depth; pair += kColumnWarps) {
    const std::int64_t side = pair / rows.rows, r = pair % rows.rows;
    const double difference = rows.seen[r * rows.depth + column] - rows.seen[rows.row(1 + side, r) * rows.depth + column];
    sum += 2 * grads[pair] * (diagonal[column] * difference) * difference;
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (warp != 0 || column >= rows.depth) return;
  sum = 0;
  for (unsigned other = 0; other < kColumnWarps; ++other) sum += sums[other * kWarpSize + lane];
  factor[column] += sum;
}

}  // namespace

PairPoints PairPoints::carve(Carver& from, const KernelMembers& members, const PairRows& rows) {
  const std::int64_t count = members.count(), pairs = rows.pairs();
  return {members.count(),
          members.weights().is_mixture(),
          members.on_device(),
          members.any_maps_differences() ? from.take(pairs * rows.depth) : nullptr,
          from.take<Products>(count * pairs),
          from.take<LogKernelPoint>(count * pairs),
          members.any(KernelMap::landmarks) ? from.take(count * rows.operands() * rows.rows) : nullptr,
          from.take(pairs),
          from.take(count * pairs)};
}

PairGradients PairGradients::carve(Carver& from, const KernelMembers& members, const PairRows& rows,
                                   const ParameterTerms& terms) {
  const std::int64_t pairs = rows.pairs(), row_count = rows.operands() * rows.rows;
  const bool has_landmarks = members.any(KernelMap::landmarks);
  return {from.take(members.count() * pairs),
          from.take(pairs),
          from.take(pairs),
          from.take<Products>(pairs),
          members.any(KernelMap::diagonal),
          members.any_maps_differences() ? from.take(pairs * rows.depth) : nullptr,
          has_landmarks ? from.take(row_count * rows.depth) : nullptr,
          has_landmarks ? from.take(row_count) : nullptr,
          {from.take(terms.rows * pairs), terms.places, terms.firsts, terms.rows}};
}

std::int64_t first_term(const KernelMembers& members, std::int32_t m) {
  std::int64_t first = members.count();
  for (std::int32_t before = 0; before < m; ++before) first += members[before].formula.parameter_count;
  return first;
}

ParameterTerms parameter_terms(Call& call, const KernelMembers& members) {
  std::vector<std::int64_t> places, firsts;
  for (std::int32_t m = 0; m < members.count(); ++m) places.push_back(members.places().log_weights + m);
  for (std::int32_t m = 0; m < members.count(); ++m) {
    firsts.push_back(first_term(members, m));
    for (std::int64_t p = 0; p < members[m].formula.parameter_count; ++p)
      places.push_back(members.places().parameters[static_cast<std::size_t>(m)] + p);
  }
  const auto rows = static_cast<std::int64_t>(places.size());
  return {nullptr, call.upload(places), call.upload(firsts), rows};
}

void measure_pairs(Call& call, const PairRows& rows, const PairPoints& points) {
  const unsigned threads = row_threads(rows.depth);
  const dim3 blocks{static_cast<unsigned>(rows.rows), static_cast<unsigned>(rows.sides), 1};
  call.launch(measure, {blocks, threads, merge_block_bytes<Geometry>(threads)}, rows, points);
}

void evaluate_pairs(Call& call, const PairRows& rows, const PairPoints& points) {
  call.launch(evaluate, grid_of(rows.pairs()), rows, points);
}

void pull_back_pairs(Call& call, const PairRows& rows, const PairPoints& points, const Scalars& upstream, std::int64_t all_rows,
                     std::int64_t first, const PairGradients& grads) {
  call.launch(pull_back, grid_of(rows.pairs()), rows, points, upstream, all_rows, first, grads);
}

void add_parameter_terms(Call& call, std::int64_t pairs, const ParameterTerms& terms, double* sums) {
  const unsigned threads = block_threads(pairs);
  call.launch(sum_terms, {{static_cast<unsigned>(terms.rows), 1, 1}, threads, merge_block_bytes<Sum>(threads)}, pairs, terms,
              sums);
}

void add_diagonal_gradient(Call& call, const PairRows& rows, const double* diagonal, const double* grads, double* factor) {
  const auto blocks = static_cast<unsigned>((rows.depth + kWarpSize - 1) / kWarpSize);
  constexpr unsigned kThreads = kColumnWarps * kWarpSize;
  call.launch(sum_diagonal, {{blocks, 1, 1}, kThreads, kThreads * sizeof(double)}, rows, diagonal, grads, factor);
}

}  // namespace dpo::cuda
