// The pull-back of a Gram matrix: weights upstream·∂K/∂(what formulas see), a block of the matrix at a time and in each block a
// layer at a time, and their products with the mapped rows of the other side.
#pragma once

#include "native/cpu/gram_call.h"

namespace dpo::cpu {

/// Sums over a tile, beside the weights.
template <class T>
struct TileSums {
  double *row_self, *row_mean;  // [rows]: weights of the row itself and of the mean in the gradient of the row
  T *col_self, *col_mean;       // [cols], whole vectors
  Vec<T>* row_parameters;       // room for each of the kernel's parameters
  double *parameters, *log_weight;
};

namespace detail {

template <class T>
[[gnu::always_inline]] inline void add_to(T* to, Vec<T> values) {
  store(to, load(to) + values);
}

}  // namespace detail

/// weights = or += upstream·∂(w·k)/∂(what the layer's product is), for every pair of the tile; whole vectors are written.
template <class T>
void add_slopes(const GramPlan& plan, std::int32_t m, PairProduct product, const TileView<T>& tile, const T* upstream,
                std::int64_t upstream_stride, T* weights, std::int64_t stride, Update update, const TileSums<T>& sums) {
  using V = Vec<T>;
  using E = VectorFunctions<T>;
  const KernelMember& member = plan.members[m];
  const auto log_weight = static_cast<T>(log_weight_of(plan, m));
  const bool scaled = is_scaled(member);
  // Rows of length 1 have no slope along themselves.
  const bool fixed_squares = member.plain() && plan.members.normalizes();
  const std::int64_t parameters = member.map == KernelMap::landmarks ? 0 : member.formula.parameter_count;
  with_member<T>(plan, m, [&](const auto& kernel) {
    using Kernel = std::remove_cvref_t<decltype(kernel)>;
    for (std::int64_t i = 0; i < tile.rows(); ++i) {
      V total{}, row_self{}, row_mean{};
      std::fill_n(sums.row_parameters, parameters, V{});
      for (std::int64_t j = 0; j < tile.cols(); j += lanes<T>) {
        const auto seen = tile.template seen<Kernel>(i, j);
        const auto point = kernel.template at<E>(seen);
        V log_k = point.value + log_weight;
        if (scaled) log_k += tile.log_scale(i, j);
        const V k = load(upstream + i * upstream_stride + j) * exp(log_k);
        total += k;
        V weight;
        if constexpr (Kernel::seen == math::Seen::inner_product) {
          weight = k * point.slopes.uv;
          const V of_u = fixed_squares ? V{} : 2 * k * point.slopes.uu;
          const V of_v = fixed_squares ? V{} : 2 * k * point.slopes.vv;
          row_self += of_u;
          row_mean += weight + of_u;
          detail::add_to<T>(sums.col_self + j, of_v);
          detail::add_to<T>(sums.col_mean + j, weight + of_v);
        } else {
          weight = k * point.slope;
          if (product == PairProduct::inner) {
            // r² = ‖u‖² + ‖v‖² − 2⟨u, v⟩, whatever the mean.
            weight *= T(-2);
            row_self -= weight;
            detail::add_to<T>(sums.col_self + j, -weight);
          }
        }
        T* to = weights + i * stride + j;
        store(to, update == Update::accumulate ? load(to) + weight : weight);
        kernel.template parameter_slopes<E>(seen, [&](std::int64_t p, V slope) { sums.row_parameters[p] += k * slope; });
      }
      *sums.log_weight += static_cast<double>(horizontal_sum(total));
      sums.row_self[i] += static_cast<double>(horizontal_sum(row_self));
      sums.row_mean[i] += static_cast<double>(horizontal_sum(row_mean));
      for (std::int64_t p = 0; p < parameters; ++p)
        sums.parameters[p] += static_cast<double>(horizontal_sum(sums.row_parameters[p]));
    }
  });
}

/// The weights of one block of the matrix at a time, and what becomes of them.
template <class T>
class GramPullBack {
 public:
  GramPullBack(dpo_job* job, const GramPlan& plan)
      : job_(job),
        plan_(plan),
        scratch_(job, scratch_size(plan)),
        workspace_(job, static_cast<std::int64_t>(gemm_workspace<T>)) {}

  /// Adds the gradients of Σ upstream·K to those of the mapped rows and to `sums`. fill(place, tile, stride) makes a tile of the
  /// upstream, of the same rows that of U + Uᵀ. gram: K where distances are to be taken from it, or null.
  template <class Fill>
  dpo_status add(const GramPairs<T>& pairs, const Fill& fill, double* sums, const T* gram = nullptr) {
    gram_ = gram;
    const std::int64_t side = tile_side(pairs.rows(), pairs.cols());
    if (!reserve(pairs, side)) return out_of_memory(job_);
    for (std::int64_t i = 0; i < pairs.rows(); i += kGramBlock) {
      for (std::int64_t j = pairs.same ? i : 0; j < pairs.cols(); j += kGramBlock) {
        const TilePlace at{{i, std::min(pairs.rows(), i + kGramBlock)}, {j, std::min(pairs.cols(), j + kGramBlock)}};
        for (std::size_t layer = 0; layer < plan_.layers.size(); ++layer) {
          if (const dpo_status status = add_block({pairs, plan_.layers[layer], layer, at, side}, fill, sums); status != DPO_OK)
            return status;
        }
      }
    }
    return DPO_OK;
  }

