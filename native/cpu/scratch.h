// Working memory for chunks: as many buffers as threads are at work at once, each used by one chunk after the other.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "native/cpu/operation.h"

namespace dpo::cpu {

template <class T>
class Scratch {
 public:
  /// Buffers of `count` elements.
  Scratch(dpo_job* job, std::int64_t count) : job_(job), count_(count) {}

  /// Calls body(buffer) with a buffer that nobody else holds meanwhile.
  template <class Body>
  void with_buffer(const Body& body) {
    if (T* buffer = take()) {
      body(buffer);
      const std::lock_guard lock(mutex_);
      free_.push_back(buffer);
    } else {
      exhausted_ = true;
    }
  }

  /// Whether a chunk had to be left undone because memory ran out.
  bool exhausted() const { return exhausted_; }

 private:
  T* take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        T* buffer = free_.back();
        free_.pop_back();
        return buffer;
      }
    }
    return allocate<T>(job_, count_);
  }

  dpo_job* job_;
  std::int64_t count_;
  std::mutex mutex_;
  std::vector<T*> free_;
  std::atomic<bool> exhausted_{false};
};

}  // namespace dpo::cpu
