// The kernels of a call, each as a formula and the map before it, and the weights of their mixture.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "native/core/kernel_plan.h"
#include "native/cpu/kernel_maps.h"

namespace dpo::cpu {

struct KernelMember {
  math::KernelFormula formula;
  math::Seen seen;
  KernelMap map;
  LinearMap linear;         // factor, frequencies: of differences; landmarks: to inner products with them
  const double* diagonal;   // [stride]
  const double* landmarks;  // [M, stride]
  const double* landmark_squares;
  const double* projection;  // [rank, M]
  const double* projection_transpose;
  math::KernelFormula base;

  bool maps_differences() const { return map == KernelMap::factor || map == KernelMap::frequencies; }
  std::int64_t rank() const { return formula.parameter_count; }  // spectral
  /// Whether the formula sees the geometry of the rows themselves.
  bool plain() const { return map == KernelMap::none; }
};

class KernelMembers {
 public:
  /// Packs what needs it; false when memory ran out.
  bool prepare(dpo_job* job, const dpo_kernel& kernel, std::int64_t depth);

  std::int32_t count() const { return count_; }
  const KernelMember& operator[](std::int32_t m) const { return members_[static_cast<std::size_t>(m)]; }
  bool normalizes() const { return normalizes_; }
  bool is_mixture() const { return weights_.is_mixture(); }
  double log_weight(std::int32_t m) const { return weights_.log_weight(m); }
  const GradientPlaces& places() const { return places_; }

  bool any(KernelMap map) const;
  bool any_maps_differences() const;
  /// Whether a formula that sees the rows themselves is of this.
  bool any_sees(math::Seen seen) const;

  /// Each node's share of its group, and the entropies of the groups; absent results are left out.
  void write_shares(const dpo_tensor& shares, const dpo_tensor& entropies) const { weights_.write_shares(shares, entropies); }
  /// The gradients, from their sums over all pairs.
  void write_gradients(const double* sums, double entropy_upstream, const dpo_kernel_gradients& grads) const {
    write_kernel_gradients(places_, weights_, sums, entropy_upstream, grads);
  }

 private:
  bool prepare_member(dpo_job* job, const dpo_kernel_member& from, std::int64_t depth, KernelMember& to) const;
  bool prepare_landmarks(dpo_job* job, const dpo_kernel_member& from, std::int64_t depth, KernelMember& to) const;

  std::array<KernelMember, DPO_MAX_MEMBERS> members_{};
  std::int32_t count_ = 0;
  bool normalizes_ = false;
  MixtureWeights weights_;
  GradientPlaces places_{};
};

}  // namespace dpo::cpu
