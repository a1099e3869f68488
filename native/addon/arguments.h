#pragma once

#include <napi.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "native/core/checks.h"
#include "native/core/device_memory.h"
#include "native/core/job.h"
#include "native/core/memory_claims.h"

namespace dpo {

/// One checked call of one operation, ready to run on a backend.
struct Operation {
  Status status;  // of the checks of shapes, dtypes and options
  std::function<Status()> check_contents;
  std::function<dpo_status(const dpo_backend&, dpo_job*)> run;
};

/// Where a typed array's elements are, whatever kind of buffer is behind it; {null, 0} for anything else.
struct TypedMemory {
  void* data = nullptr;
  std::size_t bytes = 0;
};
TypedMemory typed_memory(Napi::Env env, napi_value array);

/// A tensor of the device that the call works on in the host's memory: what is read of it comes before, what is written goes back
/// after.
struct StagedTensor {
  dpo_tensor on_device;
  dpo_tensor on_host;
  bool written;
  std::vector<char> memory;
};

/// Reads the arguments of a call in the order in which lib/native/frame.ts wrote them: numbers and the description of each
/// tensor in the frame, the memory of the tensors as typed arrays.
class Arguments {
 public:
  Arguments(Napi::Env env, const double* frame, std::span<const napi_value> buffers)
      : env_(env), frame_(frame), buffers_(buffers) {}

  /// In the host's memory, wherever it is.
  dpo_tensor tensor();
  /// Where it is: of what only the backend's kernels look into.
  dpo_tensor resident_tensor();
  double number() { return *frame_++; }
  std::int32_t integer() { return static_cast<std::int32_t>(*frame_++); }
  std::int64_t long_integer() { return static_cast<std::int64_t>(*frame_++); }

  const Status& status() const { return status_; }
  std::span<const MemoryRange> memory() const { return memory_; }
  std::span<const napi_value> held() const { return held_; }
  const std::vector<dpo_tensor>& results() const { return results_; }
  bool writes_to_caller() const { return writes_to_caller_; }
  /// Whose device the tensors on a device are on; null without any.
  const Backend* backend() const { return device_.empty() ? nullptr : &device_.front()->backend(); }
  std::vector<std::shared_ptr<DeviceMemory>> take_device_memory() { return std::move(device_); }
  std::vector<StagedTensor> take_staged() { return std::move(staged_); }

 private:
  struct Read {
    dpo_tensor tensor;
    bool written;
  };

  Read read();
  void locate_on_host(napi_value array, dpo_tensor& tensor);
  void locate_on_device(napi_value external, std::int64_t offset, dpo_tensor& tensor);

  Napi::Env env_;
  const double* frame_;
  std::span<const napi_value> buffers_;
  Status status_;
  std::vector<MemoryRange> memory_;
  std::vector<napi_value> held_;
  std::vector<dpo_tensor> results_;
  std::vector<std::shared_ptr<DeviceMemory>> device_;
  std::vector<StagedTensor> staged_;
  bool writes_to_caller_ = false;
};

/// Checks `args` and binds them to the backend's function.
template <class Args>
Operation operation(const Args& args, dpo_status (*dpo_backend::*function)(dpo_job*, const Args*)) {
  return {check(args), [args] { return check_contents(args); },
          [args, function](const dpo_backend& backend, dpo_job* job) {
            if (const auto run = backend.*function) return run(job, &args);
            return host_services().fail(job, DPO_ERR_BACKEND, -1, "the backend does not support this operation");
          }};
}

/// Reads one operation's arguments; a file per operation.
using ReadOperation = Operation (*)(Arguments& in);

}  // namespace dpo
