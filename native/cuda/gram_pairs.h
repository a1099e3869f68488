// A block of the pairs of a Gram matrix, and what the formulas of kernels see of each pair.
#pragma once

#include <cmath>
#include <type_traits>
#include <vector>

#include "native/cuda/device_functions.h"
#include "native/cuda/gram_rows.h"

namespace dpo::cuda {

/// The part of the matrix that a block is.
struct BlockPlace {
  std::int64_t row, rows, column, columns;
};

/// Blocks are at most so large, so that the working memory of any matrix is bounded.
inline constexpr std::int64_t kBlockRows = 1024, kBlockColumns = 2048;

/// Rows x against rows y. `same`: they are the same rows.
template <class T>
struct GramPairs {
  const GramPlan* plan;
  const KernelMembers* members;
  const std::vector<MappedRows<T>>* left;
  const std::vector<MappedRows<T>>* right;
  bool same;

  std::int64_t rows() const { return left->front().count; }
  std::int64_t columns() const { return right->front().count; }
  const MappedRows<T>& left_of(const GramLayer& layer) const { return (*left)[static_cast<std::size_t>(layer.map)]; }
  const MappedRows<T>& right_of(const GramLayer& layer) const { return (*right)[static_cast<std::size_t>(layer.map)]; }

  /// Elements of the largest block, and its rows.
  std::int64_t block_rows() const { return std::min(rows(), kBlockRows); }
  std::int64_t block_size() const { return block_rows() * std::min(columns(), kBlockColumns); }
  bool on_diagonal(const BlockPlace& at) const { return same && at.row == at.column; }
};

/// Calls body(place) for the blocks of the matrix.
template <class T, class Body>
void for_each_block(const GramPairs<T>& pairs, const Body& body) {
  for (std::int64_t i = 0; i < pairs.rows(); i += kBlockRows) {
    for (std::int64_t j = 0; j < pairs.columns(); j += kBlockColumns)
      body(BlockPlace{i, std::min(kBlockRows, pairs.rows() - i), j, std::min(kBlockColumns, pairs.columns() - j)});
  }
}

/// The same of a symmetric matrix for the squares on the diagonal and what is right of them; of others for all blocks.
template <class T, class Body>
void for_each_block_above(const GramPairs<T>& pairs, const Body& body) {
  if (!pairs.same) return for_each_block(pairs, body);
  for (std::int64_t i = 0; i < pairs.rows(); i += kBlockRows) {
    const std::int64_t rows = std::min(kBlockRows, pairs.rows() - i);
    body(BlockPlace{i, rows, i, rows});
    for (std::int64_t j = i + rows; j < pairs.columns(); j += kBlockColumns)
      body(BlockPlace{i, rows, j, std::min(kBlockColumns, pairs.columns() - j)});
  }
}

enum class BlockHolds { products, distances };

/// A block of products or distances of mapped rows, on the device.
template <class T>
struct PairBlock {
  BlockPlace at;
  const T* held;
  std::int64_t stride;
  BlockHolds holds;
  bool same;
  MappedRows<T> left, right;

  /// On the diagonal of the same rows distances are exactly 0.
  __device__ T value(std::int64_t i, std::int64_t j) const {
    const T value = held[i * stride + j];
    return same && holds == BlockHolds::products && at.row + i == at.column + j ? left.norms[at.row + i] : value;
  }

  template <class Kernel>
  __device__ __forceinline__ auto seen(std::int64_t i, std::int64_t j) const {
    const std::int64_t row = at.row + i, column = at.column + j;
    const T product = value(i, j);
    if constexpr (Kernel::seen == math::Seen::inner_product) {
      return math::InnerProducts<T>{product + (left.offsets[row] + right.offsets[column]), left.squares[row],
                                    right.squares[column]};
    } else {
      if (holds == BlockHolds::distances) return product;
      const T squared = (left.norms[row] + right.norms[column]) - 2 * product;
      return squared < 0 ? T(0) : squared;
    }
  }

  /// ln of what the features of both rows were divided by.
  __device__ T log_scale(std::int64_t i, std::int64_t j) const {
    return left.log_scales[at.row + i] + right.log_scales[at.column + j];
  }
};

/// ln k and its slopes, and all of its factors that are no part of the formula: w, and what features were divided by.
template <class T>
struct MemberOf {
  KernelMember member;

  __device__ bool scaled() const { return member.map == KernelMap::landmarks && !member.formula.unit_diagonal; }
  /// w·k from ln k.
  __device__ T weighted(T log_k, const PairBlock<T>& block, std::int64_t i, std::int64_t j) const {
    T log_value = log_k + static_cast<T>(member.log_weight);
    if (scaled()) log_value += block.log_scale(i, j);
    return std::exp(log_value);
  }
};

}  // namespace dpo::cuda
