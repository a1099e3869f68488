#include "native/core/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <vector>

namespace dpo {
namespace {

/// ThreadPool::run with a lambda as the body.
template <class Body>
bool run(std::int64_t chunks, const Body& body, const std::int32_t* cancel = nullptr) {
  const auto call = [](void* closure, std::int64_t chunk) { (*static_cast<const Body*>(closure))(chunk); };
  return ThreadPool::instance().run(chunks, call, const_cast<Body*>(&body), cancel);
}

/// How often each chunk of a run was executed.
class Tally {
 public:
  explicit Tally(std::int64_t chunks) : counts_(static_cast<std::size_t>(chunks)) {}
  void add(std::int64_t chunk) { counts_[static_cast<std::size_t>(chunk)].fetch_add(1, std::memory_order_relaxed); }
  bool each_once() const {
    return std::all_of(counts_.begin(), counts_.end(), [](const auto& count) { return count.load() == 1; });
  }
  std::int64_t sum() const {
    return std::accumulate(counts_.begin(), counts_.end(), std::int64_t{0},
                           [](auto sum, const auto& count) { return sum + count; });
  }

 private:
  std::vector<std::atomic<int>> counts_;
};

/// Waits until `count` reaches `wanted`, or ten seconds have gone by; whether it did.
bool wait_for(const std::atomic<int>& count, int wanted) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (count.load() < wanted) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

TEST(ThreadPool, RunsEveryChunkOnce) {
  for (const int threads : {1, 2, 4, 9}) {
    ThreadPool::instance().resize(threads);
    for (const std::int64_t chunks : {0, 1, 2, 7, 1000}) {
      Tally tally(chunks);
      EXPECT_TRUE(run(chunks, [&](std::int64_t chunk) { tally.add(chunk); }));
      EXPECT_TRUE(tally.each_once()) << chunks << " chunks on " << threads << " threads";
    }
  }
}

TEST(ThreadPool, WhatChunksWroteIsSeenAfterwards) {
  ThreadPool::instance().resize(4);
  std::vector<std::int64_t> squares(257);  // plain memory: the thread sanitizer checks the order
  ASSERT_TRUE(run(257, [&](std::int64_t chunk) { squares[static_cast<std::size_t>(chunk)] = chunk * chunk; }));
  for (std::int64_t i = 0; i < 257; ++i) ASSERT_EQ(squares[static_cast<std::size_t>(i)], i * i);
}

TEST(ThreadPool, WorksOnOneRunWithAllItsThreads) {
  ThreadPool::instance().resize(4);
  for (int repeat = 0; repeat < 3; ++repeat) {
    std::atomic<int> begun{0}, met{0};
    // Each chunk holds its thread until four have begun.
    EXPECT_TRUE(run(4, [&](std::int64_t) {
      ++begun;
      if (wait_for(begun, 4)) ++met;
    }));
    ASSERT_EQ(met, 4);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // the workers fall asleep
  }
}

TEST(ThreadPool, UsesNoMoreThreadsThanItsSize) {
  for (const int threads : {5, 2, 1}) {  // the larger first: its workers are still there
    ThreadPool::instance().resize(threads);
    std::mutex mutex;
    std::set<std::thread::id> seen;
    EXPECT_TRUE(run(200, [&](std::int64_t) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      const std::lock_guard lock(mutex);
      seen.insert(std::this_thread::get_id());
    }));
    EXPECT_LE(seen.size(), static_cast<std::size_t>(threads));
    EXPECT_TRUE(seen.contains(std::this_thread::get_id()));
  }
}

TEST(ThreadPool, ChunksMayRunThePoolThemselves) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool::instance().resize(threads);
    Tally tally(8 * 8 * 8);
    EXPECT_TRUE(run(8, [&](std::int64_t i) {
      EXPECT_TRUE(run(8, [&](std::int64_t j) { EXPECT_TRUE(run(8, [&](std::int64_t k) { tally.add((i * 8 + j) * 8 + k); })); }));
    }));
    EXPECT_TRUE(tally.each_once());
  }
}

/// Calls body(0 .. 3) on four threads at once.
template <class Body>
void on_four_threads(const Body& body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(body, i);
  for (std::thread& thread : threads) thread.join();
}

