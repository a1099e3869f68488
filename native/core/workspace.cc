#include "native/core/workspace.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace dpo {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kCacheLimit = std::size_t{64} << 20;

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

struct CachedBlock {
  void* data;
  std::size_t capacity;
};

struct Cache {
  std::mutex mutex;
  std::vector<CachedBlock> blocks;
  std::size_t bytes = 0;
};

Cache& cache() {
  // Never destroyed, as the thread pool: jobs may outlive static destructors.
  static Cache* instance = new Cache();
  return *instance;
}

/// The smallest cached block that holds `bytes` without wasting more than half of it.
CachedBlock take_cached(std::size_t bytes) {
  Cache& c = cache();
  const std::lock_guard lock(c.mutex);
  auto best = c.blocks.end();
  for (auto it = c.blocks.begin(); it != c.blocks.end(); ++it) {
    if (it->capacity < bytes || it->capacity / 2 > bytes) continue;
    if (best == c.blocks.end() || it->capacity < best->capacity) best = it;
  }
  if (best == c.blocks.end()) return {nullptr, 0};
  const CachedBlock found = *best;
  c.blocks.erase(best);
  c.bytes -= found.capacity;
  return found;
}

/// Keeps the block, dropping the oldest ones beyond the limit.
void give_back(CachedBlock block) {
  std::vector<void*> dropped;
  {
    Cache& c = cache();
    const std::lock_guard lock(c.mutex);
    c.blocks.push_back(block);
    c.bytes += block.capacity;
    while (c.bytes > kCacheLimit) {
      c.bytes -= c.blocks.front().capacity;
      dropped.push_back(c.blocks.front().data);
      c.blocks.erase(c.blocks.begin());
    }
  }
  for (void* data : dropped) std::free(data);
}

}  // namespace

WorkspaceBlock WorkspaceBlock::take(std::size_t bytes) {
  const std::size_t large = kHugePage * 2;
  const std::size_t alignment = bytes >= large ? kHugePage : kAlignment;
  const std::size_t capacity = round_up(std::max(bytes, kAlignment), alignment);
  if (const CachedBlock cached = take_cached(capacity); cached.data) return {cached.data, cached.capacity};
  void* data = std::aligned_alloc(alignment, capacity);
  if (data) expect_dense_writes(data, capacity);
  return {data, capacity};
}

WorkspaceBlock::WorkspaceBlock(WorkspaceBlock&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), capacity_(std::exchange(other.capacity_, 0)) {}

WorkspaceBlock::~WorkspaceBlock() {
  if (data_) give_back({data_, capacity_});
}

void expect_dense_writes(void* data, std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  const auto begin = round_up(reinterpret_cast<std::uintptr_t>(data), kHugePage);
  const auto end = (reinterpret_cast<std::uintptr_t>(data) + bytes) / kHugePage * kHugePage;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace dpo
