// Stand-in for the header of CUDA's runtime: what native/cuda uses of it, under the names and with the rules of the original.
// Device memory is host memory that starts as NaN; work given to a stream is done when the stream is waited for, not before.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <utility>

#include "native/simt/grid.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

using dim3 = dpo::simt::Dim3;
using dpo::simt::blockDim;
using dpo::simt::blockIdx;
using dpo::simt::gridDim;
using dpo::simt::threadIdx;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorLaunchFailure = 719
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDefault = 4 };
enum { cudaStreamNonBlocking = 1 };
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };

typedef struct CUstream_st* cudaStream_t;
typedef struct CUmemPoolHandle_st* cudaMemPool_t;

struct cudaDeviceProp {
  char name[256];
  int major, minor;
};

struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);

namespace dpo::simt {
/// Work for a stream that is no call of the runtime.
void enqueue(cudaStream_t stream, std::function<void()> work);
/// `run` is `kernel` with its arguments.
cudaError_t enqueue_launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> run);
}  // namespace dpo::simt

template <class... Expected, class... Actual>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Expected...), Actual&&... arguments) {
  // Copied now, as a launch does.
  return dpo::simt::enqueue_launch(
      *config, reinterpret_cast<const void*>(kernel), [kernel, copies = std::tuple<Expected...>(std::forward<Actual>(arguments)...)] { std::apply(kernel, copies); });
}

inline void __syncthreads() { dpo::simt::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { dpo::simt::warp_barrier(mask); }

namespace dpo::simt {

template <class T>
T from_lane(unsigned mask, T value, int lane, const char* operation) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  const std::uint64_t* lanes = warp_gather(mask, bits, operation);
  if ((mask >> lane & 1u) == 0) fail_kernel(operation, "reads from a lane that is not in the mask");
  std::memcpy(&value, &lanes[lane], sizeof value);
  return value;
}

inline int lane() { return static_cast<int>(threadIdx.x % kWarp); }

unsigned long long atomic_min(unsigned long long* at, unsigned long long value);
unsigned long long atomic_max(unsigned long long* at, unsigned long long value);

}  // namespace dpo::simt

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  return dpo::simt::from_lane(mask, value, dpo::simt::lane() ^ lanes, "__shfl_xor_sync");
}

inline unsigned long long atomicMin(unsigned long long* at, unsigned long long value) { return dpo::simt::atomic_min(at, value); }
inline unsigned long long atomicMax(unsigned long long* at, unsigned long long value) { return dpo::simt::atomic_max(at, value); }

inline unsigned __ballot_sync(unsigned mask, bool vote) {
  const std::uint64_t* votes = dpo::simt::warp_gather(mask, vote ? 1 : 0, "__ballot_sync");
  unsigned lanes = 0;
  for (unsigned lane = 0; lane < dpo::simt::kWarp; ++lane)
    lanes |= (mask >> lane & 1u) != 0 && votes[lane] != 0 ? 1u << lane : 0u;
  return lanes;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline void sincospi(double x, double* sine, double* cosine) {
  const long double angle = 3.14159265358979323846264338327950288L * std::remainder(x, 2.0);
  *sine = static_cast<double>(std::sin(angle));
  *cosine = static_cast<double>(std::cos(angle));
}
inline void sincospif(float x, float* sine, float* cosine) {
  double of_double[2];
  sincospi(static_cast<double>(x), &of_double[0], &of_double[1]);
  *sine = static_cast<float>(of_double[0]);
  *cosine = static_cast<float>(of_double[1]);
}
