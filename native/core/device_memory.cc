#include "native/core/device_memory.h"

namespace dpo {

std::shared_ptr<DeviceMemory> DeviceMemory::allocate(const Backend& backend, std::size_t bytes, std::string& why) {
  char reason[256] = "";
  void* data = backend.table->device_allocate(bytes, reason, sizeof reason);
  if (!data) {
    why = reason;
    return nullptr;
  }
  return std::shared_ptr<DeviceMemory>(new DeviceMemory(backend, data, bytes, false));
}

std::shared_ptr<DeviceMemory> DeviceMemory::borrow(const Backend& backend, void* data, std::size_t bytes) {
  return std::shared_ptr<DeviceMemory>(new DeviceMemory(backend, data, bytes, true));
}

DeviceMemory::~DeviceMemory() {
  if (!borrowed_) backend_.table->device_free(data_);
}

std::string full_name(const Backend& backend) {
  const std::string name = backend.table->name, variant = backend.table->variant;
  return variant.empty() ? name : name + ":" + variant;
}

}  // namespace dpo