 private:
  static constexpr std::int64_t kRowsPerChunk = 256;

  struct Block {
    const GramPairs<T>& pairs;
    const GramLayer& layer;
    std::size_t layer_index;
    TilePlace at;
    std::int64_t side;  // of its tiles

    std::int64_t down() const { return (at.rows.size() + side - 1) / side; }
    std::int64_t across() const { return (at.cols.size() + side - 1) / side; }
    bool on_diagonal() const { return pairs.same && at.rows.begin == at.cols.begin; }
    /// Both halves of a symmetric matrix are in the weights, so that columns need no gradient of their own on the diagonal.
    bool has_columns() const { return !on_diagonal(); }
  };

  static std::int64_t parameters_of(const GramPlan& plan) {
    std::int64_t most = 0;
    for (std::int32_t m = 0; m < plan.members.count(); ++m) most = std::max(most, plan.members[m].formula.parameter_count);
    return most;
  }
  static std::int64_t scratch_size(const GramPlan& plan) {
    return 2 * kGramTile * kGramTile + 2 * kGramTile + parameters_of(plan) * lanes<T>;
  }

  bool reserve(const GramPairs<T>& pairs, std::int64_t side) {
    const std::int64_t rows = std::min(kGramBlock, pairs.rows()), cols = std::min(kGramBlock, pairs.cols());
    const std::int64_t down = (rows + side - 1) / side, across = (cols + side - 1) / side;
    stride_ = across * side;
    weights_ = allocate<T>(job_, rows * stride_);
    row_sums_ = allocate<double>(job_, across * 2 * rows);
    col_sums_ = allocate<double>(job_, down * 2 * cols);
    tile_sums_ = allocate<double>(job_, down * across * plan_.places.size);
    return weights_ && row_sums_ && col_sums_ && tile_sums_;
  }

  template <class Fill>
  dpo_status add_block(const Block& block, const Fill& fill, double* sums) {
    const std::int64_t tiles = block.down() * block.across();
    const dpo_status status = parallel_for(job_, tiles, [&](std::int64_t tile) {
      scratch_.with_buffer([&](T* buffer) { make_weights(block, tile / block.across(), tile % block.across(), buffer, fill); });
    });
    if (status != DPO_OK) return status;
    if (scratch_.exhausted()) return out_of_memory(job_);
    merge_sums(block, sums);
    return multiply(block);
  }

  template <class Fill>
  void make_weights(const Block& block, std::int64_t down, std::int64_t across, T* buffer, const Fill& fill) {
    const std::int64_t side = block.side, i = down * side, j = across * side;
    const TilePlace at{{block.at.rows.begin + i, std::min(block.at.rows.end, block.at.rows.begin + i + side)},
                       {block.at.cols.begin + j, std::min(block.at.cols.end, block.at.cols.begin + j + side)}};
    T* product = buffer;
    T* upstream = product + side * side;
    T* col_sums = upstream + side * side;
    fill(at, upstream, side);
    pad(upstream, at, side);
    const TileHolds holds = make_seen(block, at, product);
    const std::int64_t block_rows = block.at.rows.size(), block_cols = block.at.cols.size(), size = plan_.places.size;
    double* totals = tile_sums_ + (down * block.across() + across) * size;
    double* row_self = row_sums_ + across * 2 * block_rows + i;
    double* col_self = col_sums_ + down * 2 * block_cols + j;
    std::fill_n(totals, size, 0.0);
    std::fill_n(row_self, at.rows.size(), 0.0);
    std::fill_n(row_self + block_rows, at.rows.size(), 0.0);
    std::fill_n(col_sums, 2 * side, T(0));
    const TileView<T> view(block.pairs, block.layer, at, product, side, holds);
    Update update = Update::overwrite;
    for (std::int32_t m = 0; m < plan_.members.count(); ++m) {
      const auto place = static_cast<std::size_t>(m);
      if (plan_.layer_of[place] != static_cast<std::int32_t>(block.layer_index)) continue;
      const TileSums<T> tile_sums{row_self,
                                  row_self + block_rows,
                                  col_sums,
                                  col_sums + side,
                                  reinterpret_cast<Vec<T>*>(col_sums + 2 * side),
                                  totals + plan_.places.parameters[place],
                                  totals + plan_.places.log_weights + m};
      add_slopes(plan_, m, block.layer.product, view, upstream, side, weights_ + i * stride_ + j, stride_, update, tile_sums);
      update = Update::accumulate;
    }
    for (std::int64_t c = 0; c < at.cols.size(); ++c) {
      col_self[c] = static_cast<double>(col_sums[c]);
      col_self[block_cols + c] = static_cast<double>(col_sums[side + c]);
    }
  }

