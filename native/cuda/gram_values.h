// Blocks of a Gram matrix: products or distances of mapped rows, and the kernels on top of them.
#pragma once

#include "native/cuda/gram_pairs.h"

namespace dpo::cuda {

/// Memory for a block, `stride` elements a row.
template <class T>
struct BlockMemory {
  T* data;
  std::int64_t stride;
};

/// Makes the block of a layer's products, or of its distances where they are summed.
template <class T>
PairBlock<T> make_products(Call& call, const GramPairs<T>& pairs, const GramLayer& layer, const BlockPlace& at,
                           const BlockMemory<T>& memory);

/// Makes the block of squared distances from K, of a kernel whose distance follows from its value; 0 counts as the smallest normal
/// number.
template <class T>
PairBlock<T> make_distances(Call& call, const GramPairs<T>& pairs, const GramLayer& layer, const BlockPlace& at, const T* gram,
                            const BlockMemory<T>& memory);

/// Makes blocks of K.
template <class T>
class GramBlocks {
 public:
  GramBlocks(Call& call, const GramPairs<T>& pairs);

  void make(const BlockPlace& at, const BlockMemory<T>& to) const;

 private:
  Call& call_;
  GramPairs<T> pairs_;
  T* products_;  // null where they can be made in the place of the values
};

extern template class GramBlocks<float>;
extern template class GramBlocks<double>;

}  // namespace dpo::cuda
