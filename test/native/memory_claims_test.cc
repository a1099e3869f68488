#include "native/core/memory_claims.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <thread>
#include <vector>

namespace dpo {
namespace {

std::array<std::byte, 64> memory;

MemoryRange reading(std::size_t begin, std::size_t end) { return {memory.data() + begin, end - begin, false}; }
MemoryRange writing(std::size_t begin, std::size_t end) { return {memory.data() + begin, end - begin, true}; }

/// The claim of a call on these ranges.
class Claim {
 public:
  template <class... Ranges>
  explicit Claim(Ranges... ranges) : ranges_{ranges...}, claim_(ranges_) {}
  bool claimed() const { return claim_.claimed(); }

 private:
  std::vector<MemoryRange> ranges_;
  MemoryClaim claim_;
};

TEST(MemoryClaim, SeveralCallsMayReadTheSameMemory) {
  const Claim first(reading(0, 64)), second(reading(0, 64)), third(reading(8, 16));
  EXPECT_TRUE(first.claimed());
  EXPECT_TRUE(second.claimed());
  EXPECT_TRUE(third.claimed());
}

TEST(MemoryClaim, WhatARunningCallReadsMayNotBeWritten) {
  const Claim reader(reading(16, 32));
  EXPECT_FALSE(Claim(writing(16, 32)).claimed());
  EXPECT_FALSE(Claim(writing(0, 17)).claimed());
  EXPECT_FALSE(Claim(writing(31, 64)).claimed());
  EXPECT_FALSE(Claim(writing(20, 21)).claimed());
  EXPECT_FALSE(Claim(writing(0, 64)).claimed());
}

TEST(MemoryClaim, WhatARunningCallWritesMayNotBeUsed) {
  const Claim writer(writing(16, 32));
  EXPECT_FALSE(Claim(reading(16, 32)).claimed());
  EXPECT_FALSE(Claim(reading(31, 33)).claimed());
  EXPECT_FALSE(Claim(writing(15, 17)).claimed());
}

TEST(MemoryClaim, NeighboursDoNotOverlap) {
  const Claim writer(writing(16, 32));
  EXPECT_TRUE(Claim(writing(0, 16)).claimed());
  EXPECT_TRUE(Claim(reading(32, 64)).claimed());
}

TEST(MemoryClaim, RangesOfOneCallMayNotOverlapEither) {
  EXPECT_FALSE(Claim(reading(0, 32), writing(31, 64)).claimed());
  EXPECT_FALSE(Claim(writing(0, 32), reading(31, 64)).claimed());
  EXPECT_FALSE(Claim(writing(0, 32), writing(0, 32)).claimed());
  EXPECT_TRUE(Claim(reading(0, 32), reading(0, 32), writing(32, 64)).claimed());
}

TEST(MemoryClaim, ACallWithoutMemoryIsNeverInTheWay) {
  const Claim writer(writing(0, 64));
  EXPECT_TRUE(Claim().claimed());
}

TEST(MemoryClaim, IsHeldForAsLongAsItLives) {
  {
    const Claim writer(writing(0, 64));
    EXPECT_FALSE(Claim(reading(0, 1)).claimed());
  }
  EXPECT_TRUE(Claim(writing(0, 64)).claimed());
}

TEST(MemoryClaim, AFailedClaimHoldsNothing) {
  const Claim writer(writing(32, 64));
  const Claim failed(writing(0, 16), writing(40, 48));
  EXPECT_FALSE(failed.claimed());
  EXPECT_TRUE(Claim(writing(0, 16)).claimed());
}

TEST(MemoryClaim, TheEndOfOneClaimLeavesTheOthers) {
  const Claim lasting(reading(0, 64));
  { const Claim passing(reading(0, 64)); }
  EXPECT_FALSE(Claim(writing(0, 64)).claimed());
}

TEST(MemoryClaim, OneWriterAtATimeOnSeveralThreads) {
  long counter = 0;  // not atomic: only claims keep the threads apart
  std::vector<std::thread> threads;
  constexpr int kThreads = 4, kTurns = 500;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int turns = 0; turns < kTurns && std::chrono::steady_clock::now() < end;) {
        if (const Claim claim(writing(0, 64)); claim.claimed()) {
          ++counter, ++turns;
        } else {
          std::this_thread::yield();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter, kThreads * kTurns);
}

}  // namespace
}  // namespace dpo
