// A block of rows of u with the same rows of one or two v, in double: ln K of its pairs, and the way back. Every embedding is
// read from memory once, whatever the number of kernels.
#pragma once

#include <cstdint>

#include "native/core/pair_kernel.h"
#include "native/cpu/kernel_formulas.h"
#include "native/cpu/kernel_members.h"
#include "native/cpu/kernel_rows.h"
#include "native/cpu/spectral_features.h"

namespace dpo::cpu {

struct PairShape {
  std::int64_t depth;
  std::int64_t sides;
  std::int64_t capacity;  // rows of u in a block
  bool gradients;

  std::int64_t stride() const { return row_stride(depth); }
  std::int64_t operands() const { return 1 + sides; }
  std::int64_t pairs() const { return sides * capacity; }
};

/// Hands out parts of one buffer; of no buffer, only counts.
class Carver {
 public:
  explicit Carver(double* buffer) : buffer_(buffer) {}
  double* take(std::int64_t count) {
    double* part = buffer_ ? buffer_ + used_ : nullptr;
    used_ += row_stride(count);
    return part;
  }
  std::int64_t used() const { return used_; }

 private:
  double* buffer_;
  std::int64_t used_ = 0;
};

/// Scratch for one block at a time. Operand 0 is u, 1 + side are the v; pair (side, row) is number side·capacity + row.
class PairBlock {
 public:
  PairBlock(const KernelMembers& kernels, const PairShape& shape, double* buffer);

  /// How many doubles the buffer needs.
  static std::int64_t size(const KernelMembers& kernels, const PairShape& shape);

  /// Reads `rows` rows from row `begin` on.
  template <Storage S>
  void load(const dpo_pair_kernel_args& args, std::int64_t begin, std::int64_t rows) {
    rows_count_ = rows;
    for (std::int64_t operand = 0; operand < shape_.operands(); ++operand) {
      const dpo_tensor& from = operand == 0 ? args.u : args.v[operand - 1];
      for (std::int64_t r = 0; r < rows; ++r) {
        const RowNorm norm =
            load_row(data<S>(from) + (begin + r) * shape_.depth, shape_.depth, kernels_.normalizes(), row(operand, r));
        scales_[operand * shape_.capacity + r] = norm.scale;
        squares_[operand * shape_.capacity + r] = norm.square;
      }
    }
  }

  std::int64_t pair(std::int64_t side, std::int64_t r) const { return side * shape_.capacity + r; }

  /// ln K of every pair; NaN or infinite where the formula of any kernel is.
  void evaluate();
  double log_k(std::int64_t pair) const { return log_k_[pair]; }
  double responsibility(std::int64_t pair, std::int32_t m) const { return responsibilities_[m * shape_.pairs() + pair]; }

  /// The gradient in ln K of a pair.
  void set_upstream(std::int64_t pair, double upstream) { upstreams_[pair] = upstream; }
  /// Adds the gradients of the parameters to `sums`, and prepares those of the rows. False when slopes are not finite.
  void pull_back(double* sums);

  /// Rounds the gradients of row r to the storage type.
  template <Storage S>
  void write_gradients(const dpo_pair_kernel_vjp_args& args, std::int64_t begin, std::int64_t r) {
    for (std::int64_t side = 0; side < shape_.sides; ++side) {
      pull_back_pair(side, r);
      write_row<S>(args.grad_v[side], begin, 1 + side, r, grad_v_);
    }
    write_row<S>(args.grad_u, begin, 0, r, grad_u_);
  }

 private:
  void carve(Carver& from);

  double* row(std::int64_t operand, std::int64_t r) const { return rows_ + (operand * shape_.capacity + r) * shape_.stride(); }
  double* row_grad(std::int64_t operand, std::int64_t r) const {
    return row_grads_ ? row_grads_ + (operand * shape_.capacity + r) * shape_.stride() : nullptr;
  }
  double* difference(std::int64_t side, std::int64_t r) const { return differences_ + pair(side, r) * shape_.stride(); }
  Seen& seen(std::int32_t m, std::int64_t pair) const { return seen_[m * shape_.pairs() + pair]; }
  LogKernelPoint& point(std::int32_t m, std::int64_t pair) const { return points_[m * shape_.pairs() + pair]; }
  SeenRows seen_rows(std::int64_t operand) const;
  SpectralScratch spectral(std::int32_t m, std::int64_t operand) const;

  template <class Visit>
  void for_each_pair(const Visit& visit) const {
    for (std::int64_t side = 0; side < shape_.sides; ++side) {
      for (std::int64_t r = 0; r < rows_count_; ++r) visit(side, r, pair(side, r));
    }
  }

  void measure();
  void map_differences(std::int32_t m);
  void map_to_features(std::int32_t m);
  void mix();
  double weight(std::int32_t m, std::int64_t pair) const { return upstreams_[pair] * responsibility(pair, m); }
  void pull_back_plain(std::int32_t m);
  void pull_back_diagonal(std::int32_t m, double* sums);
  void pull_back_differences(std::int32_t m, double* sums);
  void pull_back_features(std::int32_t m, double* sums);
  void pull_back_pair(std::int64_t side, std::int64_t r);

  template <Storage S>
  void write_row(const dpo_tensor& to, std::int64_t begin, std::int64_t operand, std::int64_t r, const double* grad) const {
    const double* seen = row(operand, r);
    const double scale = scales_[operand * shape_.capacity + r];
    // Of a normalised row only the part across it counts.
    const double along = kernels_.normalizes() ? inner_product(seen, grad, shape_.stride()) : 0;
    store_row(data<S>(to) + (begin + r) * shape_.depth, shape_.depth,
              [=](std::int64_t i) { return (cpu::load(grad + i) - along * cpu::load(seen + i)) * scale; });
  }

  const KernelMembers& kernels_;
  PairShape shape_;
  std::int64_t rows_count_ = 0;
  double *rows_, *scales_, *squares_, *differences_, *difference_grads_, *row_grads_, *log_k_, *responsibilities_, *upstreams_,
      *grad_u_, *grad_v_, *workspace_;
  double *distance_grads_, *absolute_grads_;  // [pairs]
  Seen* inner_grads_;                         // [pairs]
  double* weighted_grads_[DPO_MAX_MEMBERS];   // diagonal: [pairs]
  Seen* seen_;                                // [members, pairs]
  LogKernelPoint* points_;
  double* mapped_[DPO_MAX_MEMBERS];            // factor, frequencies: [pairs, width]
  SpectralScratch spectral_[DPO_MAX_MEMBERS];  // of all operands
};

}  // namespace dpo::cpu
