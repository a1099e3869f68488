// A block of rows of u with the same rows of one or two v, in double: ln K of its pairs, and the way back. Every embedding is
// read from memory once, whatever the number of kernels.
#pragma once

#include <algorithm>
#include <array>
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

  /// Reads `rows` rows from row `begin` on, and measures their pairs while they are in the nearest cache.
  template <Storage S>
  void load(const dpo_pair_kernel_args& args, std::int64_t begin, std::int64_t rows) {
    rows_count_ = rows;
    read_ahead<S>(args, begin + rows);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t operand = 0; operand < shape_.operands(); ++operand) {
        const dpo_tensor& from = operand == 0 ? args.u : args.v[operand - 1];
        const S* stored = data<S>(from) + (begin + r) * shape_.depth;
        const RowNorm norm = load_row(stored, shape_.depth, kernels_.normalizes(), row(operand, r));
        scales_[operand * shape_.capacity + r] = norm.scale;
        squares_[operand * shape_.capacity + r] = norm.square;
      }
      for (std::int64_t side = 0; side < shape_.sides; ++side) measure(side, r);
    }
  }

  std::int64_t pair(std::int64_t side, std::int64_t r) const { return side * shape_.capacity + r; }

  /// ln K of every pair; NaN or infinite where the formula of any kernel is.
  void evaluate();
  double log_k(std::int64_t pair) const { return log_k_[pair]; }
  double responsibility(std::int64_t pair, std::int32_t m) const { return responsibilities_[m * shape_.pairs() + pair]; }

  /// The gradient in ln K of a pair.
  void set_upstream(std::int64_t pair, double upstream) { upstreams_[pair] = upstream; }
  /// Adds the gradients of the parameters to `sums`, but those that write_gradients adds, and prepares those of the rows.
  void pull_back(double* sums);

  /// Rounds the gradients of row r to the storage type. Adds those of diagonal factors to `sums`.
  template <Write write, Storage S>
  void write_gradients(const dpo_pair_kernel_vjp_args& args, std::int64_t begin, std::int64_t r, double* sums) {
    double along_u = 0;
    for (std::int64_t side = 0; side < shape_.sides; ++side) {
      const Along along = pull_back_pair(side, r, sums);
      along_u = along.u;
      write_row<write, S>(args.grad_v[side], begin, 1 + side, r, grad_v_, along.v);
    }
    write_row<write, S>(args.grad_u, begin, 0, r, grad_u_, along_u);
  }

 private:
  /// What the next block reads, if it is as large as this one.
  template <Storage S>
  void read_ahead(const dpo_pair_kernel_args& args, std::int64_t begin) {
    const std::int64_t rows = std::min(rows_count_, args.u.shape[0] - begin);
    const auto bytes = rows * shape_.depth * static_cast<std::int64_t>(sizeof(S));
    for (std::int64_t operand = 0; operand < shape_.operands(); ++operand) {
      const dpo_tensor& from = operand == 0 ? args.u : args.v[operand - 1];
      next_[static_cast<std::size_t>(operand)] = {reinterpret_cast<const char*>(data<S>(from) + begin * shape_.depth), bytes};
    }
  }

  void carve(Carver& from);
  std::int64_t workspace_size() const;

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

  /// Inner products of the gradients, as far as they have come, with their rows.
  struct Along {
    double u, v;
  };

  void measure(std::int64_t side, std::int64_t r);
  void map_differences(std::int32_t m);
  void map_to_features(std::int32_t m);
  void mix();
  double weight(std::int32_t m, std::int64_t pair) const { return upstreams_[pair] * responsibility(pair, m); }
  void pull_back_plain(std::int32_t m);
  /// `first`: nothing is in difference_grads_, or row_grads_, yet.
  void pull_back_differences(std::int32_t m, double* sums, bool first);
  void pull_back_features(std::int32_t m, double* sums, bool first);
  /// Adds the gradient in the difference u − v to grad_v_, and that of the diagonal.
  void add_diagonal(std::int32_t m, std::int64_t side, std::int64_t r, double* sums);
  Along pull_back_pair(std::int64_t side, std::int64_t r, double* sums);

  template <Write write, Storage S>
  void write_row(const dpo_tensor& to, std::int64_t begin, std::int64_t operand, std::int64_t r, const double* grad,
                 double along) const {
    const double* seen = row(operand, r);
    const double scale = scales_[operand * shape_.capacity + r];
    S* stored = data<S>(to) + (begin + r) * shape_.depth;
    if (kernels_.normalizes()) {  // only the part across the row counts
      store_row<write>(stored, shape_.depth,
                       [=](std::int64_t i) { return (cpu::load(grad + i) - along * cpu::load(seen + i)) * scale; });
    } else {
      store_row<write>(stored, shape_.depth, [=](std::int64_t i) { return cpu::load(grad + i); });
    }
  }

  const KernelMembers& kernels_;
  PairShape shape_;
  std::array<ReadAhead, 1 + DPO_MAX_SIDES> next_{};
  std::int64_t rows_count_ = 0;
  bool any_difference_grads_ = false;
  double *rows_ = nullptr, *scales_ = nullptr, *squares_ = nullptr;  // of all operands
  double *log_k_ = nullptr, *responsibilities_ = nullptr, *upstreams_ = nullptr;
  Seen* seen_ = nullptr;  // [members, pairs]
  LogKernelPoint* points_ = nullptr;
  double *differences_ = nullptr, *workspace_ = nullptr;
  std::array<double*, DPO_MAX_MEMBERS> mapped_{};            // factor, frequencies: [pairs, width]
  std::array<SpectralScratch, DPO_MAX_MEMBERS> spectral_{};  // of all operands
  // Gradients in the distances and products of pairs, in differences, in rows.
  double *distance_grads_ = nullptr, *absolute_grads_ = nullptr;
  Seen* inner_grads_ = nullptr;
  std::array<double*, DPO_MAX_MEMBERS> weighted_grads_{};
  double *difference_grads_ = nullptr, *row_grads_ = nullptr;
  double *grad_u_ = nullptr, *grad_v_ = nullptr, *zeros_ = nullptr;  // of one row
};

}  // namespace dpo::cpu
