#include "native/cuda/gram_pull_back.h"

#include <algorithm>

#include "native/cuda/grid.h"
#include "native/cuda/matrix_product.h"
#include "native/cuda/reduce.h"
#include "native/cuda/row_packs.h"

namespace dpo::cuda {
namespace {

constexpr std::int64_t kRowsOfColumnSum = 64;
constexpr unsigned kThreads = 128;
/// Parameters whose sums a pass over a row can hold, one number a thread.
constexpr std::int64_t kParametersOfPass = 16;

unsigned tiles(std::int64_t extent, std::int64_t side) { return static_cast<unsigned>((extent + side - 1) / side); }

/// The slopes of w·k in a pair: in what the layer's product is, and in the squared length of either row.
template <class T>
struct PairSlopes {
  T value, weight, left_square, right_square;
};

/// Of one kernel in a block.
template <class T>
struct PairSlopesOf {
  MemberOf<T> of;
  PairProduct product;
  bool fixed_squares;  // rows of length 1 have no slope along themselves
  PairBlock<T> block;
  BlockMemory<T> upstream;

  template <class Kernel>
  __device__ __forceinline__ PairSlopes<T> at(const Kernel& kernel, std::int64_t i, std::int64_t j) const {
    const auto point = kernel.template at<DeviceFunctions<T>>(block.template seen<Kernel>(i, j));
    const T k = upstream.data[i * upstream.stride + j] * of.weighted(point.value, block, i, j);
    if constexpr (Kernel::seen == math::Seen::inner_product) {
      const T of_left = fixed_squares ? T(0) : 2 * k * point.slopes.uu, of_right = fixed_squares ? T(0) : 2 * k * point.slopes.vv;
      return {k, k * point.slopes.uv, of_left, of_right};
    } else {
      const T slope = k * point.slope;
      if (product != PairProduct::inner) return {k, slope, 0, 0};
      // r² = ‖u‖² + ‖v‖² − 2⟨u, v⟩.
      return {k, -2 * slope, 2 * slope, 2 * slope};
    }
  }

