// The k largest of the elements that a block goes through.
#pragma once

#include <cstring>
#include <limits>

#include "native/cuda/block_rank.h"

namespace dpo::cuda {

/// Numbers in the order of doubles; 0 and −0 are one.
using OrderKey = unsigned long long;
__device__ __forceinline__ OrderKey order_key(double x) {
  const double number = x + 0.0;
  OrderKey bits;
  std::memcpy(&bits, &number, sizeof bits);
  return bits >> 63 != 0 ? ~bits : bits | OrderKey{1} << 63;
}

struct Count {
  unsigned long long value = 0;
  __device__ void merge(const Count& other) { value += other.value; }
};

/// Those above a key, and of those at it as many as there is room for, the first ones first.
class TopK {
 public:
  /// Of key_at(i) for 0 .. count − 1; −inf is never chosen.
  template <class KeyAt>
  __device__ __forceinline__ TopK(std::int64_t count, std::int64_t k, const KeyAt& key_at) {
    const auto wanted = static_cast<unsigned long long>(k);
    const auto count_from = [&](OrderKey least) {
      Count found;
      for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) found.value += key_at(i) >= least ? 1 : 0;
      return merge_block_for_all(found).value;
    };
    above_ = order_key(-std::numeric_limits<double>::infinity());
    if (count_from(above_ + 1) <= wanted) return;
    // The k-th largest key, bit by bit from the top.
    OrderKey kth = 0;
    for (int bit = 63; bit >= 0; --bit) {
      const OrderKey candidate = kth | OrderKey{1} << bit;
      const unsigned long long found = count_from(candidate);
      if (found < wanted) continue;
      kth = candidate;
      if (found > wanted) continue;
      above_ = kth - 1;
      return;
    }
    above_ = kth;
    room_ = static_cast<unsigned>(wanted - count_from(kth + 1));
  }

  /// Asked about elements in ascending order, by the whole block at once; `exists`: this thread has one.
  __device__ __forceinline__ bool takes(bool exists, OrderKey key) {
    bool is_last = false;
    if (room_ > 0) {
      const bool equal = exists && key == above_;
      const BlockRank rank = block_rank(equal);
      is_last = equal && rank.before < room_;
      room_ -= rank.all < room_ ? rank.all : room_;
    }
    return exists && (key > above_ || is_last);
  }

 private:
  OrderKey above_;
  unsigned room_ = 0;
};

}  // namespace dpo::cuda
