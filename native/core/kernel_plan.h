// A kernel as every backend reads it: what its members' formulas see, the weights of their mixture, and where the sums of a call's
// parameter gradients stand.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "native/core/dtype.h"
#include "native/core/kernel.h"
#include "native/math/log_kernels.h"
#include "native/math/mixture.h"

namespace dpo {

/// What stands between the rows and the formula of a kernel.
enum class KernelMap {
  none,
  diagonal,     // mahalanobis: the squared distance with each difference weighted
  factor,       // mahalanobis: the squared norm of the mapped difference
  frequencies,  // random_fourier: the mean cosine of the mapped difference, which is ⟨φ(u), φ(v)⟩
  landmarks     // spectral
};

inline KernelMap map_of(const dpo_kernel_member& member) {
  switch (static_cast<math::LogKernel>(member.formula.kind)) {
    case math::LogKernel::mahalanobis:
      return member.map.rank == 1 ? KernelMap::diagonal : KernelMap::factor;
    case math::LogKernel::random_fourier:
      return KernelMap::frequencies;
    case math::LogKernel::spectral:
      return KernelMap::landmarks;
    default:
      return KernelMap::none;
  }
}

inline std::int64_t size_of(const dpo_tensor& tensor) { return present(tensor) ? element_count(tensor) : 0; }

inline math::KernelFormula formula_of(const dpo_kernel_formula& from) {
  return {static_cast<math::LogKernel>(from.kind),
          static_cast<const double*>(from.parameters.data),
          size_of(from.parameters),
          from.nu,
          from.floor,
          from.unit_diagonal != 0};
}

/// Where the sums of a call's parameter gradients are: for each kernel the formula's, then the factor's, then that in ln w.
struct GradientPlaces {
  std::array<std::int64_t, DPO_MAX_MEMBERS> parameters, factors;
  std::int64_t log_weights, size;
};

inline GradientPlaces gradient_places(const dpo_kernel& kernel) {
  GradientPlaces places{};
  std::int64_t at = 0;
  for (std::size_t m = 0; m < static_cast<std::size_t>(kernel.member_count); ++m) {
    const dpo_kernel_member& member = kernel.members[m];
    places.parameters[m] = at;
    at += size_of(member.formula.parameters);
    places.factors[m] = at;
    const KernelMap map = map_of(member);
    if (map == KernelMap::diagonal || map == KernelMap::factor) at += size_of(member.map);
  }
  places.log_weights = at;
  places.size = at + kernel.member_count;
  return places;
}

/// The weights of a kernel's mixture; of a single kernel all logarithms are 0.
struct MixtureWeights {
  static constexpr std::size_t kNodes = DPO_MAX_GROUPS + DPO_MAX_MEMBERS;
  math::MixtureTree tree{};
  std::array<double, kNodes> log_shares{}, log_weights{};
  std::array<double, DPO_MAX_GROUPS> entropies{};

  static MixtureWeights of(const dpo_kernel& kernel) {
    MixtureWeights weights;
    if (kernel.group_count == 0) return weights;
    weights.tree = {kernel.group_count, kernel.member_count, static_cast<const std::int32_t*>(kernel.parents.data),
                    static_cast<const double*>(kernel.logits.data)};
    math::mixture_log_shares(weights.tree, weights.log_shares.data());
    math::mixture_log_weights(weights.tree, weights.log_shares.data(), weights.log_weights.data());
    math::mixture_entropies(weights.tree, weights.log_shares.data(), weights.entropies.data());
    return weights;
  }

  bool is_mixture() const { return tree.groups > 0; }
  double log_weight(std::int32_t m) const { return log_weights[static_cast<std::size_t>(tree.groups + m)]; }

  /// Each node's share of its group, and the entropies of the groups; absent results are left out.
  void write_shares(const dpo_tensor& shares, const dpo_tensor& group_entropies) const {
    if (present(shares)) {
      auto* to = static_cast<double*>(shares.data);
      for (std::int64_t node = 0; node < tree.nodes(); ++node) to[node] = std::exp(log_shares[static_cast<std::size_t>(node)]);
    }
    if (present(group_entropies)) std::copy_n(entropies.begin(), tree.groups, static_cast<double*>(group_entropies.data));
  }
};

/// The gradients of a kernel's parameters, from their sums over all pairs.
inline void write_kernel_gradients(const GradientPlaces& places, const MixtureWeights& weights, const double* sums,
                                   double entropy_upstream, const dpo_kernel_gradients& grads) {
  for (std::size_t m = 0; m < DPO_MAX_MEMBERS; ++m) {
    if (const auto& to = grads.parameters[m]; present(to))
      std::copy_n(sums + places.parameters[m], size_of(to), static_cast<double*>(to.data));
    if (const auto& to = grads.factors[m]; present(to))
      std::copy_n(sums + places.factors[m], size_of(to), static_cast<double*>(to.data));
  }
  if (!weights.is_mixture() || !present(grads.logits)) return;
  auto* logits = static_cast<double*>(grads.logits.data);
  std::copy_n(sums + places.log_weights, weights.tree.members, logits + weights.tree.groups);
  math::mixture_pull_back(weights.tree, weights.log_shares.data(), weights.entropies.data(), entropy_upstream, logits);
}

}  // namespace dpo
