// How long a row is, whatever it is stored as, for every thread of the block that looks at it.
#pragma once

#include "native/cuda/magnitude.h"
#include "native/cuda/row_packs.h"
#include "native/math/inverse_norm.h"

namespace dpo::cuda {

/// Of the row times `scale`.
template <class S>
__device__ __forceinline__ Magnitude magnitude_of_row(const S* row, std::int64_t depth, double scale = 1) {
  Magnitude magnitude;
  for_each_of_row(row, depth, [&](std::int64_t, double x) { magnitude.add(scale * x); });
  return merge_block_for_all(magnitude);
}

/// 1/‖row‖ of a row of this magnitude. NaN where an element is NaN or infinite; infinite for a zero row.
template <class S>
__device__ __forceinline__ double inverse_norm_of_row(const S* row, std::int64_t depth, const Magnitude& magnitude) {
  return math::inverse_norm(
      magnitude.squares, [&] { return magnitude.largest; }, [&](double by) { return magnitude_of_row(row, depth, by).squares; });
}

}  // namespace dpo::cuda
