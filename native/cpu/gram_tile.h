// One tile of a Gram matrix: the product of mapped rows, and the kernels on top of it while it is in the cache.
#pragma once

#include <type_traits>

#include "native/cpu/gram_differences.h"
#include "native/cpu/gram_rows.h"
#include "native/cpu/vector_functions.h"

namespace dpo::cpu {

/// The part of the matrix that a tile is.
struct TilePlace {
  Range rows, cols;
};

/// Rows x against rows y. `same`: they are the same rows.
template <class T>
struct GramPairs {
  const GramPlan* plan;
  const std::vector<MappedRows<T>>* left;
  const std::vector<MappedRows<T>>* right;
  bool same;

  std::int64_t rows() const { return left->front().count; }
  std::int64_t cols() const { return right->front().count; }
  const MappedRows<T>& left_of(const GramLayer& layer) const { return (*left)[static_cast<std::size_t>(layer.map)]; }
  const MappedRows<T>& right_of(const GramLayer& layer) const { return (*right)[static_cast<std::size_t>(layer.map)]; }
};

enum class TileHolds { products, distances };

/// Makes the tile of a layer's product, or of its distances where they are summed, followed by zeros up to whole vectors. On the
/// diagonal of the same rows distances are exactly 0.
template <class T>
TileHolds make_product(const GramPairs<T>& pairs, const GramLayer& layer, TilePlace at, T* tile, std::int64_t stride) {
  const MappedRows<T>&left = pairs.left_of(layer), &right = pairs.right_of(layer);
  const auto lhs = left.packed_lhs();
  const auto rhs = right.packed_rhs();
  switch (layer.product) {
    case PairProduct::squared_difference:
      sum_differences<DifferenceTerm::square>(lhs, at.rows, rhs, at.cols, tile, stride);
      break;
    case PairProduct::absolute_difference:
      sum_differences<DifferenceTerm::magnitude>(lhs, at.rows, rhs, at.cols, tile, stride);
      break;
    case PairProduct::inner:
      gemm(lhs, at.rows, rhs, at.cols, tile, stride, Update::overwrite);
      for (std::int64_t i = std::max(at.rows.begin, at.cols.begin); pairs.same && i < std::min(at.rows.end, at.cols.end); ++i)
        tile[(i - at.rows.begin) * stride + (i - at.cols.begin)] = left.norms[i];
  }
  const std::int64_t cols = at.cols.size(), padded = (cols + lanes<T> - 1) / lanes<T> * lanes<T>;
  for (std::int64_t i = 0; cols < padded && i < at.rows.size(); ++i)
    std::fill(tile + i * stride + cols, tile + i * stride + padded, T(0));
  return layer.product == PairProduct::inner ? TileHolds::products : TileHolds::distances;
}

/// Makes the tile of squared distances from that of K, of a kernel whose distance follows from its value; 0 counts as the
/// smallest normal number. Whole vectors are written.
template <class T>
void make_distances(const GramPlan& plan, TilePlace at, const T* gram, std::int64_t gram_stride, T* tile, std::int64_t stride) {
  using V = Vec<T>;
  using E = VectorFunctions<T>;
  math::with_log_kernel<T>(plan.members[0].formula, [&](const auto& kernel) {
    if constexpr (requires { kernel.squared_distance(V{}); }) {
      for (std::int64_t i = 0; i < at.rows.size(); ++i) {
        const T* row = gram + (at.rows.begin + i) * gram_stride + at.cols.begin;
        for (std::int64_t j = 0; j < at.cols.size(); j += lanes<T>) {
          const int n = static_cast<int>(std::min<std::int64_t>(lanes<T>, at.cols.size() - j));
          const V k = n == lanes<T> ? load(row + j) : load_partial(row + j, n, T(1));
          // What is not finite stays so, for the check of the sums to find.
          const V log_k = E::log(max(k, V{} + std::numeric_limits<T>::min())) + k * T(0);
          const V squared = kernel.squared_distance(log_k);
          store(tile + i * stride + j, squared < 0 ? V{} : squared);
        }
      }
    }
  });
}

/// What formulas see of the pairs of a tile of products or distances.
template <class T>
class TileView {
 public:
  using V = Vec<T>;

