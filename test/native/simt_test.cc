// The host execution of CUDA kernels: that it runs right ones, and notices what is wrong with others.
#include "native/simt/grid.h"

#include <cuda_runtime.h>
#include <device/shared_memory.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace dpo::simt {
namespace {

constexpr Order kOrders[] = {Order::forward, Order::reverse, Order::random, Order::greedy};

/// A stream, and memory that it owns.
class SimtTest : public testing::Test {
 protected:
  SimtTest() { cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking); }
  ~SimtTest() override {
    for (void* memory : memory_) cudaFreeAsync(memory, stream_);
    cudaStreamDestroy(stream_);
    launch_order() = Order::forward;
  }

  int* ints(std::size_t count) {
    void* memory = nullptr;
    EXPECT_EQ(cudaMallocAsync(&memory, count * sizeof(int), stream_), cudaSuccess);
    memory_.push_back(memory);
    return static_cast<int*>(memory);
  }
  template <class... Expected, class... Actual>
  cudaError_t launch(void (*kernel)(Expected...), unsigned blocks, unsigned threads, std::size_t shared, Actual... arguments) {
    cudaLaunchConfig_t config{{blocks, 1, 1}, {threads, 1, 1}, shared, stream_, nullptr, 0};
    cudaLaunchKernelEx(&config, kernel, arguments...);
    return cudaStreamSynchronize(stream_);
  }
  std::vector<int> read(const int* from, std::size_t count) {
    std::vector<int> values(count);
    EXPECT_EQ(cudaMemcpyAsync(values.data(), from, count * sizeof(int), cudaMemcpyDeviceToHost, stream_), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    return values;
  }

  cudaStream_t stream_ = nullptr;
  std::vector<void*> memory_;
};

__global__ void reverse_block(int* out, bool waits) {
  int* shared = static_cast<int*>(cuda::shared_memory());
  const unsigned t = threadIdx.x, n = blockDim.x;
  shared[t] = static_cast<int>(t);
  if (waits) __syncthreads();
  out[blockIdx.x * n + t] = shared[n - 1 - t];
}

TEST_F(SimtTest, RunsAKernelWithBarriersInEveryOrder) {
  for (const Order order : kOrders) {
    launch_order() = order;
    int* out = ints(2 * 96);
    ASSERT_EQ(launch(reverse_block, 2, 96, 96 * sizeof(int), out, true), cudaSuccess);
    const std::vector<int> values = read(out, 2 * 96);
    for (std::size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], static_cast<int>(95 - i % 96));
  }
}

#if !defined(DPO_SIMT_TSAN)
TEST_F(SimtTest, ShowsAMissingBarrierInEveryOrder) {
  for (const Order order : kOrders) {
    launch_order() = order;
    int* out = ints(64);
    ASSERT_EQ(launch(reverse_block, 1, 64, 64 * sizeof(int), out, false), cudaSuccess);
    const std::vector<int> values = read(out, 64);
    bool wrong = false;
    for (std::size_t i = 0; i < values.size(); ++i) wrong = wrong || values[i] != static_cast<int>(63 - i);
    EXPECT_TRUE(wrong);
  }
}

/// Every thread reads its neighbour's number, and writes the next one where the neighbour may still have to read.
__global__ void pass_round(int* out, bool waits) {
  int* shared = static_cast<int*>(cuda::shared_memory());
  const unsigned t = threadIdx.x, n = blockDim.x;
  shared[t] = static_cast<int>(t);
  __syncthreads();
  for (int step = 0; step < 3; ++step) {
    const int value = shared[(t + 1) % n];
    if (waits) __syncthreads();
    shared[t] = value;
    __syncthreads();
  }
  out[t] = shared[t];
}

TEST_F(SimtTest, GreedyShowsABarrierThatIsMissingBeforeMemoryIsUsedAgain) {
  for (const bool waits : {true, false}) {
    launch_order() = Order::greedy;
    int* out = ints(8);
    ASSERT_EQ(launch(pass_round, 1, 8, 8 * sizeof(int), out, waits), cudaSuccess);
    bool right = true;
    const std::vector<int> values = read(out, 8);
    for (std::size_t i = 0; i < values.size(); ++i) right = right && values[i] == static_cast<int>((i + 3) % 8);
    EXPECT_EQ(right, waits);
  }
}
#endif

__global__ void sum_warp(int* out) {
  int value = static_cast<int>(threadIdx.x);
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
  out[threadIdx.x] = value;
}

