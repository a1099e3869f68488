// How a Gram matrix of a kernel is put together: the maps of rows, one product of mapped rows per layer, the formulas on top.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "native/core/gram.h"
#include "native/core/kernel_plan.h"

namespace dpo {

/// What is computed of each pair of mapped rows before the formulas.
enum class PairProduct { inner, squared_difference, absolute_difference };

struct GramLayer {
  std::int32_t map;  // place in GramPlan::maps
  PairProduct product;
};

constexpr std::int32_t kNoMap = -1;

struct GramPlan {
  const dpo_kernel* kernel = nullptr;
  std::vector<std::int32_t> maps;  // the member whose map it is, or kNoMap for the rows themselves
  std::vector<GramLayer> layers;
  std::array<std::int32_t, DPO_MAX_MEMBERS> layer_of{};  // by member
  std::int64_t depth = 0;
  bool exact = false;
  bool centred = false;  // the rows' mean is taken off those of the rows themselves and what linear maps make of them

  GramPlan() = default;
  explicit GramPlan(const dpo_gram_rows& of) : kernel(&of.kernel), depth(of.x.shape[1]), exact(of.exact != 0) {
    for (std::int32_t m = 0; m < kernel->member_count; ++m) {
      if (uses_rows(map_of(member(m)))) place_of(maps, kNoMap);
      centred = centred || (!exact && seen_by(m) == math::Seen::squared_distance);
    }
    for (std::int32_t m = 0; m < kernel->member_count; ++m) add_layer(m);
  }

  /// Whether squared distances follow from K.
  bool distances_from_values() const {
    if (kernel->group_count > 0) return false;
    return math::with_log_kernel<double>(formula_of(member(0).formula), [](const auto& formula) {
      return requires { formula.squared_distance(0.0); };
    });
  }

  bool has_map(std::int32_t of) const { return std::find(maps.begin(), maps.end(), of) != maps.end(); }

  /// How many numbers a mapped row has.
  std::int64_t width(std::int32_t map) const {
    if (map == kNoMap) return depth;
    const dpo_kernel_member& of = member(map);
    switch (map_of(of)) {
      case KernelMap::frequencies:
        return 2 * of.map.shape[0];
      case KernelMap::factor:
        return of.map.shape[1];
      case KernelMap::landmarks:
        return of.map.shape[0];
      default:
        return depth;
    }
  }

 private:
  const dpo_kernel_member& member(std::int32_t m) const { return kernel->members[m]; }
  math::Seen seen_by(std::int32_t m) const { return math::seen_by(static_cast<math::LogKernel>(member(m).formula.kind)); }

  /// The gradient of a factor is a product with the rows themselves.
  static bool uses_rows(KernelMap map) {
    return map == KernelMap::none || map == KernelMap::factor || map == KernelMap::diagonal;
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
    const std::int32_t map = place_of(maps, map_of(member(m)) == KernelMap::none ? kNoMap : m);
    const PairProduct product = product_of(seen_by(m));
    const auto same = [=](const GramLayer& layer) { return layer.map == map && layer.product == product; };
    const auto found = std::find_if(layers.begin(), layers.end(), same);
    layer_of[static_cast<std::size_t>(m)] = static_cast<std::int32_t>(found - layers.begin());
    if (found == layers.end()) layers.push_back({map, product});
  }
};

}  // namespace dpo
