#include "native/addon/device_memory.h"

#include <vector>

#include "native/addon/dlpack.h"
#include "native/addon/environment.h"
#include "native/core/dtype.h"

namespace dpo {
namespace {

/// Tells our Externals from those of others.
constexpr napi_type_tag kHandleTag{0x6b65726e656c7364, 0x706f2d6d656d6f72};

void report(Napi::Env env, const DeviceMemory& memory, int sign) {
  if (!memory.borrowed()) Napi::MemoryManagement::AdjustExternalMemory(env, sign * static_cast<std::int64_t>(memory.bytes()));
}

void let_go(Napi::Env env, DeviceHandle& handle) {
  if (handle.memory) report(env, *handle.memory, -1);
  handle.memory.reset();
}

/// Nothing, and the memory is let go of, in a worker that is being terminated.
Napi::Value external_of(Napi::Env env, std::unique_ptr<DeviceHandle> handle) {
  report(env, *handle->memory, 1);
  const auto finalize = [](Napi::Env finalized_in, DeviceHandle* gone) {
    const std::unique_ptr<DeviceHandle> owned(gone);
    let_go(finalized_in, *owned);
  };
  const auto external = Napi::External<DeviceHandle>::New(env, handle.get(), finalize);
  if (external.IsEmpty()) {
    let_go(env, *handle);
    return external;
  }
  handle.release();  // the finalizer takes it back
  napi_type_tag_object(env, external, &kHandleTag);
  return external;
}

/// {memory, backend}.
Napi::Object describe(Napi::Env env, std::unique_ptr<DeviceHandle> handle) {
  Napi::Object described = Napi::Object::New(env);
  described.Set("backend", full_name(handle->memory->backend()));
  described.Set("memory", external_of(env, std::move(handle)));
  return described;
}

DeviceHandle* handle_of(Napi::Env env, napi_value value) {
  napi_valuetype type{};
  bool ours = false;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_external) return nullptr;
  if (napi_check_object_type_tag(env, value, &kHandleTag, &ours) != napi_ok || !ours) return nullptr;
  return Napi::External<DeviceHandle>(env, value).Data();
}

const Backend* backend_named(const Napi::Value& name, std::string& why) {
  return choose_backend(backends_beside_addon(), name.As<Napi::String>(), why);
}

dlpack::DataType dlpack_type(std::int32_t dtype) {
  const auto bits = static_cast<std::uint8_t>(8 * dtype_size(dtype));
  const auto code = dtype == DPO_I32 ? dlpack::kInt : dtype == DPO_BF16 ? dlpack::kBfloat : dlpack::kFloat;
  return {code, bits, 1};
}

/// −1 for what there is no dtype for.
std::int32_t dtype_of(dlpack::DataType type) {
  for (const std::int32_t dtype : {DPO_F32, DPO_F64, DPO_F16, DPO_BF16, DPO_I32}) {
    const dlpack::DataType known = dlpack_type(dtype);
    if (type.code == known.code && type.bits == known.bits && type.lanes == known.lanes) return dtype;
  }
  return -1;
}

bool is_dense(const dlpack::Tensor& tensor) {
  std::int64_t stride = 1;
  for (std::int32_t axis = tensor.ndim - 1; tensor.strides && axis >= 0; --axis) {
    if (tensor.shape[axis] != 1 && tensor.strides[axis] != stride) return false;
    stride *= tensor.shape[axis];
  }
  return true;
}

/// What keeps an exported tensor alive.
struct Exported {
  dlpack::ManagedTensor managed{};
  std::vector<std::int64_t> shape;
  std::shared_ptr<DeviceMemory> memory;
};

std::string why_not_importable(const dlpack::Tensor& tensor) {
  if (tensor.device.type != dlpack::kCuda && tensor.device.type != dlpack::kCudaManaged)
    return "its memory is on a device of DLPack's type " + std::to_string(tensor.device.type) + ", not CUDA";
  if (tensor.device.id != 0) return "it is on CUDA device " + std::to_string(tensor.device.id) + "; device 0 is used here";
  if (tensor.ndim < 1 || tensor.ndim > DPO_MAX_RANK) return "its rank is " + std::to_string(tensor.ndim) + ", not 1 to 4";
  if (dtype_of(tensor.dtype) < 0) return "its dtype is none of f32, f64, f16, bf16, i32";
  if (!is_dense(tensor)) return "its elements are not dense rows; make it contiguous";
  return {};
}

}  // namespace

