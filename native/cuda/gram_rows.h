// The rows of one matrix as the kernels of a Gram matrix see them, mapped once, and the way back of their gradients.
#pragma once

#include <cstdint>
#include <vector>

#include "native/core/gram_plan.h"
#include "native/cuda/kernel_members.h"
#include "native/cuda/storage.h"

namespace dpo::cuda {

/// Rows under one map, on the device.
template <class T>
struct MappedRows {
  std::int64_t count, depth;
  T* values;      // [count, depth]
  T* norms;       // ‖row‖²
  T* offsets;     // ⟨u, v⟩ of the rows before their mean was taken off is the product of these plus both offsets
  T* squares;     // ⟨u, u⟩ of those rows
  T* log_scales;  // ln of what features were divided by
  T* grads;       // [count, depth]: Σ weight·(other row); null without a gradient
  double* self;   // [count]: weight of the row itself in its gradient
  double* mean;   // [count]: weight of the mean that was taken off
};

template <class S>
class GramRows {
 public:
  using T = compute_t<S>;

  GramRows(Call& call, const GramPlan& plan, const KernelMembers& members, const char* name, const dpo_tensor& rows);

  /// Checks what the rows hold, and measures them. False when the call has failed.
  bool measure();
  /// Adds the rows, as kernels see them, to sums [depth].
  void add_sums(double* sums) const;
  /// Maps the rows. `mean` [depth] is taken off them, null for none. False when the call has failed.
  bool map(const double* mean, bool gradient);

  /// Takes the gradients of the mapped rows back to the rows. `sums` gets those of the parameters of maps.
  void pull_back(const dpo_tensor& grads, double* sums) const;

  std::int64_t count() const { return count_; }
  const std::vector<MappedRows<T>>& mapped() const { return mapped_; }

 private:
  struct Chunk;

  bool fail_at(std::int64_t row) const;
  std::int64_t rows_per_chunk() const;
  Chunk allocate_chunk() const;
  void load(Chunk& chunk, std::int64_t begin) const;
  MappedRows<T> allocate_mapped(std::int32_t map, bool gradient) const;
  void map_chunk(const Chunk& chunk, std::size_t place, unsigned long long* too_long) const;
  void make_phases(const Chunk& chunk, const KernelMember& member) const;
  void pull_back_chunk(const Chunk& chunk, std::size_t place, double* sums) const;

  Call& call_;
  const GramPlan& plan_;
  const KernelMembers& members_;
  const char* name_;
  const S* rows_;
  std::int64_t count_, depth_;
  double *scales_, *squares_;  // [count]: what rows are multiplied by, and their squared lengths after that
  const double* mean_ = nullptr;
  std::vector<MappedRows<T>> mapped_;
};

extern template class GramRows<float>;
extern template class GramRows<double>;
extern template class GramRows<__half>;
extern template class GramRows<__nv_bfloat16>;

}  // namespace dpo::cuda
