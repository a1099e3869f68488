#pragma once

#include <cstddef>

namespace dpo {

/// A block of working memory from the process-wide cache: 64-byte aligned, uninitialised. Blocks go back to the cache,
/// since mapping fresh pages costs more than most of what is done in them.
class WorkspaceBlock {
 public:
  static WorkspaceBlock take(std::size_t bytes);  // data() is null when memory is exhausted
  ~WorkspaceBlock();
  WorkspaceBlock(WorkspaceBlock&& other) noexcept;
  WorkspaceBlock& operator=(WorkspaceBlock&&) = delete;
  WorkspaceBlock(const WorkspaceBlock&) = delete;

  void* data() const { return data_; }

 private:
  WorkspaceBlock(void* data, std::size_t capacity) : data_(data), capacity_(capacity) {}
  void* data_;
  std::size_t capacity_;
};

/// Tells the system that a large array is about to be written from end to end, so that it may back it by large pages.
void expect_dense_writes(void* data, std::size_t bytes);

}  // namespace dpo
