// A row in the hands of one block, or of several where rows are few and long.
#pragma once

#include "native/cuda/call.h"
#include "native/cuda/reduce.h"
#include "native/cuda/row_packs.h"
#include "native/math/divergence_points.h"

namespace dpo::cuda {

/// How rows are shared out. The blocks of a row meet between launches alone: so every launch goes through a row's code from its
/// beginning, is given what the launches before it have found, finds one thing more, and leaves that for the next.
struct RowTeams {
  /// What a block has found of its part.
  struct Slot {
    unsigned long long words[sizeof(math::RowMoments) / sizeof(unsigned long long)];
  };
  /// Things that a row's code finds at the most: moments; sums of points, their error, and again with that and next to disjoint;
  /// the peak, its gradient, and the excess of all.
  static constexpr int kMostSteps = 8;

  RowParts parts;
  Slot* found = nullptr;  // [rows, kMostSteps, parts]; null where each row has one block
  int launch = 0;

  static RowTeams of_one(std::int64_t columns) { return {{columns, 1}}; }
  /// Enough blocks for a device, if the rows are long enough for them.
  static RowTeams of(Call& call, std::int64_t rows, std::int64_t columns, std::int64_t blocks) {
    const RowParts parts = RowParts::of(rows, columns, blocks);
    return {parts, parts.parts > 1 ? call.allocate<Slot>(rows * kMostSteps * parts.parts) : nullptr};
  }

  /// After the last step what it has found is to be used.
  int launches() const { return parts.parts > 1 ? kMostSteps + 1 : 1; }
};

/// A block's place among those of its row, and how far it has come in this launch.
class RowTeam {
 public:
  __device__ RowTeam(const RowTeams& teams, std::int64_t row, std::int64_t part)
      : parts_(teams.parts),
        found_(teams.found ? teams.found + row * RowTeams::kMostSteps * teams.parts.parts : nullptr),
        launch_(teams.launch),
        part_(part) {}

  __device__ std::int64_t begin() const { return parts_.begin(part_); }
  __device__ std::int64_t end() const { return parts_.end(part_); }

  /// Whether something is not known yet, so that all that follows is for a later launch.
  __device__ __forceinline__ bool waits() const { return found_ && step_ > launch_; }
  /// Whether this is the launch to write in what follows from all that is known; it is for one block a row to write numbers.
  __device__ __forceinline__ bool writes() const { return !found_ || step_ == launch_; }
  __device__ __forceinline__ bool leads() const { return part_ == 0; }

  /// Merges what all threads of the row find with mine(); T{} as long as it is not known.
  template <class Mine>
  __device__ __forceinline__ auto total(const Mine& mine) {
    using T = decltype(mine());
    const int step = step_++;
    if (found_ && step != launch_) return step < launch_ ? merged<T>(step) : T{};
    const T value = merge_block_for_all(mine());
    if (!found_) return value;
    if (threadIdx.x == 0) *slot<T>(step, part_) = value;
    return T{};
  }

  /// What mine() gives each of the first `kKeepers` threads of a block, which may find it no more in later launches.
  template <class Mine>
  __device__ __forceinline__ auto kept(const Mine& mine) {
    using T = decltype(mine());
    static_assert(kKeepers * sizeof(T) <= sizeof(RowTeams::Slot));
    const int step = step_++;
    if (!found_) return mine();
    if (step > launch_ || threadIdx.x >= kKeepers) return T{};
    T* place = slot<T>(step, part_) + threadIdx.x;
    if (step == launch_) *place = mine();
    return *place;
  }

 private:
  static constexpr unsigned kKeepers = 2;

  template <class T>
  __device__ __forceinline__ T* slot(int step, std::int64_t part) const {
    static_assert(sizeof(T) <= sizeof(RowTeams::Slot) && alignof(T) <= alignof(RowTeams::Slot));
    return reinterpret_cast<T*>(found_ + step * parts_.parts + part);
  }

  template <class T>
  __device__ __forceinline__ T merged(int step) const {
    T value{};
    for (std::int64_t part = threadIdx.x % kWarpSize; part < parts_.parts; part += kWarpSize)
      value.merge(*slot<T>(step, part));
    return merge_warp(value);
  }

  const RowParts& parts_;
  RowTeams::Slot* found_;
  int launch_, step_ = 0;
  std::int64_t part_;
};

}  // namespace dpo::cuda
