// The elements of a part of a row, shared out among the threads of a block.
#pragma once

#include <cstring>
#include <type_traits>

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

/// The same of a pack of which the row may have only the first few elements; the others are 0.
template <class S>
__device__ __forceinline__ Pack<S> load_part(const S* from, int count, bool whole) {
  if (whole && count == Pack<S>::size) return *reinterpret_cast<const Pack<S>*>(from);
  Pack<S> pack;
#pragma unroll
  for (int i = 0; i < Pack<S>::size; ++i) pack.values[i] = i < count ? from[i] : S{};
  return pack;
}

template <class S>
__device__ __forceinline__ void store_part(S* to, int count, const Pack<S>& pack, bool whole) {
  if (whole && count == Pack<S>::size) {
    store_pack(to, pack, true);
    return;
  }
#pragma unroll
  for (int i = 0; i < Pack<S>::size; ++i) {
    if (i < count) to[i] = pack.values[i];
  }
}

/// A pack as words of four bytes, or eight, to be taken and put one after the other: a loop of this kind needs not be unrolled to
/// keep them in registers.
template <class S>
class PackQueue {
 public:
  using Word = std::conditional_t<sizeof(S) == 8, unsigned long long, unsigned>;
  static constexpr int kWords = 16 / sizeof(Word);
  /// Elements of a word.
  struct Elements {
    static constexpr int size = sizeof(Word) / sizeof(S);
    S values[size];
  };

  PackQueue() = default;
  __device__ explicit PackQueue(const Pack<S>& pack) { std::memcpy(words_, &pack, sizeof words_); }

  /// Puts elements behind the others, and takes the first.
  __device__ __forceinline__ Elements exchange(const Elements& last) {
    Elements first;
    std::memcpy(&first, &words_[0], sizeof first);
#pragma unroll
    for (int i = 1; i < kWords; ++i) words_[i - 1] = words_[i];
    std::memcpy(&words_[kWords - 1], &last, sizeof last);
    return first;
  }

  __device__ Pack<S> pack() const {
    Pack<S> pack;
    std::memcpy(&pack, words_, sizeof words_);
    return pack;
  }

 private:
  Word words_[kWords] = {};
};

/// made[k] = make(k, xs[k], ys[k]) for the first few elements. A loop over words, for what is done with an element may be long.
template <class S, class Make>
__device__ __forceinline__ Pack<S> transform_words(int count, const Pack<S>& xs, const Pack<S>& ys, const Make& make) {
  using Queue = PackQueue<S>;
  using Elements = typename Queue::Elements;
  Queue from_x(xs), from_y(ys), made;
#pragma unroll 1
  for (int first = 0; first < Pack<S>::size; first += Elements::size) {
    const Elements x = from_x.exchange({}), y = from_y.exchange({});
    Elements to{};
#pragma unroll
    for (int k = 0; k < Elements::size; ++k) {
      if (first + k < count) to.values[k] = make(first + k, x.values[k], y.values[k]);
    }
    made.exchange(to);
  }
  return made.pack();
}

/// Calls visit(k, xs[k], ys[k]) for the first few elements.
template <class S, class Visit>
__device__ __forceinline__ void visit_words(int count, const Pack<S>& xs, const Pack<S>& ys, const Visit& visit) {
  using Queue = PackQueue<S>;
  using Elements = typename Queue::Elements;
  Queue from_x(xs), from_y(ys);
#pragma unroll 1
  for (int first = 0; first < count; first += Elements::size) {
    const Elements x = from_x.exchange({}), y = from_y.exchange({});
#pragma unroll
    for (int k = 0; k < Elements::size; ++k) {
      if (first + k < count) visit(first + k, x.values[k], y.values[k]);
    }
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

  /// Calls part(i, count, values) for the packs of this thread, the last of which the row may end in the middle of. One body where
  /// for_each has two, for those that are long.
  template <class OfPart>
  __device__ __forceinline__ void for_each_part(const OfPart& part) const {
    const auto thread = static_cast<std::int64_t>(threadIdx.x), threads = static_cast<std::int64_t>(blockDim.x);
    for (std::int64_t left = end_ - begin_ - thread * kPack; left > 0; left -= threads * kPack) {
      const std::int64_t i = end_ - left;
      const int count = left < kPack ? static_cast<int>(left) : kPack;
      part(i, count, load_part(row_ + i, count, whole_));
    }
  }

  /// Whether packs may be read and written at the same places of another array.
  __device__ bool holds_packs_at(const S* row) const { return holds_packs(row + begin_); }

 private:
  const S* row_;
  std::int64_t begin_, end_, packs_end_;
  bool whole_;
};

/// row[i] = make(i) for all elements, by a block.
template <class S, class Make>
__device__ __forceinline__ void write_words(S* row, std::int64_t columns, const Make& make) {
  constexpr std::int64_t kPack = Pack<S>::size;
  const bool whole = holds_packs(row);
  for (std::int64_t i = threadIdx.x * kPack; i < columns; i += blockDim.x * kPack) {
    const int count = columns - i < kPack ? static_cast<int>(columns - i) : static_cast<int>(kPack);
    const auto at = [&](int k, S, S) { return make(i + k); };
    store_part(row + i, count, transform_words(count, Pack<S>{}, Pack<S>{}, at), whole);
  }
}

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

  static RowParts of(std::int64_t rows, std::int64_t columns, std::int64_t blocks = kEnoughBlocks) {
    const std::int64_t wanted = (blocks + rows - 1) / rows, most = (columns + kLeastPart - 1) / kLeastPart;
    return {columns, wanted < most ? wanted : most};
  }
  /// A multiple of the largest pack, so that every part starts as aligned as its row.
  __host__ __device__ std::int64_t size() const { return ((columns + parts - 1) / parts + 7) / 8 * 8; }
  __host__ __device__ std::int64_t begin(std::int64_t part) const { return part * size() < columns ? part * size() : columns; }
  __host__ __device__ std::int64_t end(std::int64_t part) const { return begin(part + 1); }
};

}  // namespace dpo::cuda
