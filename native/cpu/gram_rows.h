// The rows of one matrix as the kernels of a Gram matrix see them, mapped once, and the way back of their gradients.
#pragma once

#include <cstdint>
#include <vector>

#include "native/cpu/gemm.h"
#include "native/cpu/gram_plan.h"
#include "native/cpu/operation.h"
#include "native/cpu/scratch.h"

namespace dpo::cpu {

/// Side of the square tiles that a Gram matrix is computed in, and how many of them make a block of a pull-back's weights.
inline constexpr std::int64_t kGramTile = 384;
inline constexpr std::int64_t kSmallGramTile = 96;
inline constexpr std::int64_t kGramBlock = 5 * kGramTile;

/// Rows under one map. What is kept per row goes on with harmless numbers up to whole vectors.
template <class T>
struct MappedRows {
  std::int64_t count, depth;
  T* values;      // [count, depth]
  T* norms;       // ‖row‖²
  T* offsets;     // ⟨u, v⟩ of the rows before their mean was taken off is the product of these plus both offsets
  T* squares;     // ⟨u, u⟩ of those rows
  T* log_scales;  // ln of what features were divided by
  T* lhs;         // packed, or null
  T* rhs;
  T* blocks;     // the rows of each kGramBlock as the right operand of a product with weights
  T* grads;      // [count, depth]: Σ weight·(other row)
  double* self;  // [count]: weight of the row itself in its gradient
  double* mean;  // [count]: weight of the mean that was taken off

  PackedLhs<T> packed_lhs() const { return {std::span<T>(lhs, PackedLhs<T>::size(count, depth)), count, depth}; }
  PackedRhs<T> packed_rhs() const { return {std::span<T>(rhs, PackedRhs<T>::size(count, depth)), count, depth}; }
  /// Rows block·kGramBlock and on, as [rows, depth].
  PackedRhs<T> packed_block(std::int64_t block) const {
    const std::int64_t begin = block * kGramBlock, rows = std::min(kGramBlock, count - begin);
    T* at = blocks + static_cast<std::int64_t>(PackedRhs<T>::size(depth, begin));
    return {std::span<T>(at, PackedRhs<T>::size(depth, rows)), depth, rows};
  }
};

/// Which packed forms of the rows are needed.
struct RowUses {
  bool left, right, gradient;
};

template <class S>
class GramRows {
 public:
  using T = compute_t<S>;

  GramRows(dpo_job* job, const GramPlan& plan, const char* name, const dpo_tensor& rows);

  /// Checks what the rows hold, and measures them.
  dpo_status measure();
  /// Adds the rows, as kernels see them, to sums [stride].
  void add_sums(double* sums) const;
  /// Maps and packs the rows. `mean` [stride] is taken off them, null for none.
  dpo_status map(const double* mean, RowUses uses);

  /// Takes the gradients of the mapped rows back to the rows. `sums` gets those of the parameters of maps.
  dpo_status pull_back(const dpo_tensor& grads, double* sums);

  std::int64_t count() const { return count_; }
  const std::vector<MappedRows<T>>& mapped() const { return mapped_; }

 private:
  struct Chunk;

  /// The longest squared length: sums of several must stay within the range of T.
  static constexpr T longest = std::numeric_limits<T>::max() / 16;

  dpo_status fail_at(std::int64_t row) const;
  bool allocate_mapped(RowUses uses);
  dpo_status pack(RowUses uses);
  Chunk load_chunk(std::int64_t chunk, double* buffer) const;
  std::int64_t chunk_size() const;
  void map_chunk(const Chunk& chunk, std::size_t place) const;
  void finish_chunk(const Chunk& chunk, std::size_t place, const double* values) const;
  void pull_back_chunk(const Chunk& chunk, const dpo_tensor& grads, double* sums) const;
  void pull_back_map(const Chunk& chunk, std::size_t place, double* sums) const;
  void add_base_gradient(const Chunk& chunk) const;
  void store_gradient(const Chunk& chunk, const dpo_tensor& grads) const;
  dpo_status add_factor_gradients(double* sums);
  std::int64_t chunks() const;

  dpo_job* job_;
  const GramPlan& plan_;
  const char* name_;
  const S* rows_;
  std::int64_t count_, depth_, stride_, rows_per_chunk_;
  bool normalize_;
  double* scales_ = nullptr;
  double* chunk_sums_ = nullptr;
  const double* mean_ = nullptr;
  Scratch<double> scratch_;
  std::vector<MappedRows<T>> mapped_;
};

extern template class GramRows<float>;
extern template class GramRows<double>;
extern template class GramRows<f16>;
extern template class GramRows<bf16>;

}  // namespace dpo::cpu
