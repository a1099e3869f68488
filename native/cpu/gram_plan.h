// The plan of a Gram matrix with the kernels that it is of, and where sums over parts of the matrix are.
#pragma once

#include <array>
#include <cstdint>

#include "native/core/gram_plan.h"
#include "native/cpu/kernel_members.h"

namespace dpo::cpu {

/// Where the sums of parameter gradients are while they are many: like GradientPlaces, but without the factors that are matrices.
struct SumPlaces {
  std::array<std::int64_t, DPO_MAX_MEMBERS> parameters, diagonals;
  std::int64_t log_weights, size;
};

struct GramPlan : dpo::GramPlan {
  KernelMembers members;
  SumPlaces places;

  bool prepare(dpo_job* job, const dpo_gram_rows& of) {
    static_cast<dpo::GramPlan&>(*this) = dpo::GramPlan(of);
    if (!members.prepare(job, of.kernel, depth)) return false;
    place_sums();
    return true;
  }

  /// Adds sums in the order of `places` to those of members.places().
  void add_sums(const double* from, double* to) const {
    const GradientPlaces& full = members.places();
    for (std::size_t m = 0; m < static_cast<std::size_t>(members.count()); ++m) {
      const KernelMember& member = members[static_cast<std::int32_t>(m)];
      for (std::int64_t p = 0; p < member.formula.parameter_count; ++p)
        to[full.parameters[m] + p] += from[places.parameters[m] + p];
      for (std::int64_t i = 0; member.map == KernelMap::diagonal && i < depth; ++i)
        to[full.factors[m] + i] += from[places.diagonals[m] + i];
    }
    for (std::int32_t m = 0; m < members.count(); ++m) to[full.log_weights + m] += from[places.log_weights + m];
  }

 private:
  void place_sums() {
    std::int64_t at = 0;
    for (std::int32_t m = 0; m < members.count(); ++m) {
      places.parameters[static_cast<std::size_t>(m)] = at;
      at += members[m].formula.parameter_count;
      places.diagonals[static_cast<std::size_t>(m)] = at;
      if (members[m].map == KernelMap::diagonal) at += depth;
    }
    places.log_weights = at;
    places.size = at + members.count();
  }
};

}  // namespace dpo::cpu