TEST(ThreadPool, SeveralThreadsMayRunAtOnce) {
  ThreadPool::instance().resize(3);
  on_four_threads([](int) {
    for (int repeat = 0; repeat < 100; ++repeat) {
      Tally tally(33);
      EXPECT_TRUE(run(33, [&](std::int64_t chunk) {
        tally.add(chunk);
        if (chunk % 11 == 0) run(3, [](std::int64_t) {});
      }));
      EXPECT_TRUE(tally.each_once());
    }
  });
}

TEST(ThreadPool, ACancelledRunDoesNotBegin) {
  const std::int32_t cancel = 1;
  for (const int threads : {1, 4}) {
    ThreadPool::instance().resize(threads);
    for (const std::int64_t chunks : {1, 100}) {
      Tally tally(chunks);
      EXPECT_FALSE(run(
          chunks, [&](std::int64_t chunk) { tally.add(chunk); }, &cancel));
      EXPECT_EQ(tally.sum(), 0);
    }
  }
}

TEST(ThreadPool, CancellingLeavesOutChunksNotYetBegun) {
  for (const int threads : {1, 4}) {
    ThreadPool::instance().resize(threads);
    std::int32_t cancel = 0;
    Tally tally(10000);
    EXPECT_FALSE(run(
        10000,
        [&](std::int64_t chunk) {
          tally.add(chunk);
          if (chunk == 10) __atomic_store_n(&cancel, 1, __ATOMIC_RELAXED);
          std::this_thread::sleep_for(std::chrono::microseconds(100));
        },
        &cancel));
    const std::int64_t ran = tally.sum();
    EXPECT_GE(ran, 11);
    EXPECT_LT(ran, 5000);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    EXPECT_EQ(tally.sum(), ran) << "chunks ran after run() had returned";
  }
}

TEST(ThreadPool, CancellingOneRunLeavesTheOthers) {
  ThreadPool::instance().resize(4);
  on_four_threads([](int thread) {
    for (int repeat = 0; repeat < 50; ++repeat) {
      const std::int32_t cancel = thread % 2;
      Tally tally(64);
      EXPECT_EQ(run(
                    64, [&](std::int64_t chunk) { tally.add(chunk); }, &cancel),
                cancel == 0);
      EXPECT_EQ(tally.sum(), cancel ? 0 : 64);
    }
  });
}

TEST(ThreadPool, ARunCancelledByItsLastChunkIsComplete) {
  ThreadPool::instance().resize(1);
  std::int32_t cancel = 0;
  EXPECT_TRUE(run(
      3, [&](std::int64_t chunk) { cancel = chunk == 2; }, &cancel));
}

TEST(ThreadPool, SizeStaysWithinItsLimits) {
  ThreadPool& pool = ThreadPool::instance();
  pool.resize(3);
  EXPECT_EQ(pool.size(), 3);
  pool.resize(0);
  EXPECT_EQ(pool.size(), 1);
  pool.resize(-5);
  EXPECT_EQ(pool.size(), 1);
  pool.resize(1 << 30);
  EXPECT_EQ(pool.size(), 1024);
}

TEST(ThreadPool, MayBeResizedWhileItRuns) {
  std::atomic<bool> stop{false};
  std::thread resizer([&] {
    for (int i = 0; !stop; ++i) {
      ThreadPool::instance().resize(1 + i % 6);
      std::this_thread::yield();
    }
  });
  for (int repeat = 0; repeat < 500; ++repeat) {
    Tally tally(20);
    EXPECT_TRUE(run(20, [&](std::int64_t chunk) { tally.add(chunk); }));
    EXPECT_TRUE(tally.each_once());
  }
  stop = true;
  resizer.join();
}

/// In a process of its own: the size at which the pool starts.
void expect_initial_size(const char* setting, int wanted) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto start_and_exit = [=] {
    setenv("DPO_KERNELS_THREADS", setting, 1);
    const int size = ThreadPool::instance().size();
    std::_Exit(wanted > 0 ? size != wanted : size < 1);
  };
  EXPECT_EXIT(start_and_exit(), testing::ExitedWithCode(0), "") << setting;
}

TEST(ThreadPoolDeathTest, TheEnvironmentSetsTheInitialSize) {
  expect_initial_size("3", 3);
  expect_initial_size("999999", 1024);
}

TEST(ThreadPoolDeathTest, ASettingThatIsNoSizeIsNotUsed) {
  for (const char* setting : {"", "0", "-2", "many"}) expect_initial_size(setting, -1);
}

}  // namespace
}  // namespace dpo
