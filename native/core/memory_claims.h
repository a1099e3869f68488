#pragma once

#include <cstddef>
#include <span>

namespace dpo {

struct MemoryRange {
  const void* data;
  std::size_t bytes;
  bool written;
};

/// Keeps running calls, of every thread of the process, from writing memory that another one uses. Held while a call runs.
class MemoryClaim {
 public:
  /// Fails, with claimed() false, when a range to be written overlaps another range of this call or of a running one.
  explicit MemoryClaim(std::span<const MemoryRange> ranges);
  ~MemoryClaim();
  MemoryClaim(const MemoryClaim&) = delete;
  MemoryClaim& operator=(const MemoryClaim&) = delete;

  bool claimed() const { return claimed_; }

 private:
  bool claimed_;
};

}  // namespace dpo
