// Libraries that are looked for when they are first needed, so that the backend loads without them.
#pragma once

#include <dlfcn.h>

#include <string>

namespace dpo::cuda {

/// Opens the first of these (null at the end) that there is; or null, and why not.
inline void* open_library(const char* const* names, std::string& why) {
  for (; *names; ++names) {
    if (void* library = dlopen(*names, RTLD_NOW | RTLD_LOCAL)) return library;
    const char* error = dlerror();
    why += why.empty() ? "" : "; ";
    why += error ? error : *names;
  }
  return nullptr;
}

inline void* find_symbol(void* library, const char* name) { return dlsym(library, name); }

}  // namespace dpo::cuda
