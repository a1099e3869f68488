#include "native/cuda/call.h"

#include <cstdarg>
#include <cstdio>
#include <mutex>

#include "native/core/dtype.h"

namespace dpo::cuda {
namespace {

/// Streams that no call uses at present.
class StreamPool {
 public:
  cudaError_t take(cudaStream_t* stream) {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking);
    *stream = free_.back();
    free_.pop_back();
    return cudaSuccess;
  }
  void give_back(cudaStream_t stream) {
    const std::lock_guard lock(mutex_);
    free_.push_back(stream);
  }

 private:
  std::mutex mutex_;
  std::vector<cudaStream_t> free_;
};

StreamPool& streams() {
  // Never destroyed: the driver may be gone before static objects are.
  static auto* pool = new StreamPool;
  return *pool;
}

/// Memory that calls give back stays with the process, for the next ones.
void keep_memory() {
  static std::once_flag once;
  std::call_once(once, [] {
    cudaMemPool_t pool{};
    std::uint64_t everything = ~std::uint64_t{0};
    if (cudaDeviceGetDefaultMemPool(&pool, 0) == cudaSuccess)
      cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &everything);
  });
}

}  // namespace

const dpo_host* host = nullptr;

std::size_t bytes_of(const dpo_tensor& tensor) {
  std::size_t bytes = dtype_size(tensor.dtype);
  for (std::int32_t axis = 0; axis < tensor.rank; ++axis) bytes *= static_cast<std::size_t>(tensor.shape[axis]);
  return bytes;
}

dpo_status fail(dpo_job* job, dpo_status status, std::int64_t index, const char* format, ...) {
  char message[512];
  std::va_list values;
  va_start(values, format);
  std::vsnprintf(message, sizeof message, format, values);
  va_end(values);
  return host->fail(job, status, index, message);
}

Call::Call(dpo_job* job) : job_(job) {
  keep_memory();
  check(streams().take(&stream_), "a stream");
}

Call::~Call() {
  if (!stream_) return;
  for (void* memory : memory_) cudaFreeAsync(memory, stream_);
  // Inputs are the caller's again when the call returns.
  cudaStreamSynchronize(stream_);
  streams().give_back(stream_);
}

void Call::check(cudaError_t error, const char* what) {
  if (error == cudaSuccess || !ok()) return;
  cudaGetLastError();  // errors that are not lasting must not turn up in another call
  const dpo_status kind = error == cudaErrorMemoryAllocation ? DPO_ERR_MEMORY : DPO_ERR_BACKEND;
  status_ = cuda::fail(job_, kind, -1, "CUDA, %s: %s", what, cudaGetErrorString(error));
}

void* Call::allocate_bytes(std::size_t bytes) {
  if (!ok()) return nullptr;
  void* memory = nullptr;
  check(cudaMallocAsync(&memory, bytes > 0 ? bytes : 1, stream_), "memory");
  if (ok()) memory_.push_back(memory);
  return ok() ? memory : nullptr;
}

const void* Call::upload_bytes(const void* from, std::size_t bytes) {
  void* memory = allocate_bytes(bytes);
  if (memory) check(cudaMemcpyAsync(memory, from, bytes, cudaMemcpyHostToDevice, stream_), "an upload");
  return memory;
}

void* Call::result(const dpo_tensor& tensor) {
  if (!tensor.data) return nullptr;
  void* memory = allocate_bytes(bytes_of(tensor));
  if (memory) results_.push_back({tensor, memory});
  return memory;
}

void Call::fill(void* memory, int byte, std::size_t bytes) {
  if (ok()) check(cudaMemsetAsync(memory, byte, bytes, stream_), "a fill");
}

void Call::read_bytes(void* to, const void* from, std::size_t bytes) {
  if (ok()) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "a download");
  if (ok()) check(cudaStreamSynchronize(stream_), "a kernel");
}

dpo_status Call::finish() {
  if (ok()) check(cudaStreamSynchronize(stream_), "a kernel");
  if (ok()) status_ = host->begin_writes(job_);
  for (const Result& result : results_) {
    if (ok())
      check(cudaMemcpyAsync(result.tensor.data, result.memory, bytes_of(result.tensor), cudaMemcpyDeviceToHost, stream_),
            "a download");
  }
  if (ok()) check(cudaStreamSynchronize(stream_), "a download");
  return status_;
}

}  // namespace dpo::cuda
