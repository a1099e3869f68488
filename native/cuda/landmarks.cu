#include "native/core/landmarks.h"

#include "native/core/landmark_choice.h"
#include "native/cuda/grid.h"
#include "native/cuda/operations.h"
#include "native/cuda/reduce.h"

namespace dpo::cuda {
namespace {

/// A sort in place of 2ᵏ rows: those past the real ones rank last.
__global__ void rank_rows(Philox random, const double* scores, std::int64_t rows, std::int64_t count, RankedRow* ranked) {
  for_each_index(count, [&](std::int64_t row) {
    ranked[row] = row < rows ? RankedRow::of(random, row, scores ? scores[row] : 1.0) : RankedRow{HUGE_VAL, row};
  });
}

/// A step of a bitonic sort. Batcher (1968), "Sorting networks and their applications".
__global__ void exchange_rows(RankedRow* ranked, std::int64_t count, std::int64_t sorted, std::int64_t apart) {
  for_each_index(count / 2, [&](std::int64_t pair) {
    const std::int64_t low = pair / apart * 2 * apart + pair % apart, high = low + apart;
    const RankedRow first = ranked[low], second = ranked[high];
    const bool ascending = (low & sorted) == 0;
    if (ascending ? !(second < first) : !(first < second)) return;
    ranked[low] = second;
    ranked[high] = first;
  });
}

__global__ void take_first(const RankedRow* ranked, std::int64_t count, std::int32_t* chosen) {
  for_each_index(count, [&](std::int64_t i) { chosen[i] = static_cast<std::int32_t>(ranked[i].row); });
}

void sample(Call& call, const dpo_landmarks_args& args, std::int32_t* chosen) {
  const std::int64_t rows = args.x.shape[0], wanted = args.indices.shape[0];
  std::int64_t count = 1;
  while (count < rows) count *= 2;
  auto* ranked = call.allocate<RankedRow>(count);
  call.launch(rank_rows, grid_of(count), landmark_random(args), call.input<double>(args.scores), rows, count, ranked);
  for (std::int64_t sorted = 2; sorted <= count; sorted *= 2) {
    for (std::int64_t apart = sorted / 2; apart > 0; apart /= 2)
      call.launch(exchange_rows, grid_of(count / 2), ranked, count, sorted, apart);
  }
  call.launch(take_first, grid_of(wanted), ranked, wanted, chosen);
}

/// Of rows of `depth` numbers.
struct Candidates {
  const double* x;
  std::int64_t rows, depth;
  double *nearest, *sums;  // squared distances to the nearest chosen row, and their sums by blocks of rows
  unsigned char* taken;
};

/// A warp a row: its distance to the row chosen last, at the place `i`.
__global__ void come_closer(Candidates of, const std::int32_t* chosen, std::int64_t i) {
  const double* to = of.x + chosen[i] * of.depth;
  for_each_by_warp(of.rows, [&](std::int64_t row) {
    const double* from = of.x + row * of.depth;
    const double distance =
        warp_sum(0, of.depth, [=](double sum, std::int64_t k) { return kmeans::add_squared_difference(sum, from[k], to[k]); });
    if (threadIdx.x % kWarpSize == 0) of.nearest[row] = i > 0 && of.nearest[row] < distance ? of.nearest[row] : distance;
  });
}

__device__ __forceinline__ double warp_sum_of(const double* weights, std::int64_t begin, std::int64_t end) {
  return warp_sum(begin, end, [=](double sum, std::int64_t i) { return sum + weights[i]; });
}

/// A warp a block of rows.
__global__ void sum_blocks(Candidates of) {
  for_each_by_warp(kmeans::blocks(of.rows), [&](std::int64_t block) {
    const std::int64_t begin = block * kmeans::kBlockRows, end = begin + kmeans::kBlockRows;
    const double sum = warp_sum_of(of.nearest, begin, end < of.rows ? end : of.rows);
    if (threadIdx.x % kWarpSize == 0) of.sums[block] = sum;
  });
}

/// kmeans::pass by a block, which brings the weights to where its first thread goes through them.
class Passage {
 public:
  static constexpr unsigned kThreads = 256;
  static constexpr std::size_t kBytes = (kThreads + 2) * sizeof(double);

