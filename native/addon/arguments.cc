#include "native/addon/arguments.h"

#include "native/addon/device_memory.h"

namespace dpo {
namespace {

/// How a tensor takes part in the call; the first number of its description. Same order as in lib/native/frame.ts.
enum class Role { absent, input, fresh_result, callers_result };
/// Added to the role of a tensor on a device, whose shape the byte offset in its memory follows.
constexpr std::int32_t kOnDevice = 4;

}  // namespace

TypedMemory typed_memory(Napi::Env env, napi_value array) {
  napi_typedarray_type type{};
  std::size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, array, &type, &length, &data, nullptr, nullptr) != napi_ok) return {};
  constexpr std::size_t kElementSize[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
  return {data, length * kElementSize[type]};
}

Arguments::Read Arguments::read() {
  dpo_tensor tensor{};
  const std::int32_t code = integer();
  const Role role = static_cast<Role>(code % kOnDevice);
  if (role == Role::absent) return {tensor, false};
  tensor.place = code >= kOnDevice ? DPO_DEVICE : DPO_HOST;
  tensor.dtype = integer();
  tensor.rank = integer();
  for (std::int32_t axis = 0; axis < tensor.rank; ++axis) tensor.shape[axis] = long_integer();
  const napi_value memory = buffers_.front();
  buffers_ = buffers_.subspan(1);
  if (tensor.place == DPO_DEVICE) {
    locate_on_device(memory, long_integer(), tensor);
  } else {
    locate_on_host(memory, tensor);
  }
  const bool written = role != Role::input;
  memory_.push_back({tensor.data, byte_size(tensor), written});
  held_.push_back(memory);
  writes_to_caller_ |= role == Role::callers_result;
  return {tensor, written};
}

void Arguments::locate_on_host(napi_value array, dpo_tensor& tensor) {
  const TypedMemory memory = typed_memory(env_, array);
  tensor.data = memory.bytes >= byte_size(tensor) ? memory.data : nullptr;
  if (!tensor.data && status_.ok()) status_ = {DPO_ERR_DISPOSED, -1, "a tensor's memory has been detached"};
}

void Arguments::locate_on_device(napi_value external, std::int64_t offset, dpo_tensor& tensor) {
  std::shared_ptr<DeviceMemory> memory = device_memory(env_, external);
  if (!memory || static_cast<std::size_t>(offset) + byte_size(tensor) > memory->bytes()) {
    if (status_.ok()) status_ = {DPO_ERR_DISPOSED, -1, "a tensor's memory on the device has been freed"};
    return;
  }
  if (backend() && backend() != &memory->backend() && status_.ok()) {
    status_ = {DPO_ERR_BACKEND, -1,
               "tensors on " + full_name(*backend()) + " and on " + full_name(memory->backend()) + " in one call"};
  }
  tensor.data = memory->data() + offset;
  device_.push_back(std::move(memory));
}

dpo_tensor Arguments::resident_tensor() {
  const auto [tensor, written] = read();
  if (written) results_.push_back(tensor);
  return tensor;
}

dpo_tensor Arguments::tensor() {
  const auto [tensor, written] = read();
  dpo_tensor on_host = tensor;
  if (tensor.place == DPO_DEVICE && tensor.data) {
    std::vector<char> memory(byte_size(tensor));
    on_host.data = memory.data();
    on_host.place = DPO_HOST;
    staged_.push_back({tensor, on_host, written, std::move(memory)});
  }
  if (written) results_.push_back(on_host);
  return on_host;
}

}  // namespace dpo
