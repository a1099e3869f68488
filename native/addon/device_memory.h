#pragma once

#include <napi.h>

#include <memory>

#include "native/core/device_memory.h"

namespace dpo {

/// What an External of allocate() or import_dlpack() points to: the memory until free(), and what keeps borrowed memory alive.
struct DeviceHandle {
  std::shared_ptr<DeviceMemory> memory;
  Napi::Reference<Napi::Value> owner;
};

/// The memory behind an External of ours; null for any other value, or when it has been freed.
std::shared_ptr<DeviceMemory> device_memory(Napi::Env env, napi_value value);

/// allocate(backend, bytes): {memory, backend}, an External and the full name; undefined where the backend works in the host's memory; or a string saying why not.
Napi::Value allocate_memory(const Napi::CallbackInfo& info);

/// free(external): lets go of it; a running call keeps it until it ends.
void free_memory(const Napi::CallbackInfo& info);

/// exportDlpack(external, offset, dtype, ...shape): an External whose pointer is a DLManagedTensor* that shares the memory.
Napi::Value export_dlpack(const Napi::CallbackInfo& info);

/// importDlpack(external, backend): {memory, backend, offset, dtype, shape}, or a string saying why not.
Napi::Value import_dlpack(const Napi::CallbackInfo& info);

}  // namespace dpo
