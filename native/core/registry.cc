#include "native/core/registry.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <mutex>

#include "native/core/job.h"

namespace dpo {
namespace {

constexpr const char* kPrefix = "dpo_";

bool is_backend_file(const std::filesystem::path& path) {
  return path.extension() == ".so" && path.filename().string().starts_with(kPrefix);
}

Backend open_backend(const std::filesystem::path& path) {
  Backend backend;
  backend.file = path.filename().string();
  void* object = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!object) {
    backend.reason = std::string("cannot be loaded: ") + dlerror();
    return backend;
  }
  const auto open = reinterpret_cast<dpo_backend_open_fn>(dlsym(object, DPO_BACKEND_OPEN));
  const dpo_backend* table = open ? open(&host_services()) : nullptr;
  if (!table || table->abi_version != DPO_ABI_VERSION) {
    backend.reason = "was built for another version of this package; build or install it again";
    return backend;
  }
  std::array<char, 512> reason{};
  backend.table = table;
  backend.score = table->score(reason.data(), reason.size());
  backend.reason = reason.data();
  return backend;
}

std::vector<Backend> find_backends(const std::string& directory) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (is_backend_file(entry.path())) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<Backend> backends;
  for (const auto& file : files) backends.push_back(open_backend(file));
  std::stable_sort(backends.begin(), backends.end(), [](const Backend& a, const Backend& b) { return a.score > b.score; });
  return backends;
}

bool answers_to(const Backend& backend, const std::string& wanted) {
  if (!backend.table) return false;
  const std::string name = backend.table->name;
  return wanted == "auto" || wanted == name || wanted == name + ":" + backend.table->variant;
}

/// "cpu:x86-64-v3 (dpo_cpu_v3.so)", or the file alone where it has not opened.
std::string name_of(const Backend& backend) {
  if (!backend.table) return backend.file;
  const std::string variant = backend.table->variant;
  return backend.table->name + (variant.empty() ? "" : ":" + variant) + " (" + backend.file + ")";
}

std::string describe(const std::vector<Backend>& backends) {
  if (backends.empty()) return "no backend object lies beside the addon";
  std::string text;
  for (const Backend& backend : backends) {
    if (!text.empty()) text += "; ";
    text += name_of(backend) + " " + backend.reason;
  }
  return text;
}

}  // namespace

const std::vector<Backend>& open_backends(const std::string& directory) {
  // Never destroyed: the tables are used until the last thread of the process is gone.
  static const auto* backends = new std::vector<Backend>(find_backends(directory));
  return *backends;
}

const Backend* choose_backend(const std::vector<Backend>& backends, const std::string& wanted, std::string& why) {
  for (const Backend& backend : backends) {
    if (backend.score > 0 && answers_to(backend, wanted)) return &backend;
  }
  for (const Backend& backend : backends) {
    if (wanted != "auto" && answers_to(backend, wanted)) {
      why = "backend \"" + wanted + "\" cannot run here: " + backend.reason;
      return nullptr;
    }
  }
  why = "no backend answers to \"" + wanted + "\"; found: " + describe(backends) +
        "; needed: a backend object dpo_*.so of that name beside the addon";
  return nullptr;
}

}  // namespace dpo
