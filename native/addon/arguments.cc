#include "native/addon/arguments.h"

namespace dpo {
namespace {

/// How a tensor takes part in the call; the first number of its description. Same order as in lib/native/frame.ts.
enum class Role { absent, input, fresh_result, callers_result };

}  // namespace

TypedMemory typed_memory(Napi::Env env, napi_value array) {
  napi_typedarray_type type{};
  std::size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, array, &type, &length, &data, nullptr, nullptr) != napi_ok) return {};
  constexpr std::size_t kElementSize[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
  return {data, length * kElementSize[type]};
}

dpo_tensor Arguments::tensor() {
  dpo_tensor tensor{};
  const Role role = static_cast<Role>(integer());
  if (role == Role::absent) return tensor;
  tensor.dtype = integer();
  tensor.rank = integer();
  for (std::int32_t axis = 0; axis < tensor.rank; ++axis) tensor.shape[axis] = long_integer();
  const napi_value array = buffers_.front();
  buffers_ = buffers_.subspan(1);
  const TypedMemory memory = typed_memory(env_, array);
  tensor.data = memory.bytes >= byte_size(tensor) ? memory.data : nullptr;
  if (!tensor.data && status_.ok()) status_ = {DPO_ERR_DISPOSED, -1, "a tensor's memory has been detached"};
  const bool written = role != Role::input;
  memory_.push_back({tensor.data, byte_size(tensor), written});
  held_.push_back(array);
  if (written) results_.push_back(tensor);
  writes_to_caller_ |= role == Role::callers_result;
  return tensor;
}

}  // namespace dpo
