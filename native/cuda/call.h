// One running call on the device: its stream, its memory, and the first thing that went wrong.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "native/core/backend_abi.h"

namespace dpo::cuda {

/// Set when the backend is opened.
extern const dpo_host* host;

/// The threads of a launch.
struct Grid {
  dim3 blocks;
  unsigned threads;
  std::size_t shared_bytes = 0;
};

/// Of all its elements.
std::size_t bytes_of(const dpo_tensor& tensor);

/// After a failure every function does nothing, and finish() says what failed.
class Call {
 public:
  explicit Call(dpo_job* job);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  /// Device memory until the end of the call, uninitialised.
  template <class T>
  T* allocate(std::int64_t count) {
    return static_cast<T*>(allocate_bytes(static_cast<std::size_t>(count) * sizeof(T)));
  }

  /// What a tensor holds, on the device, where it may be already; null where it is absent.
  template <class T>
  const T* input(const dpo_tensor& tensor) {
    if (!tensor.data || tensor.place == DPO_DEVICE) return static_cast<const T*>(tensor.data);
    return static_cast<const T*>(upload_bytes(tensor.data, bytes_of(tensor)));
  }

  /// Device memory for a result, which finish() writes to the tensor; null where it is absent. The tensor's own memory where that
  /// is on the device and nobody sees it if the call fails.
  template <class T>
  T* output(const dpo_tensor& tensor) {
    return static_cast<T*>(result(tensor));
  }

  template <class... Expected, class... Actual>
  void launch(void (*kernel)(Expected...), const Grid& grid, Actual&&... arguments) {
    if (!goes_on()) return;
    cudaLaunchConfig_t config{};
    config.gridDim = grid.blocks;
    config.blockDim = dim3{grid.threads, 1, 1};
    config.dynamicSmemBytes = grid.shared_bytes;
    config.stream = stream_;
    check(cudaLaunchKernelEx(&config, kernel, std::forward<Actual>(arguments)...), "a launch");
  }

  /// Copies all elements, and ends the call.
  dpo_status copy(const dpo_tensor& from, const dpo_tensor& to);

  /// All bytes to `byte`.
  void fill(void* memory, int byte, std::size_t bytes);

  /// Waits for everything before it, then copies a number from the device. 0 after a failure.
  template <class T>
  T read(const T* from) {
    T value{};
    read_bytes(&value, from, sizeof value);
    return ok() ? value : T{};
  }

  /// As many as `values` has, which stay as they are after a failure.
  template <class T>
  void read(const T* from, std::vector<T>& values) {
    read_bytes(values.data(), from, values.size() * sizeof(T));
  }

  /// The same of several numbers.
  template <class T>
  std::vector<T> read(const T* from, std::int64_t count) {
    std::vector<T> values(static_cast<std::size_t>(count));
    read_bytes(values.data(), from, values.size() * sizeof(T));
    return values;
  }

  /// Numbers of the host's, on the device.
  template <class T>
  const T* upload(const std::vector<T>& values) {
    const auto* bytes = reinterpret_cast<const char*>(values.data());
    // The copy is made when its turn comes; until then they must stay.
    kept_.emplace_back(bytes, bytes + values.size() * sizeof(T));
    return static_cast<const T*>(upload_bytes(kept_.back().data(), kept_.back().size()));
  }

  /// Ends the call with a status and a message.
  [[gnu::format(printf, 3, 4)]] dpo_status fail(dpo_status status, const char* format, ...);
  /// Because of the element `index` of an array.
  [[gnu::format(printf, 4, 5)]] dpo_status fail_at(std::int64_t index, dpo_status status, const char* format, ...);

  cudaStream_t stream() const { return stream_; }
  bool ok() const { return status_ == DPO_OK; }
  dpo_status status() const { return status_; }
  /// Whether there is a reason to give the device more work: ends the call if it was cancelled.
  bool goes_on();

  /// Writes the results: the end of every call that has found nothing wrong with its inputs.
  dpo_status finish();
  /// The same, and then write() writes the results that the host has made.
  template <class Write>
  dpo_status finish(const Write& write) {
    if (finish() == DPO_OK) write();
    return status_;
  }

 private:
  struct Result {
    dpo_tensor tensor;
    void* memory;
  };

  void check(cudaError_t error, const char* what);
  void* allocate_bytes(std::size_t bytes);
  const void* upload_bytes(const void* from, std::size_t bytes);
  void* result(const dpo_tensor& tensor);
  void read_bytes(void* to, const void* from, std::size_t bytes);

  dpo_job* job_;
  cudaStream_t stream_ = nullptr;
  dpo_status status_ = DPO_OK;
  std::vector<void*> memory_;
  std::vector<Result> results_;
  std::vector<std::vector<char>> kept_;
};

/// Runs body(call); none of its exceptions leaves the backend.
template <class Body>
dpo_status run(dpo_job* job, const Body& body) {
  try {
    Call call(job);
    return body(call);
  } catch (const std::bad_alloc&) {
    return host->fail(job, DPO_ERR_MEMORY, -1, "out of memory");
  }
}

}  // namespace dpo::cuda
