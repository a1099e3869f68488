#include "native/cuda/gram_values.h"

#include <algorithm>
#include <limits>

#include "native/cuda/matrix_product.h"
#include "native/cuda/reduce.h"
#include "native/cuda/grid.h"

namespace dpo::cuda {
namespace {

constexpr std::int64_t kRowsOfThread = 16;
constexpr unsigned kSide = 16;  // of the tiles that distances are summed in

unsigned tiles(std::int64_t extent, std::int64_t side) { return static_cast<unsigned>((extent + side - 1) / side); }

/// (u − v)², or |u − v|.
template <class T>
__device__ __forceinline__ T difference_term(PairProduct product, T difference) {
  return product == PairProduct::squared_difference ? difference * difference : std::fabs(difference);
}

/// to [i, j] = Σ_k term(left_ik − right_jk). A block of threads a tile, a thread an element.
template <class T>
__global__ void sum_differences(PairProduct product, BlockPlace at, MappedRows<T> left, MappedRows<T> right, BlockMemory<T> to) {
  // One more than the side, so that columns are in different banks.
  constexpr unsigned kStride = kSide + 1;
  T* const lefts = static_cast<T*>(shared_memory());
  T* const rights = lefts + kSide * kStride;
  const unsigned x = threadIdx.x % kSide, y = threadIdx.x / kSide;
  const std::int64_t depth = left.depth, i = static_cast<std::int64_t>(blockIdx.y) * kSide, j = static_cast<std::int64_t>(blockIdx.x) * kSide;
  const bool row_is_there = i + y < at.rows, column_is_there = j + y < at.columns;
  const T *row = left.values + (at.row + i + y) * depth, *column = right.values + (at.column + j + y) * depth;
  T sum = 0;
  for (std::int64_t k = 0; k < depth; k += kSide) {
    const bool there = k + x < depth;
    lefts[y * kStride + x] = there && row_is_there ? row[k + x] : T(0);
    rights[y * kStride + x] = there && column_is_there ? column[k + x] : T(0);
    __syncthreads();
#pragma unroll
    for (unsigned c = 0; c < kSide; ++c) sum += difference_term(product, lefts[y * kStride + c] - rights[x * kStride + c]);
    __syncthreads();
  }
  if (row_is_there && j + x < at.columns) to.data[(i + y) * to.stride + j + x] = sum;
}

template <class T>
__global__ void find_distances(math::KernelFormula formula, BlockPlace at, const T* gram, std::int64_t columns, BlockMemory<T> to) {
  math::with_log_kernel<T>(formula, [&](const auto& kernel) {
    if constexpr (requires { kernel.squared_distance(T(0)); }) {
      for_each_element(at.rows, at.columns, [&](std::int64_t i, std::int64_t j, std::int64_t) {
        const T k = gram[(at.row + i) * columns + at.column + j];
        constexpr T kSmallest = std::numeric_limits<T>::min();
        // What is not finite stays so, for the check of the sums to find.
        const T squared = kernel.squared_distance(std::log(k > kSmallest ? k : kSmallest) + k * T(0));
        to.data[i * to.stride + j] = squared < 0 ? T(0) : squared;
      });
    }
  });
}

/// to = or += w·k for every pair of the block. A thread a column and some rows.
template <class T>
__global__ void write_values(MemberOf<T> of, PairBlock<T> block, BlockMemory<T> to, Accumulate accumulate) {
  using E = DeviceFunctions<T>;
  const std::int64_t j = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const std::int64_t begin = blockIdx.y * kRowsOfThread, end = std::min(block.at.rows, begin + kRowsOfThread);
  if (j >= block.at.columns) return;
  math::with_log_kernel<T>(of.member.formula, [&](const auto& kernel) {
    using Kernel = std::remove_cvref_t<decltype(kernel)>;
    for (std::int64_t i = begin; i < end; ++i) {
      const auto point = kernel.template at<E>(block.template seen<Kernel>(i, j));
      const T k = of.weighted(point.value, block, i, j);
      T* value = to.data + i * to.stride + j;
      *value = accumulate == Accumulate::yes ? *value + k : k;
    }
  });
}

}  // namespace

template <class T>
PairBlock<T> make_products(Call& call, const GramPairs<T>& pairs, const GramLayer& layer, const BlockPlace& at,
                           const BlockMemory<T>& memory) {
  const MappedRows<T>&left = pairs.left_of(layer), &right = pairs.right_of(layer);
  if (layer.product == PairProduct::inner) {
    const std::int64_t depth = left.depth;
    multiply<T>(call, {at.rows, at.columns, depth}, {left.values + at.row * depth, depth},
                {right.values + at.column * depth, depth, true}, memory.data, memory.stride, Accumulate::no);
    return {at, memory.data, memory.stride, BlockHolds::products, pairs.same, left, right};
  }
  const Grid grid{{tiles(at.columns, kSide), tiles(at.rows, kSide), 1}, kSide * kSide, 2 * kSide * (kSide + 1) * sizeof(T)};
  call.launch(sum_differences<T>, grid, layer.product, at, left, right, memory);
  return {at, memory.data, memory.stride, BlockHolds::distances, pairs.same, left, right};
}

template <class T>
PairBlock<T> make_distances(Call& call, const GramPairs<T>& pairs, const GramLayer& layer, const BlockPlace& at, const T* gram,
                            const BlockMemory<T>& memory) {
  call.launch(find_distances<T>, passes(at.rows * at.columns), (*pairs.members)[0].formula, at, gram, pairs.columns(), memory);
  return {at, memory.data, memory.stride, BlockHolds::distances, pairs.same, pairs.left_of(layer), pairs.right_of(layer)};
}

template <class T>
GramBlocks<T>::GramBlocks(Call& call, const GramPairs<T>& pairs)
    : call_(call),
      pairs_(pairs),
      products_(pairs.members->count() > 1 ? call.allocate<T>(pairs.block_size()) : nullptr) {}

template <class T>
void GramBlocks<T>::make(const BlockPlace& at, const BlockMemory<T>& to) const {
  const GramPlan& plan = *pairs_.plan;
  const BlockMemory<T> memory = products_ ? BlockMemory<T>{products_, at.columns} : to;
  Accumulate accumulate = Accumulate::no;
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    const PairBlock<T> block = make_products(call_, pairs_, plan.layers[l], at, memory);
    for (std::int32_t m = 0; m < pairs_.members->count(); ++m) {
      if (plan.layer_of[static_cast<std::size_t>(m)] != static_cast<std::int32_t>(l)) continue;
      const Grid grid{{tiles(at.columns, 128), tiles(at.rows, kRowsOfThread), 1}, 128};
      call_.launch(write_values<T>, grid, MemberOf<T>{(*pairs_.members)[m]}, block, to, accumulate);
      accumulate = Accumulate::yes;
    }
  }
}

#define DPO_INSTANTIATE(T)                                                                                                  \
  template PairBlock<T> make_products<T>(Call&, const GramPairs<T>&, const GramLayer&, const BlockPlace&,                   \
                                         const BlockMemory<T>&);                                                            \
  template PairBlock<T> make_distances<T>(Call&, const GramPairs<T>&, const GramLayer&, const BlockPlace&, const T*,        \
                                          const BlockMemory<T>&);                                                           \
  template class GramBlocks<T>;
DPO_INSTANTIATE(float)
DPO_INSTANTIATE(double)
#undef DPO_INSTANTIATE

}  // namespace dpo::cuda
