#include "native/core/job.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>

namespace dpo {
namespace {

/// Runs as many chunks as asked for; how many ran, or -1 when the service reports that the job was cancelled.
int chunks_run(dpo_job& job, std::int64_t chunks) {
  std::atomic<int> count{0};
  const auto body = [](void* closure, std::int64_t) { ++*static_cast<std::atomic<int>*>(closure); };
  const dpo_status status = host_services().parallel_for(&job, chunks, body, &count);
  return status == DPO_OK ? count.load() : -1;
}

TEST(Job, FailKeepsTheReasonAndReturnsTheStatus) {
  dpo_job job;
  EXPECT_EQ(host_services().fail(&job, DPO_ERR_NOT_PSD, 7, "minor 7 is negative"), DPO_ERR_NOT_PSD);
  EXPECT_EQ(job.status.code, DPO_ERR_NOT_PSD);
  EXPECT_EQ(job.status.index, 7);
  EXPECT_EQ(job.status.message, "minor 7 is negative");
}

TEST(Job, ParallelForRunsEveryChunk) {
  dpo_job job;
  EXPECT_EQ(chunks_run(job, 100), 100);
  EXPECT_TRUE(job.status.ok());
}

TEST(Job, ParallelForOfACancelledJobIsAborted) {
  const std::int32_t cancel = 1;
  dpo_job job;
  job.cancel = &cancel;
  EXPECT_EQ(chunks_run(job, 100), -1);
  EXPECT_EQ(job.status.code, DPO_ERR_ABORTED);
}

TEST(Job, WorkingMemoryIsTheJobsOwnUntilItEnds) {
  dpo_job job;
  auto* first = static_cast<unsigned char*>(host_services().allocate(&job, 1000));
  auto* second = static_cast<unsigned char*>(host_services().allocate(&job, 1000));
  ASSERT_NE(first, nullptr);
  ASSERT_NE(second, nullptr);
  std::memset(first, 1, 1000);
  std::memset(second, 2, 1000);
  EXPECT_EQ(first[999], 1);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % 64, 0u);
}

TEST(Job, ChunksMayTakeWorkingMemory) {
  dpo_job job;
  const auto body = [](void* closure, std::int64_t chunk) {
    void* memory = host_services().allocate(static_cast<dpo_job*>(closure), 128);
    std::memset(memory, static_cast<int>(chunk), 128);
  };
  EXPECT_EQ(host_services().parallel_for(&job, 50, body, &job), DPO_OK);
  EXPECT_EQ(job.workspace.size(), 50u);
}

TEST(Job, ACancelledJobDoesNotBeginToWrite) {
  const std::int32_t cancel = 1;
  for (const bool to_caller : {false, true}) {
    dpo_job job;
    job.cancel = &cancel;
    job.writes_to_caller = to_caller;
    EXPECT_EQ(host_services().check_cancelled(&job), DPO_ERR_ABORTED);
    EXPECT_EQ(host_services().begin_writes(&job), DPO_ERR_ABORTED);
    EXPECT_EQ(job.status.code, DPO_ERR_ABORTED);
  }
}

TEST(Job, WritesToTheCallersMemoryAreFinished) {
  std::int32_t cancel = 0;
  dpo_job job;
  job.cancel = &cancel;
  job.writes_to_caller = true;
  EXPECT_EQ(host_services().begin_writes(&job), DPO_OK);
  cancel = 1;
  EXPECT_EQ(host_services().check_cancelled(&job), DPO_OK);
  EXPECT_EQ(chunks_run(job, 10), 10);
}

TEST(Job, WritesToNewMemoryMayStillBeCancelled) {
  std::array<float, 8> values{};
  std::int32_t cancel = 0;
  dpo_job job;
  job.cancel = &cancel;
  job.results = {{.data = values.data(), .shape = {8}, .rank = 1, .dtype = DPO_F32, .place = DPO_HOST}};
  EXPECT_EQ(host_services().begin_writes(&job), DPO_OK);
  cancel = 1;
  EXPECT_EQ(chunks_run(job, 10), -1);
}

TEST(Job, DiscardsTheResultsOfAFailingCallUnlessTheCallerSuppliedThem) {
  dpo_job job;
  EXPECT_NE(host_services().discards_results(&job), 0);
  job.writes_to_caller = true;
  EXPECT_EQ(host_services().discards_results(&job), 0);
}

}  // namespace
}  // namespace dpo
