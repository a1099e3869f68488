#include "native/addon/environment.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

namespace dpo {
namespace {

std::string addon_directory() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&addon_directory), &info) == 0 || !info.dli_fname) return ".";
  return std::filesystem::path(info.dli_fname).parent_path().string();
}

}  // namespace

const std::vector<Backend>& backends_beside_addon() { return open_backends(addon_directory()); }

Environment::Environment() {
  const char* wanted = std::getenv("DPO_KERNELS_BACKEND");
  backend_ = choose_backend(backends_beside_addon(), wanted && *wanted ? wanted : "auto", why_no_backend_);
}

std::uint32_t Environment::keep(std::unique_ptr<MemoryClaim> claim) {
  claims_.emplace(++last_claim_, std::move(claim));
  return last_claim_;
}

std::string Environment::use_backend(const std::string& wanted) {
  std::string why;
  const Backend* chosen = choose_backend(backends_beside_addon(), wanted, why);
  if (chosen) backend_ = chosen;
  return why;
}

}  // namespace dpo
