#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

namespace dpo {

using ChunkBody = void (*)(void* closure, std::int64_t chunk);

/// The one pool of worker threads of the process. Work is cut into chunks by the caller; which thread runs a chunk never
/// shows in the result. Started on first use; several threads may call run() at once and share the workers.
class ThreadPool {
 public:
  static ThreadPool& instance();

  /// Number of threads that work on one run(), the caller included.
  int size() const { return size_.load(std::memory_order_relaxed); }
  void resize(int threads);

  /// Runs body(closure, 0 .. chunks-1) and returns when all are done, or, once *cancel is non-zero, when those already
  /// begun are done. Returns whether every chunk ran. `cancel` may be null.
  bool run(std::int64_t chunks, ChunkBody body, void* closure, const std::int32_t* cancel);

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

 private:
  struct Batch;
  ThreadPool();
  ~ThreadPool() = default;
  void start_workers();
  void work(int worker);
  Batch* batch_with_work(int worker);

  std::atomic<int> size_;
  std::mutex mutex_;
  std::condition_variable work_available_;
  std::condition_variable helper_left_;
  std::list<Batch*> batches_;
  std::vector<std::thread> workers_;
};

}  // namespace dpo