  TileView(const GramPairs<T>& pairs, const GramLayer& layer, TilePlace at, const T* tile, std::int64_t stride, TileHolds holds)
      : left_(pairs.left_of(layer)),
        right_(pairs.right_of(layer)),
        at_(at),
        tile_(tile),
        stride_(stride),
        of_products_(holds == TileHolds::products) {}

  std::int64_t rows() const { return at_.rows.size(); }
  std::int64_t cols() const { return at_.cols.size(); }

  template <class Kernel>
  [[gnu::always_inline]] auto seen(std::int64_t i, std::int64_t j) const {
    const std::int64_t row = at_.rows.begin + i, col = at_.cols.begin + j;
    const V product = load(tile_ + i * stride_ + j);
    if constexpr (Kernel::seen == math::Seen::inner_product) {
      return math::InnerProducts<V>{product + (left_.offsets[row] + load(right_.offsets + col)), broadcast(left_.squares[row]),
                                    load(right_.squares + col)};
    } else {
      if (!of_products_) return product;
      const V squared = (left_.norms[row] + load(right_.norms + col)) - 2 * product;
      return max(squared, V{});
    }
  }

  /// ln of what the features of both rows were divided by.
  [[gnu::always_inline]] V log_scale(std::int64_t i, std::int64_t j) const {
    return left_.log_scales[at_.rows.begin + i] + load(right_.log_scales + at_.cols.begin + j);
  }

 private:
  const MappedRows<T>&left_, &right_;
  TilePlace at_;
  const T* tile_;
  std::int64_t stride_;
  bool of_products_;
};

template <class T, class Visit>
void with_member(const GramPlan& plan, std::int32_t m, const Visit& visit) {
  math::with_log_kernel<T>(plan.members[m].formula, visit);
}

inline double log_weight_of(const GramPlan& plan, std::int32_t m) {
  return plan.members.is_mixture() ? plan.members.log_weight(m) : 0.0;
}

/// Whether ln k has to be completed by what features were divided by.
inline bool is_scaled(const KernelMember& member) { return member.map == KernelMap::landmarks && !member.formula.unit_diagonal; }

/// to = or += w·k for every pair of the tile.
template <class T>
void add_values(const GramPlan& plan, std::int32_t m, const TileView<T>& tile, T* to, std::int64_t stride, Update update) {
  using V = Vec<T>;
  using E = VectorFunctions<T>;
  const auto log_weight = static_cast<T>(log_weight_of(plan, m));
  const bool scaled = is_scaled(plan.members[m]);
  with_member<T>(plan, m, [&](const auto& kernel) {
    using Kernel = std::remove_cvref_t<decltype(kernel)>;
    for (std::int64_t i = 0; i < tile.rows(); ++i) {
      T* row = to + i * stride;
      for (std::int64_t j = 0; j < tile.cols(); j += lanes<T>) {
        V log_k = kernel.template at<E>(tile.template seen<Kernel>(i, j)).value + log_weight;
        if (scaled) log_k += tile.log_scale(i, j);
        V k = exp(log_k);
        const int n = static_cast<int>(std::min<std::int64_t>(lanes<T>, tile.cols() - j));
        if (n == lanes<T>) {
          if (update == Update::accumulate) k += load(row + j);
          store(row + j, k);
        } else {
          if (update == Update::accumulate) k += load_partial(row + j, n, T(0));
          store_partial(row + j, n, k);
        }
      }
    }
  });
}

/// K of the tile. `product` holds one tile.
template <class T>
void make_gram_tile(const GramPairs<T>& pairs, TilePlace at, T* product, std::int64_t product_stride, T* to,
                    std::int64_t stride) {
  const GramPlan& plan = *pairs.plan;
  Update update = Update::overwrite;
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    const TileHolds holds = make_product(pairs, plan.layers[l], at, product, product_stride);
    const TileView<T> tile(pairs, plan.layers[l], at, product, product_stride, holds);
    for (std::int32_t m = 0; m < plan.members.count(); ++m) {
      if (plan.layer_of[static_cast<std::size_t>(m)] != static_cast<std::int32_t>(l)) continue;
      add_values(plan, m, tile, to, stride, update);
      update = Update::accumulate;
    }
  }
}

}  // namespace dpo::cpu
