// Distances of embeddings: those of the words in each row's support.
#include "native/cuda/grid.h"
#include "native/cuda/reduce.h"
#include "native/cuda/storage.h"
#include "native/cuda/transport.h"
#include "native/math/transport.h"

namespace dpo::cuda {
namespace {

/// Words and dimensions that a block has in shared memory at a time.
constexpr std::int64_t kTile = 32, kDepth = 16, kPitch = kDepth + 1;
constexpr unsigned kTileThreads = 256;

template <class S>
struct Embeddings {
  const S* values;
  std::int64_t width;
  __device__ double at(std::int64_t word, std::int64_t e) const {
    return static_cast<double>(to_compute(values[word * width + e]));
  }
};

template <class S>
__global__ void measure_embeddings(Embeddings<S> embeddings, TransportMemory memory, std::int64_t rows) {
  for_each_by_warp(rows * memory.support, [&](std::int64_t i) {
    const std::int64_t slot = i / memory.support, point = i % memory.support;
    if (point >= memory.sizes[slot]) return;
    const std::int64_t word = memory.words_of(slot)[point];
    const double square = warp_sum(0, embeddings.width, [&](double sum, std::int64_t e) {
      const double x = embeddings.at(word, e);
      return sum + x * x;
    });
    if (threadIdx.x % kWarpSize == 0) memory.lengths[i] = std::sqrt(square);
  });
}

/// The words of one tile's rows or columns, kDepth dimensions at a time; of length 1 where there are lengths.
template <class S>
struct TileWords {
  const Embeddings<S>& embeddings;
  const std::int64_t* words;
  const double* lengths;
  std::int64_t first, count;

  __device__ __forceinline__ void load(std::int64_t begin, double* to) const {
    for (std::int64_t at = threadIdx.x; at < kTile * kDepth; at += kTileThreads) {
      const std::int64_t i = first + at / kDepth, e = begin + at % kDepth;
      double x = i < count && e < embeddings.width ? embeddings.at(words[i], e) : 0;
      if (lengths && i < count && lengths[i] > 0) x /= lengths[i];
      to[at / kDepth * kPitch + at % kDepth] = x;
    }
  }
};

/// One tile of one slot's costs, and its mirror image. A thread has two of its rows and two of its columns.
template <class S>
__global__ __launch_bounds__(kTileThreads, 1) void embedding_costs(Embeddings<S> embeddings, TransportMemory memory,
                                                                   math::TransportMetric metric, std::int64_t tiles) {
  const std::int64_t slot = blockIdx.x / (tiles * tiles), tile = blockIdx.x % (tiles * tiles);
  const std::int64_t row = tile / tiles * kTile, column = tile % tiles * kTile, count = memory.sizes[slot];
  if (row < column || row >= count) return;
  const double* lengths = memory.lengths ? memory.lengths + slot * memory.support : nullptr;
  const TileWords<S> rows{embeddings, memory.words_of(slot), lengths, row, count};
  const TileWords<S> columns{embeddings, memory.words_of(slot), lengths, column, count};
  auto* of_rows = static_cast<double*>(shared_memory());
  double* of_columns = of_rows + kTile * kPitch;
  constexpr std::int64_t kHalf = kTile / 2;
  const std::int64_t i = threadIdx.x / kHalf, j = threadIdx.x % kHalf;
  double squares[2][2] = {};
  for (std::int64_t begin = 0; begin < embeddings.width; begin += kDepth) {
    __syncthreads();
    rows.load(begin, of_rows);
    columns.load(begin, of_columns);
    __syncthreads();
    for (std::int64_t e = 0; e < kDepth; ++e) {
#pragma unroll
      for (int a = 0; a < 2; ++a) {
#pragma unroll
        for (int b = 0; b < 2; ++b) {
          const double difference = of_rows[(i + a * kHalf) * kPitch + e] - of_columns[(j + b * kHalf) * kPitch + e];
          squares[a][b] += difference * difference;
        }
      }
    }
  }
  double* costs = memory.own_costs + slot * memory.support * memory.support;
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const std::int64_t from = row + i + a * kHalf, to = column + j + b * kHalf;
      if (from >= count || to > from) continue;
      const bool is_zero = lengths && (lengths[from] == 0 || lengths[to] == 0);
      const double cost = from == to ? 0 : math::embedding_distance(metric, squares[a][b], is_zero);
      costs[from * memory.support + to] = costs[to * memory.support + from] = cost;
    }
  }
}

}  // namespace

void launch_embedding_costs(Call& call, const dpo_transport_options& options, const TransportMemory& memory, std::int64_t rows) {
  dispatch_storage(options.embeddings.dtype, [&]<class S>() {
    const Embeddings<S> embeddings{static_cast<const S*>(memory.embeddings), options.embeddings.shape[1]};
    if (memory.lengths) call.launch(measure_embeddings<S>, warps_of(rows * memory.support), embeddings, memory, rows);
    const std::int64_t tiles = (memory.support + kTile - 1) / kTile;
    call.launch(embedding_costs<S>,
                {{static_cast<unsigned>(rows * tiles * tiles), 1, 1}, kTileThreads, 2 * kTile * kPitch * sizeof(double)},
                embeddings, memory, static_cast<math::TransportMetric>(options.metric), tiles);
  });
}

}  // namespace dpo::cuda
