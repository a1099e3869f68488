#include "native/core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>

namespace dpo {
namespace {

constexpr int kMaxThreads = 1024;

int usable_processors() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int initial_size() {
  const char* text = std::getenv("DPO_KERNELS_THREADS");
  const int asked = text ? std::atoi(text) : 0;
  return asked > 0 ? std::min(asked, kMaxThreads) : usable_processors();
}

bool cancelled(const std::int32_t* cancel) { return cancel && __atomic_load_n(cancel, __ATOMIC_RELAXED) != 0; }

}  // namespace

/// One run(): lives on its caller's stack, and is left only after every helper has left it.
struct ThreadPool::Batch {
  std::int64_t chunks;
  ChunkBody body;
  void* closure;
  const std::int32_t* cancel;
  int helper_limit;
  std::atomic<std::int64_t> next{0};
  std::atomic<std::int64_t> done{0};
  int helpers = 0;

  bool has_work() const { return next.load(std::memory_order_relaxed) < chunks; }

  void take_chunks() {
    while (!cancelled(cancel)) {
      const std::int64_t chunk = next.fetch_add(1, std::memory_order_relaxed);
      if (chunk >= chunks) return;
      body(closure, chunk);
      done.fetch_add(1, std::memory_order_release);
    }
    next.store(chunks, std::memory_order_relaxed);
  }
};

ThreadPool::ThreadPool() : size_(initial_size()) {}

ThreadPool& ThreadPool::instance() {
  // Never destroyed: at process exit jobs may still be running on threads that nobody joins.
  static ThreadPool* pool = new ThreadPool();
  return *pool;
}

void ThreadPool::resize(int threads) { size_.store(std::clamp(threads, 1, kMaxThreads), std::memory_order_relaxed); }

void ThreadPool::start_workers() {
  const auto wanted = static_cast<std::size_t>(size() - 1);
  while (workers_.size() < wanted) {
    const int worker = static_cast<int>(workers_.size());
    workers_.emplace_back([this, worker] { work(worker); });
  }
}

ThreadPool::Batch* ThreadPool::batch_with_work(int worker) {
  if (worker >= size() - 1) return nullptr;
  for (Batch* batch : batches_) {
    if (batch->helpers < batch->helper_limit && batch->has_work()) return batch;
  }
  return nullptr;
}

void ThreadPool::work(int worker) {
  std::unique_lock lock(mutex_);
  for (;;) {
    Batch* batch = batch_with_work(worker);
    if (!batch) {
      work_available_.wait(lock);
      continue;
    }
    ++batch->helpers;
    lock.unlock();
    batch->take_chunks();
    lock.lock();
    if (--batch->helpers == 0) helper_left_.notify_all();
  }
}

bool ThreadPool::run(std::int64_t chunks, ChunkBody body, void* closure, const std::int32_t* cancel) {
  Batch batch{chunks, body, closure, cancel, size() - 1};
  if (chunks <= 1 || size() == 1) {
    batch.take_chunks();
    return batch.done.load() == chunks;
  }
  {
    const std::lock_guard lock(mutex_);
    start_workers();
    batches_.push_back(&batch);
  }
  work_available_.notify_all();
  batch.take_chunks();
  std::unique_lock lock(mutex_);
  batches_.remove(&batch);
  helper_left_.wait(lock, [&] { return batch.helpers == 0; });
  return batch.done.load(std::memory_order_acquire) == chunks;
}

}  // namespace dpo