  TileHolds make_seen(const Block& block, TilePlace at, T* tile) const {
    if (!gram_) return make_product(block.pairs, block.layer, at, tile, block.side);
    make_distances(plan_, at, gram_, block.pairs.cols(), tile, block.side);
    return TileHolds::distances;
  }

  static void pad(T* upstream, TilePlace at, std::int64_t stride) {
    const std::int64_t cols = at.cols.size(), padded = (cols + lanes<T> - 1) / lanes<T> * lanes<T>;
    for (std::int64_t i = 0; cols < padded && i < at.rows.size(); ++i)
      std::fill(upstream + i * stride + cols, upstream + i * stride + padded, T(0));
  }

  void merge_sums(const Block& block, double* sums) const {
    const std::int64_t rows = block.at.rows.size(), cols = block.at.cols.size(), size = plan_.places.size;
    const MappedRows<T>&left = block.pairs.left_of(block.layer), &right = block.pairs.right_of(block.layer);
    for (std::int64_t across = 0; across < block.across(); ++across) {
      for (std::int64_t i = 0; i < rows; ++i) {
        left.self[block.at.rows.begin + i] += row_sums_[across * 2 * rows + i];
        left.mean[block.at.rows.begin + i] += row_sums_[(across * 2 + 1) * rows + i];
      }
    }
    for (std::int64_t down = 0; block.has_columns() && down < block.down(); ++down) {
      for (std::int64_t j = 0; j < cols; ++j) {
        right.self[block.at.cols.begin + j] += col_sums_[down * 2 * cols + j];
        right.mean[block.at.cols.begin + j] += col_sums_[(down * 2 + 1) * cols + j];
      }
    }
    // On the diagonal the weights hold every pair twice.
    const std::int64_t tiles = block.down() * block.across();
    if (block.on_diagonal()) {
      for (std::int64_t i = 0; i < tiles * size; ++i) tile_sums_[i] /= 2;
    }
    for (std::int64_t tile = 0; tile < tiles; ++tile) plan_.add_sums(tile_sums_ + tile * size, sums);
  }

  dpo_status multiply(const Block& block) {
    const MappedRows<T>&left = block.pairs.left_of(block.layer), &right = block.pairs.right_of(block.layer);
    const std::int64_t down = (block.at.rows.size() + kRowsPerChunk - 1) / kRowsPerChunk;
    const std::int64_t across = block.has_columns() ? (block.at.cols.size() + kRowsPerChunk - 1) / kRowsPerChunk : 0;
    const MatrixView<T> weights{weights_, stride_, 1};
    const dpo_status status = parallel_for(job_, down + across, [&](std::int64_t chunk) {
      workspace_.with_buffer([&](T* buffer) {
        if (chunk < down) {
          add_products(block.layer.product, weights, block.at.rows, chunk, left, right, block.at.cols, buffer);
        } else {
          add_products(block.layer.product, weights.transposed(), block.at.cols, chunk - down, right, left, block.at.rows,
                       buffer);
        }
      });
    });
    return status == DPO_OK && workspace_.exhausted() ? out_of_memory(job_) : status;
  }

  /// One chunk of grads of `to` += weights·rows of `from`.
  void add_products(PairProduct product, MatrixView<T> weights, Range rows, std::int64_t chunk, const MappedRows<T>& to,
                    const MappedRows<T>& from, Range others, T* buffer) const {
    const std::int64_t i = chunk * kRowsPerChunk, count = std::min(kRowsPerChunk, rows.size() - i), depth = to.depth;
    const MatrixView<T> part = weights.at(i, 0);
    T* grads = to.grads + (rows.begin + i) * depth;
    if (product == PairProduct::inner) {
      gemm(part, count, from.packed_block(others.begin / kGramBlock), Range{0, depth}, grads, depth, Update::accumulate,
           std::span<T>(buffer, gemm_workspace<T>));
      return;
    }
    const T* values = from.values + others.begin * depth;
    for (std::int64_t r = 0; r < count; ++r) {
      const T* row = to.values + (rows.begin + i + r) * depth;
      const T* row_weights = part.data + r * part.row_stride;
      if (product == PairProduct::squared_difference) {
        add_weighted_differences<DifferenceTerm::square>(row, values, others.size(), depth, row_weights, part.col_stride,
                                                         grads + r * depth);
      } else {
        add_weighted_differences<DifferenceTerm::magnitude>(row, values, others.size(), depth, row_weights, part.col_stride,
                                                            grads + r * depth);
      }
    }
  }

  dpo_job* job_;
  const GramPlan& plan_;
  const T* gram_ = nullptr;
  std::int64_t stride_ = 0;
  T* weights_ = nullptr;
  double* row_sums_ = nullptr;
  double* col_sums_ = nullptr;
  double* tile_sums_ = nullptr;
  Scratch<T> scratch_, workspace_;
};

}  // namespace dpo::cpu
