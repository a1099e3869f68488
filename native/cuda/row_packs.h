// The elements of a part of a row, shared out among the threads of a block.
#pragma once

#include <cstring>

#include "native/cuda/call.h"
#include "native/cuda/reduce.h"
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
    if constexpr (sizeof(S) == 2) {
      // As words, for the compiler stores elements of two bytes by twos.
      Pack<unsigned> words;
      std::memcpy(&words, &pack, sizeof words);
      *reinterpret_cast<Pack<unsigned>*>(to) = words;
    } else {
      *reinterpret_cast<Pack<S>*>(to) = pack;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < Pack<S>::size; ++i) to[i] = pack.values[i];
}

/// The elements of a pack as bits to be taken and put one after the other: a loop of this kind needs not be unrolled to keep them
/// in registers.
template <class S>
class PackQueue {
 public:
  PackQueue() = default;
  __device__ explicit PackQueue(const Pack<S>& pack) { std::memcpy(words_, &pack, sizeof words_); }

  /// Puts an element behind the others, and takes the first.
  __device__ __forceinline__ S exchange(S last) {
    const S first = take(words_[0]);
    constexpr int kBits = 8 * sizeof(S);
    if constexpr (kBits == 64) {
      words_[0] = words_[1];
      std::memcpy(&words_[1], &last, sizeof last);
    } else {
      std::uint64_t bits = 0;
      std::memcpy(&bits, &last, sizeof last);
      words_[0] = words_[0] >> kBits | words_[1] << (64 - kBits);
      words_[1] = words_[1] >> kBits | bits << (64 - kBits);
    }
    return first;
  }

  __device__ Pack<S> pack() const {
    Pack<S> pack;
    std::memcpy(&pack, words_, sizeof words_);
    return pack;
  }

 private:
  __device__ static S take(std::uint64_t word) {
    S value;
    std::memcpy(&value, &word, sizeof value);
    return value;
  }

  std::uint64_t words_[2] = {};
};

/// Elements of which much is computed, in double precision, are gone through one by one, so that a thread's registers suffice.
enum class Through { at_once, one_by_one };
template <class C>
inline constexpr Through through = sizeof(C) == sizeof(float) ? Through::at_once : Through::one_by_one;

/// made[k] = make(k, xs[k], ys[k]).
template <Through how, class S, class Make>
__device__ __forceinline__ Pack<S> transform_packs(const Pack<S>& xs, const Pack<S>& ys, const Make& make) {
  if constexpr (how == Through::at_once) {
    Pack<S> made;
#pragma unroll
    for (int k = 0; k < Pack<S>::size; ++k) made.values[k] = make(k, xs.values[k], ys.values[k]);
    return made;
  } else {
    PackQueue<S> from_x(xs), from_y(ys), made;
#pragma unroll 1
    for (int k = 0; k < Pack<S>::size; ++k) made.exchange(make(k, from_x.exchange(S{}), from_y.exchange(S{})));
    return made.pack();
  }
}

/// Calls visit(k, xs[k], ys[k]).
template <Through how, class S, class Visit>
__device__ __forceinline__ void visit_packs(const Pack<S>& xs, const Pack<S>& ys, const Visit& visit) {
  if constexpr (how == Through::at_once) {
#pragma unroll
    for (int k = 0; k < Pack<S>::size; ++k) visit(k, xs.values[k], ys.values[k]);
  } else {
    PackQueue<S> from_x(xs), from_y(ys);
#pragma unroll 1
    for (int k = 0; k < Pack<S>::size; ++k) visit(k, from_x.exchange(S{}), from_y.exchange(S{}));
  }
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

/// Calls visit(i, x) with the elements of a row, in double, that are this thread's.
template <class S, class Visit>
__device__ __forceinline__ void for_each_of_row(const S* row, std::int64_t depth, const Visit& visit) {
  const auto one = [&](std::int64_t i, S x) { visit(i, static_cast<double>(to_compute(x))); };
  RowPacks<S>(row, 0, depth)
      .for_each(
          [&](std::int64_t i, const Pack<S>& pack) {
#pragma unroll
            for (int k = 0; k < Pack<S>::size; ++k) one(i + k, pack.values[k]);
          },
          one);
}

inline constexpr unsigned kMostRowThreads = 256;

/// Threads for a row: as many as have work, in whole warps. By the number of columns alone, because sums depend on it.
inline unsigned row_threads(std::int64_t columns) { return columns <= 256 ? 32 : columns <= 1024 ? 128 : kMostRowThreads; }

/// A block for each of some rows, which merges values of T.
template <class T>
Grid block_rows(std::int64_t rows, std::int64_t columns) {
  const unsigned threads = row_threads(columns);
  return {{static_cast<unsigned>(rows), 1, 1}, threads, merge_block_bytes<T>(threads)};
}

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