  __device__ explicit Passage(double left) : tile_(static_cast<double*>(shared_memory())), left_(left) {}

  __device__ std::int64_t pass(const double* weights, std::int64_t count) {
    for (std::int64_t begin = 0; begin < count; begin += kThreads) {
      const std::int64_t here = count - begin < kThreads ? count - begin : kThreads;
      __syncthreads();
      if (threadIdx.x < here) tile_[threadIdx.x] = weights[begin + threadIdx.x];
      __syncthreads();
      if (threadIdx.x == 0) {
        tile_[kThreads] = static_cast<double>(kmeans::pass(tile_, here, left_));
        tile_[kThreads + 1] = left_;
      }
      __syncthreads();
      const auto at = static_cast<std::int64_t>(tile_[kThreads]);
      left_ = tile_[kThreads + 1];
      if (at < here) return begin + at;
    }
    return count;
  }

 private:
  double* tile_;
  double left_;
};

/// The last row with a weight and the first one that is free.
struct Remaining {
  long long last = -1, first_free = std::numeric_limits<long long>::max();
  __device__ void merge(const Remaining& other) {
    last = other.last > last ? other.last : last;
    first_free = other.first_free < first_free ? other.first_free : first_free;
  }
};

__device__ std::int64_t row_that_remains(const Candidates& of) {
  Remaining remaining;
  for (std::int64_t row = threadIdx.x; row < of.rows; row += blockDim.x)
    remaining.merge({of.nearest[row] > 0 ? row : -1, of.taken[row] ? std::numeric_limits<long long>::max() : row});
  remaining = merge_block_for_all(remaining);
  return remaining.last >= 0 ? remaining.last : remaining.first_free;
}

__device__ std::int64_t next_row(const Candidates& of, const Philox& random, std::int64_t i) {
  const std::int64_t blocks = kmeans::blocks(of.rows);
  Passage passage(kmeans::passed(random, i, warp_sum_of(of.sums, 0, blocks)));
  if (const std::int64_t block = passage.pass(of.sums, blocks); block < blocks) {
    const std::int64_t begin = block * kmeans::kBlockRows, left = of.rows - begin;
    const std::int64_t count = left < kmeans::kBlockRows ? left : kmeans::kBlockRows;
    if (const std::int64_t at = passage.pass(of.nearest + begin, count); at < count) return begin + at;
  }
  // Rounding has left a little, or all rows that are free equal chosen ones.
  return row_that_remains(of);
}

/// One block.
__global__ void choose_row(Candidates of, Philox random, std::int64_t i, std::int32_t* chosen) {
  const std::int64_t row = i == 0 ? kmeans::first_row(random, of.rows) : next_row(of, random, i);
  if (threadIdx.x != 0) return;
  chosen[i] = static_cast<std::int32_t>(row);
  of.taken[row] = 1;
}

void choose_far_apart(Call& call, const dpo_landmarks_args& args, std::int32_t* chosen) {
  const std::int64_t rows = args.x.shape[0], blocks = kmeans::blocks(rows);
  const Candidates candidates{
      call.input<double>(args.x),        rows, args.x.shape[1], call.allocate<double>(rows), call.allocate<double>(blocks),
      call.allocate<unsigned char>(rows)};
  call.fill(candidates.taken, 0, static_cast<std::size_t>(rows));
  const Philox random = landmark_random(args);
  for (std::int64_t i = 0; i < args.indices.shape[0]; ++i) {
    call.launch(choose_row, {{1, 1, 1}, Passage::kThreads, Passage::kBytes}, candidates, random, i, chosen);
    call.launch(come_closer, warps_of(rows), candidates, chosen, i);
    call.launch(sum_blocks, warps_of(blocks), candidates);
  }
}

}  // namespace

dpo_status landmarks(dpo_job* job, const dpo_landmarks_args* args) {
  return run(job, [&](Call& call) {
    auto* chosen = call.output<std::int32_t>(args->indices);
    (args->method == DPO_LANDMARKS_KMEANS ? choose_far_apart : sample)(call, *args, chosen);
    return call.finish();
  });
}

}  // namespace dpo::cuda
