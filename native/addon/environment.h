#pragma once

#include <napi.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "native/core/memory_claims.h"
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

  /// Holds a claim until release() or the end of the environment. Returns its number.
  std::uint32_t keep(std::unique_ptr<MemoryClaim> claim);
  void release(std::uint32_t claim) { claims_.erase(claim); }

 private:
  const Backend* backend_ = nullptr;
  std::string why_no_backend_;
  std::map<std::uint32_t, std::unique_ptr<MemoryClaim>> claims_;
  std::uint32_t last_claim_ = 0;
};

/// Every backend object beside the addon.
const std::vector<Backend>& backends_beside_addon();

}  // namespace dpo
