#include "native/core/workspace.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace dpo {
namespace {

constexpr std::size_t kMegabyte = std::size_t{1} << 20;

bool is_aligned(const void* data) { return reinterpret_cast<std::uintptr_t>(data) % 64 == 0; }

/// Where a block of this size lies that has already been given back.
const void* address_of_passing_block(std::size_t bytes) { return WorkspaceBlock::take(bytes).data(); }

class Workspace : public testing::Test {
 protected:
  /// Drives the blocks of earlier tests out of the cache: one as large as all that it keeps.
  void SetUp() override { WorkspaceBlock::take(64 * kMegabyte); }
};

TEST_F(Workspace, BlocksAreAlignedAndWritableToTheEnd) {
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{65},
                                  std::size_t{4097}, 4 * kMegabyte - 1, 4 * kMegabyte, 5 * kMegabyte + 3}) {
    const WorkspaceBlock block = WorkspaceBlock::take(bytes);
    ASSERT_NE(block.data(), nullptr) << bytes;
    EXPECT_TRUE(is_aligned(block.data())) << bytes;
    std::memset(block.data(), 0xa5, bytes);
  }
}

TEST_F(Workspace, ABlockGivenBackIsUsedAgain) {
  for (const std::size_t bytes : {std::size_t{100}, kMegabyte, 8 * kMegabyte}) {
    const void* before = address_of_passing_block(bytes);
    EXPECT_EQ(WorkspaceBlock::take(bytes).data(), before) << bytes;
  }
}

TEST_F(Workspace, BlocksInUseAreApart) {
  const WorkspaceBlock a = WorkspaceBlock::take(kMegabyte), b = WorkspaceBlock::take(kMegabyte);
  std::memset(a.data(), 1, kMegabyte);
  std::memset(b.data(), 2, kMegabyte);
  EXPECT_EQ(static_cast<const char*>(a.data())[kMegabyte - 1], 1);
  EXPECT_EQ(static_cast<const char*>(b.data())[kMegabyte - 1], 2);
}

TEST_F(Workspace, ALargeBlockIsNotWastedOnASmallRequest) {
  const void* large = address_of_passing_block(kMegabyte);
  EXPECT_NE(WorkspaceBlock::take(kMegabyte / 4).data(), large);
  EXPECT_EQ(WorkspaceBlock::take(kMegabyte - kMegabyte / 4).data(), large);
}

TEST_F(Workspace, TheSmallestBlockThatFitsIsUsed) {
  for (const bool small_first : {false, true}) {
    std::optional<WorkspaceBlock> large = WorkspaceBlock::take(900 * 64), small = WorkspaceBlock::take(700 * 64);
    const void* wanted = small->data();
    (small_first ? small : large).reset();
    (small_first ? large : small).reset();
    EXPECT_EQ(WorkspaceBlock::take(600 * 64).data(), wanted);
  }
}

TEST_F(Workspace, AMovedBlockIsGivenBackOnce) {
  WorkspaceBlock block = WorkspaceBlock::take(kMegabyte);
  const void* data = block.data();
  {
    const WorkspaceBlock moved = std::move(block);
    EXPECT_EQ(moved.data(), data);
    EXPECT_EQ(block.data(), nullptr);  // NOLINT: what is left behind is what is tested
    EXPECT_NE(WorkspaceBlock::take(kMegabyte).data(), data);
  }
  const WorkspaceBlock again = WorkspaceBlock::take(kMegabyte), other = WorkspaceBlock::take(kMegabyte);
  EXPECT_NE(again.data(), other.data());
}

TEST_F(Workspace, MoreThanThereIsGivesNull) { EXPECT_EQ(WorkspaceBlock::take(SIZE_MAX / 4).data(), nullptr); }

TEST_F(Workspace, ThreadsNeverShareABlock) {
  std::vector<std::thread> threads;
  for (int thread = 1; thread <= 4; ++thread) {
    threads.emplace_back([thread] {
      for (int repeat = 0; repeat < 300; ++repeat) {
        const std::size_t bytes = std::size_t{64} << (repeat % 8);
        const WorkspaceBlock block = WorkspaceBlock::take(bytes);
        auto* bytes_of_block = static_cast<unsigned char*>(block.data());
        std::memset(bytes_of_block, thread, bytes);
        std::this_thread::yield();
        for (std::size_t i = 0; i < bytes; ++i) ASSERT_EQ(bytes_of_block[i], thread);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(Workspace, ExpectingWritesChangesNothing) {
  std::vector<unsigned char> data(6 * kMegabyte, 7);
  for (const std::size_t offset : {0, 1, 4096}) expect_dense_writes(data.data() + offset, data.size() - 2 * offset);
  expect_dense_writes(data.data(), 0);
  for (const unsigned char byte : data) ASSERT_EQ(byte, 7);
}

}  // namespace
}  // namespace dpo