std::shared_ptr<DeviceMemory> device_memory(Napi::Env env, napi_value value) {
  const DeviceHandle* handle = handle_of(env, value);
  return handle ? handle->memory : nullptr;
}

Napi::Value allocate_memory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::string why;
  const Backend* backend = backend_named(info[0], why);
  if (!backend) return Napi::String::New(env, why);
  if (!backend->table->device_allocate) return env.Undefined();
  const auto bytes = static_cast<std::size_t>(info[1].As<Napi::Number>().DoubleValue());
  auto memory = DeviceMemory::allocate(*backend, bytes, why);
  if (!memory) return Napi::String::New(env, why);
  auto handle = std::make_unique<DeviceHandle>();
  handle->memory = std::move(memory);
  return describe(env, std::move(handle));
}

void free_memory(const Napi::CallbackInfo& info) {
  if (DeviceHandle* handle = handle_of(info.Env(), info[0])) let_go(info.Env(), *handle);
}

Napi::Value export_dlpack(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto exported = std::make_unique<Exported>();
  exported->memory = device_memory(env, info[0]);
  if (!exported->memory) return env.Undefined();
  for (std::size_t i = 3; i < info.Length(); ++i) exported->shape.push_back(info[i].As<Napi::Number>().Int64Value());
  dlpack::ManagedTensor& managed = exported->managed;
  managed.tensor.data = exported->memory->data();
  managed.tensor.device = {dlpack::kCuda, 0};
  managed.tensor.ndim = static_cast<std::int32_t>(exported->shape.size());
  managed.tensor.dtype = dlpack_type(info[2].As<Napi::Number>().Int32Value());
  managed.tensor.shape = exported->shape.data();
  managed.tensor.byte_offset = static_cast<std::uint64_t>(info[1].As<Napi::Number>().DoubleValue());
  managed.manager_ctx = exported.get();
  managed.deleter = [](dlpack::ManagedTensor* of) { delete static_cast<Exported*>(of->manager_ctx); };
  const auto external =
      Napi::External<dlpack::ManagedTensor>::New(env, &managed, [](Napi::Env, dlpack::ManagedTensor* of) { of->deleter(of); });
  if (!external.IsEmpty()) exported.release();  // the deleter takes it back
  return external;
}

Napi::Value import_dlpack(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsExternal() || handle_of(env, info[0])) return Napi::String::New(env, "it is no External of a DLManagedTensor");
  const dlpack::Tensor& tensor = info[0].As<Napi::External<dlpack::ManagedTensor>>().Data()->tensor;
  std::string why;
  const Backend* backend = backend_named(info[1], why);
  if (!backend) return Napi::String::New(env, why);
  if (!backend->table->device_allocate) return Napi::String::New(env, full_name(*backend) + " has no memory of its own");
  why = why_not_importable(tensor);
  if (!why.empty()) return Napi::String::New(env, why);

  const std::int32_t dtype = dtype_of(tensor.dtype);
  std::size_t bytes = dtype_size(dtype);
  Napi::Array shape = Napi::Array::New(env);
  for (std::int32_t axis = 0; axis < tensor.ndim; ++axis) {
    shape.Set(static_cast<std::uint32_t>(axis), static_cast<double>(tensor.shape[axis]));
    bytes *= static_cast<std::size_t>(tensor.shape[axis]);
  }
  auto handle = std::make_unique<DeviceHandle>();
  handle->memory = DeviceMemory::borrow(*backend, tensor.data, tensor.byte_offset + bytes);
  handle->owner = Napi::Reference<Napi::Value>::New(info[0], 1);
  Napi::Object imported = describe(env, std::move(handle));
  imported.Set("offset", static_cast<double>(tensor.byte_offset));
  imported.Set("dtype", dtype);
  imported.Set("shape", shape);
  return imported;
}

}  // namespace dpo
