#include "native/cuda/call.h"

#include <cstdarg>
#include <cstdio>
#include <mutex>

#include "native/core/dtype.h"
#include "native/cuda/pool.h"

namespace dpo::cuda {

const dpo_host* host = nullptr;

namespace {

cudaError_t take_stream(cudaStream_t* stream) {
  if (Pool<cudaStream_t>::shared().take(stream)) return cudaSuccess;
  return cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking);
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

dpo_status fail(dpo_job* job, dpo_status status, std::int64_t index, const char* format, std::va_list values) {
  char message[512];
  std::vsnprintf(message, sizeof message, format, values);
  return host->fail(job, status, index, message);
}

}  // namespace

std::size_t bytes_of(const dpo_tensor& tensor) {
  std::size_t bytes = dtype_size(tensor.dtype);
  for (std::int32_t axis = 0; axis < tensor.rank; ++axis) bytes *= static_cast<std::size_t>(tensor.shape[axis]);
  return bytes;
}

Call::Call(dpo_job* job) : job_(job) {
  keep_memory();
  check(take_stream(&stream_), "a stream");
}

Call::~Call() {
  if (!stream_) return;
  for (void* memory : memory_) cudaFreeAsync(memory, stream_);
  // Inputs are the caller's again when the call returns.
  cudaStreamSynchronize(stream_);
  Pool<cudaStream_t>::shared().give_back(stream_);
}

dpo_status Call::fail(dpo_status status, const char* format, ...) {
  std::va_list values;
  va_start(values, format);
  if (ok()) status_ = cuda::fail(job_, status, -1, format, values);
  va_end(values);
  return status_;
}

dpo_status Call::fail_at(std::int64_t index, dpo_status status, const char* format, ...) {
  std::va_list values;
  va_start(values, format);
  if (ok()) status_ = cuda::fail(job_, status, index, format, values);
  va_end(values);
  return status_;
}

bool Call::goes_on() {
  if (ok()) status_ = host->check_cancelled(job_);
  return ok();
}

void Call::check(cudaError_t error, const char* what) {
  if (error == cudaSuccess || !ok()) return;
  cudaGetLastError();  // errors that are not lasting must not turn up in another call
  fail(error == cudaErrorMemoryAllocation ? DPO_ERR_MEMORY : DPO_ERR_BACKEND, "CUDA, %s: %s", what, cudaGetErrorString(error));
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
  if (tensor.place == DPO_DEVICE && host->discards_results(job_)) return tensor.data;
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

dpo_status Call::copy(const dpo_tensor& from, const dpo_tensor& to) {
  if (ok()) status_ = host->begin_writes(job_);
  if (ok()) check(cudaMemcpyAsync(to.data, from.data, bytes_of(from), cudaMemcpyDefault, stream_), "a copy");
  if (ok()) check(cudaStreamSynchronize(stream_), "a copy");
  return status_;
}

dpo_status Call::finish() {
  if (ok()) check(cudaStreamSynchronize(stream_), "a kernel");
  if (ok()) status_ = host->begin_writes(job_);
  for (const Result& result : results_) {
    if (ok())
      check(cudaMemcpyAsync(result.tensor.data, result.memory, bytes_of(result.tensor), cudaMemcpyDefault, stream_),
            "a result");
  }
  if (ok()) check(cudaStreamSynchronize(stream_), "a download");
  return status_;
}

}  // namespace dpo::cuda