  /// What goes through the mean: nothing of a distance.
  template <class Kernel>
  __device__ __forceinline__ static T through_mean(T weight, T square) {
    return Kernel::seen == math::Seen::inner_product ? weight + square : T(0);
  }
};

struct RowSums {
  double self = 0, mean = 0, value = 0;
  __device__ void merge(const RowSums& other) {
    self += other.self;
    mean += other.mean;
    value += other.value;
  }
};

/// weights = or += the slopes in the products of a row; their sums go to the row, those of the values to totals [rows].
template <class T>
__global__ void weigh_rows(PairSlopesOf<T> of, BlockMemory<T> weights, Accumulate accumulate, double* totals) {
  const std::int64_t i = blockIdx.x;
  RowSums sums;
  math::with_log_kernel<T>(of.of.member.formula, [&](const auto& kernel) {
    using Kernel = std::remove_cvref_t<decltype(kernel)>;
    for (std::int64_t j = threadIdx.x; j < of.block.at.columns; j += blockDim.x) {
      const PairSlopes<T> slopes = of.at(kernel, i, j);
      T* to = weights.data + i * weights.stride + j;
      *to = accumulate == Accumulate::yes ? *to + slopes.weight : slopes.weight;
      sums.self += static_cast<double>(slopes.left_square);
      sums.mean += static_cast<double>(of.template through_mean<Kernel>(slopes.weight, slopes.left_square));
      sums.value += static_cast<double>(slopes.value);
    }
  });
  sums = merge_block(sums);
  if (threadIdx.x != 0) return;
  const std::int64_t row = of.block.at.row + i;
  of.block.left.self[row] += sums.self;
  of.block.left.mean[row] += sums.mean;
  totals[i] = sums.value;
}

/// Sums over some rows, for the columns. partial [parts, 2, columns]. A thread a column.
template <class T>
__global__ void sum_columns(PairSlopesOf<T> of, double* partial) {
  const std::int64_t columns = of.block.at.columns, j = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const std::int64_t begin = blockIdx.y * kRowsOfColumnSum, end = std::min(of.block.at.rows, begin + kRowsOfColumnSum);
  if (j >= columns) return;
  double self = 0, mean = 0;
  math::with_log_kernel<T>(of.of.member.formula, [&](const auto& kernel) {
    using Kernel = std::remove_cvref_t<decltype(kernel)>;
    for (std::int64_t i = begin; i < end; ++i) {
      const PairSlopes<T> slopes = of.at(kernel, i, j);
      self += static_cast<double>(slopes.right_square);
      mean += static_cast<double>(of.template through_mean<Kernel>(slopes.weight, slopes.right_square));
    }
  });
  partial[2 * blockIdx.y * columns + j] = self;
  partial[(2 * blockIdx.y + 1) * columns + j] = mean;
}

template <class T>
__global__ void add_to_columns(const double* partial, std::int64_t parts, BlockPlace at, MappedRows<T> right) {
  const std::int64_t j = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j >= at.columns) return;
  for (std::int64_t part = 0; part < parts; ++part) {
    right.self[at.column + j] += partial[2 * part * at.columns + j];
    right.mean[at.column + j] += partial[(2 * part + 1) * at.columns + j];
  }
}

/// partial [parameters, rows] = Σ over a row of the slopes in the parameters begin .. end of the formula. A block a row.
template <class T>
__global__ void sum_parameter_slopes(PairSlopesOf<T> of, std::int64_t begin, std::int64_t end, double* partial) {
  double* const sums = static_cast<double*>(shared_memory()) + kWarpSize;  // behind what merging takes
  const std::int64_t i = blockIdx.x;
  for (std::int64_t p = begin; p < end; ++p) sums[(p - begin) * blockDim.x + threadIdx.x] = 0;
  math::with_log_kernel<T>(of.of.member.formula, [&](const auto& kernel) {
    using Kernel = std::remove_cvref_t<decltype(kernel)>;
    for (std::int64_t j = threadIdx.x; j < of.block.at.columns; j += blockDim.x) {
      const T value = of.at(kernel, i, j).value;
      kernel.template parameter_slopes<DeviceFunctions<T>>(of.block.template seen<Kernel>(i, j), [&](std::int64_t p, T slope) {
        if (p >= begin && p < end) sums[(p - begin) * blockDim.x + threadIdx.x] += static_cast<double>(value * slope);
      });
    }
  });
  for (std::int64_t p = begin; p < end; ++p) {
    const Sum sum = merge_block_for_all(Sum{sums[(p - begin) * blockDim.x + threadIdx.x]});
    if (threadIdx.x == 0) partial[(p - begin) * of.block.at.rows + i] = sum.value;
  }
}

/// to[n] += scale·Σ partial[n, rows]. A block a number.
__global__ void add_row_sums(const double* partial, std::int64_t rows, double scale, double* to) {
  Sum sum;
  for (std::int64_t i = threadIdx.x; i < rows; i += blockDim.x) sum.value += partial[blockIdx.x * rows + i];
  sum = merge_block(sum);
  if (threadIdx.x == 0) to[blockIdx.x] += scale * sum.value;
}

/// Half the derivative of the square, or that of the magnitude, 0 at 0.
template <class T>
__device__ __forceinline__ T difference_slope(PairProduct product, T difference) {
  if (product == PairProduct::squared_difference) return difference;
  return (difference > 0 ? T(1) : T(0)) - (difference < 0 ? T(1) : T(0));
}

/// How weights lie in memory for one side of their block.
template <class T>
struct WeightsOf {
  const T* data;
  std::int64_t row_stride, column_stride;
};

/// grads of `to` += Σ_j weight_ij·slope(to_i − from_j). A block a row and some of its numbers.
template <class T>
__global__ void add_weighted_differences(PairProduct product, WeightsOf<T> weights, MappedRows<T> to, std::int64_t to_begin,
                                         MappedRows<T> from, std::int64_t from_begin, std::int64_t from_count) {
  const std::int64_t k = static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x, i = blockIdx.x, depth = to.depth;
  if (k >= depth) return;
  const std::int64_t at = (to_begin + i) * depth + k;
  const T mine = to.values[at], scale = product == PairProduct::squared_difference ? T(2) : T(1);
  T sum = 0;
  for (std::int64_t j = 0; j < from_count; ++j) {
    const T other = from.values[(from_begin + j) * depth + k];
    sum += weights.data[i * weights.row_stride + j * weights.column_stride] * difference_slope(product, mine - other);
  }
  to.grads[at] += scale * sum;
}

}  // namespace

template <class T>
GramPullBack<T>::GramPullBack(Call& call, const GramPairs<T>& pairs, const T* gram, double* sums)
    : call_(call),
      pairs_(pairs),
      gram_(gram),
      sums_(sums),
      products_(call.allocate<T>(pairs.block_size())),
      upstream_(call.allocate<T>(pairs.block_size())),
      weights_(call.allocate<T>(pairs.block_size())),
      row_sums_(call.allocate<double>(kParametersOfPass * pairs.block_rows())),
      column_sums_(call.allocate<double>(2 * tiles(pairs.block_rows(), kRowsOfColumnSum) * std::min(pairs.columns(), kBlockColumns))) {}

template <class T>
void GramPullBack<T>::add(const Fill& fill) const {
  for_each_block_above(pairs_, [&](const BlockPlace& at) {
    fill(at, {upstream_, at.columns});
    for (std::size_t layer = 0; layer < pairs_.plan->layers.size(); ++layer) add_layer(layer, at);
  });
}

template <class T>
void GramPullBack<T>::add_layer(std::size_t layer, const BlockPlace& at) const {
  const GramLayer& of = pairs_.plan->layers[layer];
  const BlockMemory<T> memory{products_, at.columns};
  const PairBlock<T> block =
      gram_ ? make_distances(call_, pairs_, of, at, gram_, memory) : make_products(call_, pairs_, of, at, memory);
  bool first = true;
  for (std::int32_t m = 0; m < pairs_.members->count(); ++m) {
    if (pairs_.plan->layer_of[static_cast<std::size_t>(m)] != static_cast<std::int32_t>(layer)) continue;
    add_member(m, of.product, block, first);
    first = false;
  }
  multiply_weights(of.product, block);
}

