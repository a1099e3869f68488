// The stand-in for CUDA's runtime: memory, streams, launches.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "native/simt/sanitizers.h"
#include "native/simt/traffic.h"

struct CUstream_st {
  std::vector<std::function<cudaError_t()>> work;
};

namespace {

/// Work of the default stream is done at once: nobody would wait for it.
cudaError_t enqueue_step(cudaStream_t stream, std::function<cudaError_t()> step) {
  if (!stream) return step();
  stream->work.push_back(std::move(step));
  return cudaSuccess;
}

thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string failure;

cudaError_t raise(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

/// Device memory by address, with its size.
class Allocations {
 public:
  void* take(std::size_t bytes) {
    // Of just that size, so that a sanitizer sees what goes beyond; all bits set are NaN.
    void* memory = std::malloc(bytes);
    if (!memory) return nullptr;
    std::memset(memory, 0xff, bytes);
    const std::lock_guard lock(mutex_);
    sizes_[memory] = bytes;
    dpo::simt::memory_taken(memory, bytes);
    return memory;
  }
  bool give_back(void* memory) {
    const std::lock_guard lock(mutex_);
    if (sizes_.erase(memory) == 0) return false;
    dpo::simt::memory_given_back(memory);
    std::free(memory);
    return true;
  }
  bool holds(const void* memory, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    auto after = sizes_.upper_bound(const_cast<void*>(memory));
    if (after == sizes_.begin()) return false;
    const auto& [begin, size] = *--after;
    const auto offset = static_cast<std::size_t>(static_cast<const char*>(memory) - static_cast<char*>(begin));
    return offset <= size && bytes <= size - offset;
  }
  /// Whether a copy may be told to find out by itself where this is.
  bool holds_all_or_none(const void* memory, std::size_t bytes) { return !holds(memory, 1) || holds(memory, bytes); }

 private:
  std::mutex mutex_;
  std::map<void*, std::size_t> sizes_;
};

Allocations& allocations() {
  static auto* all = new Allocations;
  return *all;
}

}  // namespace

namespace dpo::simt {

cudaError_t enqueue_launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> run) {
  return enqueue_step(config.stream, [config, kernel, run = std::move(run)] {
    launch_begins(kernel, config.gridDim, config.blockDim, config.dynamicSmemBytes);
    failure = run_grid(config.gridDim, config.blockDim, config.dynamicSmemBytes, run);
    return failure.empty() ? cudaSuccess : cudaErrorLaunchFailure;
  });
}

void enqueue(cudaStream_t stream, std::function<void()> work) {
  enqueue_step(stream, [work = std::move(work)] {
    work();
    return cudaSuccess;
  });
}

unsigned long long atomic_max(unsigned long long* at, unsigned long long value) {
  const unsigned long long before = *at;
  if (value > before) *at = value;
  return before;
}

unsigned long long atomic_min(unsigned long long* at, unsigned long long value) {
  const unsigned long long before = *at;
  if (value < before) *at = value;
  return before;
}

}  // namespace dpo::simt

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorLaunchFailure:
      return failure.c_str();
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    default:
      return "invalid argument";
  }
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return raise(cudaErrorInvalidValue);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "host execution");
  properties->major = 9;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const cudaError_t error = cudaStreamSynchronize(stream);
  delete stream;
  return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  std::vector<std::function<cudaError_t()>> work;
  if (stream) std::swap(work, stream->work);
  cudaError_t first = cudaSuccess;
  for (const auto& step : work) {
    const cudaError_t error = step();
    if (first == cudaSuccess) first = error;
  }
  return raise(first);
}

cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t) {
  void* taken = allocations().take(bytes);
  if (!taken) return raise(cudaErrorMemoryAllocation);
  *memory = taken;
  return cudaSuccess;
}

cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  return enqueue_step(stream, [memory] { return allocations().give_back(memory) ? cudaSuccess : cudaErrorInvalidValue; });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return enqueue_step(stream, [=] {
    if (kind == cudaMemcpyDeviceToHost && !allocations().holds(from, bytes)) return cudaErrorInvalidValue;
    if (kind == cudaMemcpyHostToDevice && !allocations().holds(to, bytes)) return cudaErrorInvalidValue;
    if (!allocations().holds_all_or_none(from, bytes) || !allocations().holds_all_or_none(to, bytes)) return cudaErrorInvalidValue;
    std::memcpy(to, from, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  return enqueue_step(stream, [=] {
    if (!allocations().holds(memory, bytes)) return cudaErrorInvalidValue;
    std::memset(memory, value, bytes);
    dpo::simt::memory_filled(memory, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  *pool = nullptr;
  return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
