#include "native/cuda/device_memory.h"

#include <cuda_runtime.h>

#include <cstdio>

namespace dpo::cuda {

// From the pool that calls take theirs from, in the order of the default stream: nothing waits for the whole device, as cudaFree
// would.

void* allocate_device_memory(std::size_t bytes, char* reason, std::size_t capacity) {
  void* memory = nullptr;
  cudaError_t error = cudaMallocAsync(&memory, bytes > 0 ? bytes : 1, nullptr);
  // Calls use it from streams of their own.
  if (error == cudaSuccess) error = cudaStreamSynchronize(nullptr);
  if (error == cudaSuccess) return memory;
  cudaGetLastError();  // errors that are not lasting must not turn up in another call
  std::snprintf(reason, capacity, "no memory of the device for %zu bytes: %s", bytes, cudaGetErrorString(error));
  return nullptr;
}

void free_device_memory(void* memory) { cudaFreeAsync(memory, nullptr); }

}  // namespace dpo::cuda
