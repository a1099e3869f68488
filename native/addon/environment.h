#pragma once

#include <napi.h>

#include <string>

#include "native/core/registry.h"

namespace dpo {

/// What one JavaScript environment (main thread or worker) has of its own.
class Environment {
 public:
  /// Starts on the backend that DPO_KERNELS_BACKEND names, else on the best.
  Environment();
  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  const Backend* backend() const { return backend_; }
  const std::string& why_no_backend() const { return why_no_backend_; }

  /// Keeps the present backend, and returns why, when `wanted` cannot be had.
  std::string use_backend(const std::string& wanted);

 private:
  const Backend* backend_ = nullptr;
  std::string why_no_backend_;
};

/// Every backend object beside the addon.
const std::vector<Backend>& backends_beside_addon();

}  // namespace dpo
