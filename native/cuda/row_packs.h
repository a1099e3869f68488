// The elements of a part of a row, shared out among the threads of a block.
#pragma once

#include "native/cuda/storage.h"

namespace dpo::cuda {

/// Whether packs may be read and written at multiples of their size from here on.
template <class S>
__device__ __forceinline__ bool holds_packs(const S* at) {
  return reinterpret_cast<std::uintptr_t>(at) % sizeof(Pack<S>) == 0;
}

template <class S>
__device__ __forceinline__ Pack<S> load_pack(const S* from, bool whole) {
  if (whole) return *reinterpret_cast<const Pack<S>*>(from);
  Pack<S> pack;
#pragma unroll
  for (int i = 0; i < Pack<S>::size; ++i) pack.values[i] = from[i];
  return pack;
}

template <class S>
__device__ __forceinline__ void store_pack(S* to, const Pack<S>& pack, bool whole) {
  if (whole) {
    *reinterpret_cast<Pack<S>*>(to) = pack;
    return;
  }
#pragma unroll
  for (int i = 0; i < Pack<S>::size; ++i) to[i] = pack.values[i];
}

/// Elements begin .. end of a row. Which thread has which depends on their places in the row alone, not on where the row lies, so
/// that a row's result does not either.
template <class S>
class RowPacks {
 public:
  static constexpr int kPack = Pack<S>::size;

  __device__ RowPacks(const S* row, std::int64_t begin, std::int64_t end)
      : row_(row),
        begin_(begin),
        end_(end),
        packs_end_(begin + (end - begin) / kPack * kPack),
        whole_(holds_packs(row + begin)) {}

  /// Calls pack(i, values) for the whole packs of this thread, and one(i, value) for its single elements at the end.
  template <class OfPack, class OfOne>
  __device__ __forceinline__ void for_each(const OfPack& pack, const OfOne& one) const {
    const auto thread = static_cast<std::int64_t>(threadIdx.x), threads = static_cast<std::int64_t>(blockDim.x);
    for (std::int64_t i = begin_ + thread * kPack; i < packs_end_; i += threads * kPack) pack(i, load_pack(row_ + i, whole_));
    for (std::int64_t i = packs_end_ + thread; i < end_; i += threads) one(i, row_[i]);
  }

  /// The same of another array that these elements go to.
  __device__ bool holds_packs_at(const S* row) const { return holds_packs(row + begin_); }

 private:
  const S* row_;
  std::int64_t begin_, end_, packs_end_;
  bool whole_;
};

inline constexpr unsigned kMostRowThreads = 256;

/// Threads for a row: as many as have work, in whole warps. By the number of columns alone, because sums depend on it.
inline unsigned row_threads(std::int64_t columns) { return columns <= 256 ? 32 : columns <= 1024 ? 128 : kMostRowThreads; }

/// How rows are cut among blocks, by shapes alone: few long rows into several parts, so that the device is not left without work.
struct RowParts {
  static constexpr std::int64_t kLeastPart = 8192, kEnoughBlocks = 1024;
  std::int64_t columns, parts;

  static RowParts of(std::int64_t rows, std::int64_t columns) {
    const std::int64_t wanted = (kEnoughBlocks + rows - 1) / rows, most = (columns + kLeastPart - 1) / kLeastPart;
    return {columns, wanted < most ? wanted : most};
  }
  /// A multiple of the largest pack, so that every part starts as aligned as its row.
  __host__ __device__ std::int64_t size() const { return ((columns + parts - 1) / parts + 7) / 8 * 8; }
  __host__ __device__ std::int64_t begin(std::int64_t part) const { return part * size() < columns ? part * size() : columns; }
  __host__ __device__ std::int64_t end(std::int64_t part) const { return begin(part + 1); }
};

}  // namespace dpo::cuda
