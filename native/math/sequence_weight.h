// Weights of tokens in a sequence's log-probability.
#pragma once

#include <cstdint>

#include "native/math/host_device.h"

namespace dpo::math {

/// LD-DPO: tokens past the shorter answer's length count by `ld_alpha`; `position` is the token's place among the counted tokens.
/// Liu et al. (2024), arXiv 2409.06411.
template <class T>
DPO_HD T sequence_weight(std::int64_t position, std::int64_t shared_length, T ld_alpha) {
  return position < shared_length ? T(1) : ld_alpha;
}

}  // namespace dpo::math
