#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "native/core/registry.h"

namespace dpo {

/// Memory of a backend's device; freed when its last owner goes, unless it is somebody else's.
class DeviceMemory {
 public:
  /// Null, with `why`, when there is none.
  static std::shared_ptr<DeviceMemory> allocate(const Backend& backend, std::size_t bytes, std::string& why);
  /// Somebody else's, who keeps it as long as this is there.
  static std::shared_ptr<DeviceMemory> borrow(const Backend& backend, void* data, std::size_t bytes);

  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  const Backend& backend() const { return backend_; }
  char* data() const { return static_cast<char*>(data_); }
  std::size_t bytes() const { return bytes_; }
  bool borrowed() const { return borrowed_; }

 private:
  DeviceMemory(const Backend& backend, void* data, std::size_t bytes, bool borrowed)
      : backend_(backend), data_(data), bytes_(bytes), borrowed_(borrowed) {}

  const Backend& backend_;  // the registry's, which never goes
  void* data_;
  std::size_t bytes_;
  bool borrowed_;
};

/// What useBackend calls it: "cuda", or "cpu:x86-64-v3".
std::string full_name(const Backend& backend);

}  // namespace dpo
