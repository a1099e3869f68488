// How a Gram matrix of a kernel is put together: the maps of rows, one product of mapped rows per layer, the formulas on top.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "native/core/gram.h"
#include "native/cpu/kernel_members.h"

namespace dpo::cpu {

/// What is computed of each pair of mapped rows before the formulas.
enum class PairProduct { inner, squared_difference, absolute_difference };

struct GramLayer {
  std::int32_t map;  // place in GramPlan::maps
  PairProduct product;
};

constexpr std::int32_t kNoMap = -1;

/// Where the sums of parameter gradients are while they are many: like GradientPlaces, but without the factors that are matrices.
struct SumPlaces {
  std::array<std::int64_t, DPO_MAX_MEMBERS> parameters, diagonals;
  std::int64_t log_weights, size;
};

struct GramPlan {
  KernelMembers members;
  std::vector<std::int32_t> maps;  // the member whose map it is, or kNoMap for the rows themselves
  std::vector<GramLayer> layers;
  std::array<std::int32_t, DPO_MAX_MEMBERS> layer_of;  // by member
  std::int64_t depth;
  bool exact;
  SumPlaces places;
  bool centred;  // the rows' mean is taken off those of the rows themselves and what linear maps make of them

  bool prepare(dpo_job* job, const dpo_gram_rows& of) {
    depth = of.x.shape[1];
    exact = of.exact != 0;
    if (!members.prepare(job, of.kernel, depth)) return false;
    centred = false;
    for (std::int32_t m = 0; m < members.count(); ++m) {
      const KernelMember& member = members[m];
      if (uses_rows(member)) place_of(maps, kNoMap);
      centred = centred || (!exact && member.seen == math::Seen::squared_distance);
    }
    for (std::int32_t m = 0; m < members.count(); ++m) add_layer(m);
    place_sums();
    return true;
  }

  /// Whether squared distances follow from K.
  bool distances_from_values() const {
    if (members.is_mixture()) return false;
    return math::with_log_kernel<double>(members[0].formula, [](const auto& kernel) {
      return requires { kernel.squared_distance(0.0); };
    });
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

  bool has_map(std::int32_t of) const { return std::find(maps.begin(), maps.end(), of) != maps.end(); }

  /// How many numbers a mapped row has.
  std::int64_t width(std::int32_t map) const {
    if (map == kNoMap) return depth;
    const KernelMember& member = members[map];
    switch (member.map) {
      case KernelMap::frequencies:
        return 2 * member.linear.width();
      case KernelMap::factor:
        return member.linear.width();
      case KernelMap::landmarks:
        return member.rank();
      default:
        return depth;
    }
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

  /// The gradient of a factor is a product with the rows themselves.
  static bool uses_rows(const KernelMember& member) {
    return member.plain() || member.map == KernelMap::factor || member.map == KernelMap::diagonal;
  }

  static std::int32_t place_of(std::vector<std::int32_t>& list, std::int32_t value) {
    const auto found = std::find(list.begin(), list.end(), value);
    const auto place = static_cast<std::int32_t>(found - list.begin());
    if (found == list.end()) list.push_back(value);
    return place;
  }

  PairProduct product_of(math::Seen seen) const {
    if (seen == math::Seen::absolute_distance) return PairProduct::absolute_difference;
    return exact && seen == math::Seen::squared_distance ? PairProduct::squared_difference : PairProduct::inner;
  }

  void add_layer(std::int32_t m) {
    const KernelMember& member = members[m];
    const std::int32_t map = place_of(maps, member.plain() ? kNoMap : m);
    const PairProduct product = product_of(member.seen);
    const auto same = [=](const GramLayer& layer) { return layer.map == map && layer.product == product; };
    const auto found = std::find_if(layers.begin(), layers.end(), same);
    layer_of[static_cast<std::size_t>(m)] = static_cast<std::int32_t>(found - layers.begin());
    if (found == layers.end()) layers.push_back({map, product});
  }
};

}  // namespace dpo::cpu