TEST_F(SimtTest, ExchangesWithinAWarp) {
  for (const Order order : kOrders) {
    launch_order() = order;
    int* out = ints(64);
    ASSERT_EQ(launch(sum_warp, 1, 64, 0, out), cudaSuccess);
    const std::vector<int> values = read(out, 64);
    for (std::size_t i = 0; i < 64; ++i) EXPECT_EQ(values[i], i < 32 ? 496 : 496 + 32 * 32);
  }
}

__global__ void half_a_barrier() {
  if (threadIdx.x % 2 == 0) __syncthreads();
}
__global__ void half_a_warp() {
  if (threadIdx.x < 16) __shfl_xor_sync(0xffffffffu, 1, 1);
}
__global__ void wrong_mask() {
  if (threadIdx.x > 0) __shfl_xor_sync(0x1u, 1, 0);
}
__global__ void lane_outside_mask() {
  if (threadIdx.x < 16) __shfl_xor_sync(0xffffu, 1, 16);
}
__global__ void nothing() {}

TEST_F(SimtTest, RefusesWrongKernels) {
  const auto expect = [&](void (*kernel)(), const std::string& why) {
    ASSERT_EQ(launch(kernel, 1, 32, 0), cudaErrorLaunchFailure);
    EXPECT_NE(std::string(cudaGetErrorString(cudaErrorLaunchFailure)).find(why), std::string::npos)
        << cudaGetErrorString(cudaErrorLaunchFailure);
  };
  expect(half_a_barrier, "waits at a barrier");
  expect(half_a_warp, "waits for its warp");
  expect(wrong_mask, "a lane is not in its own mask");
  expect(lane_outside_mask, "reads from a lane that is not in the mask");
  EXPECT_EQ(launch(nothing, 1, 1025, 0), cudaErrorLaunchFailure);
  EXPECT_EQ(launch(nothing, 1, 32, kMostSharedMemory + 1), cudaErrorLaunchFailure);
  EXPECT_EQ(launch(nothing, 0, 32, 0), cudaErrorLaunchFailure);
  EXPECT_EQ(launch(nothing, 1, 32, 0), cudaSuccess);
}

__global__ void shared_bits(int* out) { *out = *static_cast<int*>(cuda::shared_memory()); }

TEST_F(SimtTest, MemoryIsNaNAtFirst) {
  int* out = ints(2);
  EXPECT_EQ(read(out, 2), (std::vector<int>{-1, -1}));
  ASSERT_EQ(launch(shared_bits, 1, 1, sizeof(int), out), cudaSuccess);
  EXPECT_EQ(read(out, 1), std::vector<int>{-1});
}

TEST_F(SimtTest, DoesNothingBeforeItIsWaitedFor) {
  int* memory = ints(1);
  int from = 7, to = 0;
  cudaMemcpyAsync(memory, &from, sizeof from, cudaMemcpyHostToDevice, stream_);
  cudaMemcpyAsync(&to, memory, sizeof to, cudaMemcpyDeviceToHost, stream_);
  EXPECT_EQ(to, 0);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(to, 7);
}

TEST_F(SimtTest, CopiesStayWithinDeviceMemory) {
  int* memory = ints(2);
  int values[4] = {};
  cudaMemcpyAsync(memory, values, 3 * sizeof(int), cudaMemcpyHostToDevice, stream_);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorInvalidValue);
  cudaMemcpyAsync(values, values + 2, sizeof(int), cudaMemcpyDeviceToHost, stream_);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorInvalidValue);
  cudaMemcpyAsync(memory + 1, values, sizeof(int), cudaMemcpyHostToDevice, stream_);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
}

#if defined(DPO_SIMT_ASAN)
__global__ void beyond_shared(int* out) { *out = static_cast<int*>(cuda::shared_memory())[blockDim.x]; }
__global__ void beyond_memory(int* out) { out[blockDim.x] = 1; }

TEST_F(SimtTest, TheAddressSanitizerSeesWhatGoesBeyond) {
  int* out = ints(32);
  EXPECT_DEATH(launch(beyond_shared, 1, 32, 32 * sizeof(int), out), "heap-buffer-overflow");
  EXPECT_DEATH(launch(beyond_memory, 1, 32, 0, out), "heap-buffer-overflow");
}
#endif

#if defined(DPO_SIMT_TSAN)
__global__ void race(int* out) { *out = static_cast<int>(threadIdx.x); }

TEST_F(SimtTest, TheThreadSanitizerSeesRaces) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        launch(race, 1, 2, 0, ints(1));
        launch(reverse_block, 1, 64, 64 * sizeof(int), ints(64), false);
        std::exit(0);
      },
      testing::ExitedWithCode(66), "data race");
}
#endif

}  // namespace
}  // namespace dpo::simt
