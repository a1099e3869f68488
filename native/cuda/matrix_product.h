// Products of matrices in rows, by cuBLAS.
#pragma once

#include <cstdint>

#include "native/cuda/call.h"
#include "native/cuda/storage.h"

namespace dpo::cuda {

/// A matrix in rows, `stride` elements apart; `transposed` as it enters a product.
template <class S>
struct MatrixOperand {
  const S* data;
  std::int64_t stride;
  bool transposed = false;
};

/// The shape of left·right: [rows, depth]·[depth, columns].
struct ProductShape {
  std::int64_t rows, columns, depth;
};

enum class Accumulate { no, yes };

/// to = or += left·right, summed in the type of `to`.
template <class S>
void multiply(Call& call, const ProductShape& shape, const MatrixOperand<S>& left, const MatrixOperand<S>& right,
              compute_t<S>* to, std::int64_t stride, Accumulate accumulate);

}  // namespace dpo::cuda