template <class T>
void GramPullBack<T>::add_member(std::int32_t m, PairProduct product, const PairBlock<T>& block, bool first) const {
  const KernelMember& member = (*pairs_.members)[m];
  const BlockPlace& at = block.at;
  const bool fixed_squares = member.plain() && pairs_.members->normalizes();
  const PairSlopesOf<T> slopes{{member}, product, fixed_squares, block, {upstream_, at.columns}};
  const unsigned threads = row_threads(at.columns);
  call_.launch(weigh_rows<T>, {{static_cast<unsigned>(at.rows), 1, 1}, threads, merge_block_bytes<RowSums>(threads)}, slopes,
               BlockMemory<T>{weights_, at.columns}, first ? Accumulate::no : Accumulate::yes, row_sums_);
  add_sums(row_sums_, 1, at, sums_ + pairs_.members->places().log_weights + m);
  if (has_columns(at) && product == PairProduct::inner) add_column_sums(slopes);
  add_parameter_sums(m, slopes);
}

/// Both halves of a symmetric matrix are in the weights, so that columns need no gradient of their own on the diagonal.
template <class T>
bool GramPullBack<T>::has_columns(const BlockPlace& at) const {
  return !pairs_.on_diagonal(at);
}

template <class T>
template <class Slopes>
void GramPullBack<T>::add_column_sums(const Slopes& slopes) const {
  const BlockPlace& at = slopes.block.at;
  const unsigned parts = tiles(at.rows, kRowsOfColumnSum), across = tiles(at.columns, kThreads);
  call_.launch(sum_columns<T>, {{across, parts, 1}, kThreads}, slopes, column_sums_);
  call_.launch(add_to_columns<T>, {{across, 1, 1}, kThreads}, column_sums_, parts, at, slopes.block.right);
}

template <class T>
template <class Slopes>
void GramPullBack<T>::add_parameter_sums(std::int32_t m, const Slopes& slopes) const {
  const KernelMember& member = slopes.of.member;
  if (member.map == KernelMap::landmarks) return;  // its parameters weigh features
  const BlockPlace& at = slopes.block.at;
  double* const to = sums_ + pairs_.members->places().parameters[static_cast<std::size_t>(m)];
  const unsigned threads = std::min(row_threads(at.columns), kThreads);
  for (std::int64_t begin = 0; begin < member.formula.parameter_count; begin += kParametersOfPass) {
    const std::int64_t end = std::min(member.formula.parameter_count, begin + kParametersOfPass);
    const std::size_t bytes = (kWarpSize + static_cast<std::size_t>(end - begin) * threads) * sizeof(double);
    call_.launch(sum_parameter_slopes<T>, {{static_cast<unsigned>(at.rows), 1, 1}, threads, bytes}, slopes, begin, end, row_sums_);
    add_sums(row_sums_, end - begin, at, to + begin);
  }
}

/// On the diagonal the weights hold every pair twice.
template <class T>
void GramPullBack<T>::add_sums(const double* partial, std::int64_t count, const BlockPlace& at, double* to) const {
  const unsigned threads = row_threads(at.rows);
  call_.launch(add_row_sums, {{static_cast<unsigned>(count), 1, 1}, threads, merge_block_bytes<Sum>(threads)}, partial, at.rows,
               pairs_.on_diagonal(at) ? 0.5 : 1.0, to);
}

template <class T>
void GramPullBack<T>::multiply_weights(PairProduct product, const PairBlock<T>& block) const {
  const BlockPlace& at = block.at;
  const MappedRows<T>&left = block.left, &right = block.right;
  const std::int64_t depth = left.depth, stride = at.columns;
  if (product == PairProduct::inner) {
    multiply<T>(call_, {at.rows, depth, at.columns}, {weights_, stride}, {right.values + at.column * depth, depth},
                left.grads + at.row * depth, depth, Accumulate::yes);
    if (!has_columns(at)) return;
    multiply<T>(call_, {at.columns, depth, at.rows}, {weights_, stride, true}, {left.values + at.row * depth, depth},
                right.grads + at.column * depth, depth, Accumulate::yes);
    return;
  }
  const unsigned threads = block_threads(depth), across = tiles(depth, threads);
  call_.launch(add_weighted_differences<T>, {{static_cast<unsigned>(at.rows), across, 1}, threads}, product,
               WeightsOf<T>{weights_, stride, 1}, left, at.row, right, at.column, at.columns);
  if (!has_columns(at)) return;
  call_.launch(add_weighted_differences<T>, {{static_cast<unsigned>(at.columns), across, 1}, threads}, product,
               WeightsOf<T>{weights_, 1, stride}, right, at.column, left, at.row, at.rows);
}

template class GramPullBack<float>;
template class GramPullBack<double>;

}  // namespace dpo::cuda
