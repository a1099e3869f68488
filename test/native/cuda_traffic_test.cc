// That kernels move no more than they have to between memory and cache, and that it is counted right (native/simt/traffic.h).
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <ostream>
#include <stdexcept>

#include "bench/native/cuda_cases.h"
#include "native/simt/traffic.h"

namespace dpo {
namespace {

struct alignas(16) Pack {
  float values[4];
};

/// Reads a part for each block twice, and writes one pack a thread.
__global__ void read_twice(const Pack* from, std::int64_t part, Pack* to) {
  Pack sum{};  // of all that is read, for a compiler leaves out what is not used
  for (int pass = 0; pass < 2; ++pass) {
    for (std::int64_t i = threadIdx.x; i < part; i += blockDim.x) {
      const Pack pack = from[blockIdx.x * part + i];
      for (int k = 0; k < 4; ++k) sum.values[k] += pack.values[k];
    }
    __syncthreads();
  }
  to[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

simt::LaunchTraffic traffic_of_reading_twice(std::int64_t bytes) {
  constexpr unsigned kBlocks = 200, kThreads = 64;  // fewer than the device holds at a time
  const std::int64_t part = bytes / kBlocks / static_cast<std::int64_t>(sizeof(Pack));
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  void *from = nullptr, *to = nullptr;
  cudaMallocAsync(&from, kBlocks * static_cast<std::size_t>(part) * sizeof(Pack), stream);
  cudaMallocAsync(&to, kBlocks * kThreads * sizeof(Pack), stream);
  cudaLaunchConfig_t config{};
  config.gridDim = {kBlocks, 1, 1};
  config.blockDim = {kThreads, 1, 1};
  config.stream = stream;
  simt::begin_traffic();
  cudaLaunchKernelEx(&config, read_twice, static_cast<const Pack*>(from), part, static_cast<Pack*>(to));
  cudaStreamSynchronize(stream);
  const std::vector<simt::LaunchTraffic> launches = simt::end_traffic();
  cudaFreeAsync(from, stream);
  cudaFreeAsync(to, stream);
  cudaStreamDestroy(stream);
  EXPECT_EQ(launches.size(), 1u);
  EXPECT_EQ(launches.at(0).written, static_cast<std::int64_t>(kBlocks * kThreads * sizeof(Pack)));
  return launches.at(0);
}

TEST(CudaTraffic, CountsOnceWhatFitsIntoTheCache) {
  constexpr std::int64_t kBytes = 32'000'000;
  static_assert(kBytes < simt::TrafficModel::cache_share);
  EXPECT_EQ(traffic_of_reading_twice(kBytes).read, kBytes);
}

TEST(CudaTraffic, CountsEveryPassOverMore) {
  constexpr std::int64_t kBytes = 36'000'000 / 6400 * 6400;
  static_assert(kBytes > simt::TrafficModel::cache_share);
  EXPECT_EQ(traffic_of_reading_twice(kBytes).read, 2 * kBytes);
}

struct Bound {
  const char *operation, *what;
  bench::Size size;
  double most;  // times the least
};

void PrintTo(const Bound& bound, std::ostream* to) {
  *to << bound.operation << ", " << bound.what << ", dtype " << bound.size.dtype << " [" << bound.size.rows << ", "
      << bound.size.columns << "]";
}

class CudaTrafficOf : public testing::TestWithParam<Bound> {};

const bench::Case& case_of(const Bound& bound) {
  for (const bench::Case& one : bench::cuda_cases())
    if (one.operation == bound.operation && one.what == bound.what) return one;
  throw std::out_of_range(bound.what);
}

TEST_P(CudaTrafficOf, IsNearTheLeast) {
  const bench::CountedCase counted = count(case_of(GetParam()), GetParam().size);
  ASSERT_EQ(counted.failure, "");
  EXPECT_LE(counted.ratio(), GetParam().most) << "read " << counted.read << " of " << counted.least_read << ", written "
                                              << counted.written << " of " << counted.least_written;
  // Less would mean that accesses are missed.
  EXPECT_GE(counted.read, counted.least_read);
  EXPECT_GE(counted.written, counted.least_written);
}

// More rows than are in work at a time, so that the cache has no more room for each than it has in a large batch.
constexpr bench::Size kSingle{130, 32000, DPO_F32}, kDouble{130, 16000, DPO_F64};
constexpr double kOnce = 1.001, kTwoPasses = 1.05;

INSTANTIATE_TEST_SUITE_P(Operations, CudaTrafficOf,
                         testing::Values(Bound{"token_log_probs", "value", {512, 32000, DPO_F32}, kOnce},
                                         Bound{"token_log_probs_vjp", "gradient", kSingle, kOnce},
                                         Bound{"divergence", "kl, value", kSingle, kOnce},
                                         Bound{"divergence", "kl, value + gradient", kSingle, kOnce},
                                         Bound{"divergence", "jeffreys, value + gradient", kDouble, kOnce},
                                         Bound{"divergence", "renyi(2), value + gradient", kDouble, kOnce},
                                         Bound{"divergence", "js, value + gradient", kSingle, kTwoPasses},
                                         Bound{"divergence", "chi2, value + gradient", kDouble, kTwoPasses},
                                         Bound{"divergence", "alpha(0.3), value + gradient", kDouble, kTwoPasses}));

}  // namespace
}  // namespace dpo
