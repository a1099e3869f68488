// Counts what kernels move between device memory and the second-level cache. native/cuda is compiled with the calls that a thread
// sanitizer wants at every access to memory; they come here, and those to device memory are counted by sectors.
//
// The model: threads of a block take turns at every access. Blocks run here one after the other, but on the device as many at a
// time as its processors hold, all equally fast. The clock therefore advances by (blocks at a time) × (a sector) for every sector
// that a block fetches, and the next blocks start when the last of these have ended. A sector stays in the cache until as many
// bytes as its share have been fetched after it (first in, first out). Reading one that is not there counts; writing counts once
// as long as it stays there, for it is written back later.
#include "native/simt/traffic.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>
#include <utility>

namespace dpo::simt {
namespace {

using Model = TrafficModel;

struct Sector {
  std::int64_t fetched = std::numeric_limits<std::int64_t>::min() / 2;  // when
  bool written = false;
};

struct Allocation {
  std::size_t bytes;
  std::vector<Sector> sectors;
};

/// Blocks of these that the device holds. How many registers they take is not known here, so it may be fewer.
unsigned blocks_at_a_time(Dim3 block, std::size_t shared_bytes) {
  const unsigned by_threads = Model::resident_threads / ((block.count() + kWarp - 1) / kWarp * kWarp);
  const auto by_memory = static_cast<unsigned>(Model::shared_memory / (shared_bytes + Model::shared_memory_of_system));
  return Model::processors * std::min({by_threads, by_memory, Model::resident_blocks});
}

class Traffic {
 public:
  void begin() {
    counts_ = true;
    for (auto& [at, allocation] : allocations_) std::fill(allocation.sectors.begin(), allocation.sectors.end(), Sector{});
  }
  std::vector<LaunchTraffic> end() {
    counts_ = false;
    return std::exchange(launches_, {});
  }

  void take(const void* memory, std::size_t bytes) {
    const auto sectors = (bytes + Model::sector - 1) / Model::sector;
    allocations_.insert_or_assign(address(memory), Allocation{bytes, std::vector<Sector>(sectors)});
    found_ = allocations_.end();
  }
  void give_back(const void* memory) {
    allocations_.erase(address(memory));
    found_ = allocations_.end();
  }

  void launch(const void* kernel, Dim3 grid, Dim3 block, std::size_t shared_bytes) {
    if (!counts_) return;
    launches_.push_back({kernel, grid, block, shared_bytes});
    blocks_left_ = grid.count();
    most_blocks_ = blocks_at_a_time(block, shared_bytes);
    blocks_of_wave_ = 0;
  }
  void block() {
    if (blocks_of_wave_ == 0) {
      wave_ = blocks_of_wave_ = std::max(1u, std::min(blocks_left_, most_blocks_));
      wave_begin_ = wave_end_;
    }
    now_ = wave_begin_;
    --blocks_of_wave_;
    --blocks_left_;
  }

  /// False when this is no device memory.
  bool access(const void* memory, std::size_t bytes, bool writes) {
    if (!counts_ || launches_.empty()) return false;
    const std::uintptr_t at = address(memory);
    Allocation* allocation = holder_of(at);
    if (!allocation) return false;
    const std::size_t offset = at - found_->first;
    for (std::size_t i = offset / Model::sector; i <= (offset + bytes - 1) / Model::sector; ++i) {
      if (writes) {
        write(allocation->sectors[i]);
      } else {
        read(allocation->sectors[i]);
      }
    }
    return true;
  }

 private:
  using Allocations = std::map<std::uintptr_t, Allocation>;

  static std::uintptr_t address(const void* memory) { return reinterpret_cast<std::uintptr_t>(memory); }

  Allocation* holder_of(std::uintptr_t at) {
    const auto holds = [&](Allocations::iterator it) { return it->first <= at && at - it->first < it->second.bytes; };
    if (found_ != allocations_.end() && holds(found_)) return &found_->second;
    const auto after = allocations_.upper_bound(at);
    if (after == allocations_.begin() || !holds(std::prev(after))) return nullptr;
    found_ = std::prev(after);
    return &found_->second;
  }

  bool present(const Sector& sector) const { return std::abs(now_ - sector.fetched) < Model::cache_share; }

  void fetch(Sector& sector) {
    sector = {now_, false};
    now_ += static_cast<std::int64_t>(wave_) * Model::sector;
    wave_end_ = std::max(wave_end_, now_);
  }
  void read(Sector& sector) {
    if (present(sector)) return;
    fetch(sector);
    launches_.back().read += Model::sector;
  }
  void write(Sector& sector) {
    if (!present(sector)) fetch(sector);
    if (std::exchange(sector.written, true)) return;
    launches_.back().written += Model::sector;
  }

  bool counts_ = false;
  Allocations allocations_;
  Allocations::iterator found_ = allocations_.end();
  std::vector<LaunchTraffic> launches_;
  unsigned blocks_left_ = 0, most_blocks_ = 1, blocks_of_wave_ = 0, wave_ = 1;
  std::int64_t now_ = 0, wave_begin_ = 0, wave_end_ = 0;
};

// Kernels run on the thread that waits for them, and memory is asked for there too: each thread has calls of its own.
Traffic& traffic() {
  thread_local Traffic all;
  return all;
}

void access(const void* memory, std::size_t bytes, bool writes) {
  if (traffic().access(memory, bytes, writes)) pause_thread();
}

}  // namespace

void begin_traffic() { traffic().begin(); }
std::vector<LaunchTraffic> end_traffic() { return traffic().end(); }
void memory_taken(const void* memory, std::size_t bytes) { traffic().take(memory, bytes); }
void memory_given_back(const void* memory) { traffic().give_back(memory); }
void memory_filled(const void* memory, std::size_t bytes) {
  traffic().launch(nullptr, {}, {}, 0);
  traffic().block();
  traffic().access(memory, bytes, true);
}
void launch_begins(const void* kernel, Dim3 grid, Dim3 block, std::size_t shared_bytes) {
  traffic().launch(kernel, grid, block, shared_bytes);
}
void block_begins() { traffic().block(); }

}  // namespace dpo::simt

// What the compiler calls.
using dpo::simt::access;
extern "C" {
#define DPO_TRAFFIC(bytes)                                                            \
  void __tsan_read##bytes(void* at) { access(at, bytes, false); }           \
  void __tsan_write##bytes(void* at) { access(at, bytes, true); }           \
  void __tsan_unaligned_read##bytes(void* at) { access(at, bytes, false); } \
  void __tsan_unaligned_write##bytes(void* at) { access(at, bytes, true); }
DPO_TRAFFIC(1)
DPO_TRAFFIC(2)
DPO_TRAFFIC(4)
DPO_TRAFFIC(8)
DPO_TRAFFIC(16)
void __tsan_read_range(void* at, std::size_t bytes) { access(at, bytes, false); }
void __tsan_write_range(void* at, std::size_t bytes) { access(at, bytes, true); }
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
// Atomics are the host's: whether a static object has been made, and how many hold a shared one.
unsigned char __tsan_atomic8_load(const volatile unsigned char* at, int) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
int __tsan_atomic32_fetch_add(volatile int* at, int value, int) { return __atomic_fetch_add(at, value, __ATOMIC_ACQ_REL); }
}
