// The kernels of a call on the device, each as a formula and the map before it.
#pragma once

#include <cstdint>

#include "native/core/kernel_plan.h"
#include "native/cuda/call.h"

namespace dpo::cuda {

/// One kernel; every pointer is the device's. D is the width of rows.
struct KernelMember {
  math::KernelFormula formula;
  math::Seen seen;
  KernelMap map;
  double log_weight;               // ln w in the mixture
  std::int64_t width;              // numbers that the map makes of a row or difference: R, or M landmarks
  const double* matrix;            // diagonal [D]; factor [D, R]; frequencies [R, D]; landmarks: the projection [rank, M]
  const double* landmarks;         // [M, D]
  const double* landmark_squares;  // [M]
  math::KernelFormula base;        // of landmarks

  __host__ __device__ bool maps_differences() const { return map == KernelMap::factor || map == KernelMap::frequencies; }
  __host__ __device__ std::int64_t rank() const { return formula.parameter_count; }  // spectral
  /// Whether the formula sees the geometry of the rows themselves.
  __host__ __device__ bool plain() const { return map == KernelMap::none; }
};

class KernelMembers {
 public:
  KernelMembers(Call& call, const dpo_kernel& kernel, std::int64_t depth);

  std::int32_t count() const { return static_cast<std::int32_t>(members_.size()); }
  /// Its pointers are the device's.
  const KernelMember& operator[](std::int32_t m) const { return members_[static_cast<std::size_t>(m)]; }
  /// All of them, on the device.
  const KernelMember* on_device() const { return on_device_; }
  bool normalizes() const { return normalizes_; }
  const MixtureWeights& weights() const { return weights_; }
  const GradientPlaces& places() const { return places_; }

  bool any(KernelMap map) const;
  bool any_maps_differences() const { return any(KernelMap::factor) || any(KernelMap::frequencies); }
  /// Whether a formula that sees the rows themselves is of this.
  bool any_sees(math::Seen seen) const;

 private:
  std::vector<KernelMember> members_;
  const KernelMember* on_device_;
  bool normalizes_;
  MixtureWeights weights_;
  GradientPlaces places_;
};

}  // namespace dpo::cuda
