#include "native/core/memory_claims.h"

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <vector>

namespace dpo {
namespace {

struct Held {
  MemoryRange range;
  const MemoryClaim* owner;
};

struct Ledger {
  std::mutex mutex;
  std::vector<Held> held;
};

Ledger& ledger() {
  // Never destroyed, as the thread pool: jobs may outlive static destructors.
  static Ledger* instance = new Ledger();
  return *instance;
}

bool conflict(const MemoryRange& a, const MemoryRange& b) {
  if (!a.written && !b.written) return false;
  const auto a_begin = reinterpret_cast<std::uintptr_t>(a.data), b_begin = reinterpret_cast<std::uintptr_t>(b.data);
  return a_begin < b_begin + b.bytes && b_begin < a_begin + a.bytes;
}

}  // namespace

MemoryClaim::MemoryClaim(std::span<const MemoryRange> ranges) : claimed_(false) {
  Ledger& l = ledger();
  const std::lock_guard lock(l.mutex);
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (conflict(ranges[i], ranges[j])) return;
    }
    for (const Held& held : l.held) {
      if (conflict(ranges[i], held.range)) return;
    }
  }
  for (const MemoryRange& range : ranges) l.held.push_back({range, this});
  claimed_ = true;
}

MemoryClaim::~MemoryClaim() {
  if (!claimed_) return;
  Ledger& l = ledger();
  const std::lock_guard lock(l.mutex);
  std::erase_if(l.held, [this](const Held& held) { return held.owner == this; });
}

}  // namespace dpo
