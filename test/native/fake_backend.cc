// A backend that computes nothing, for the tests of the registry; CMakeLists.txt builds it in several ways.
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "native/core/backend_abi.h"

#ifndef FAKE_ABI
#define FAKE_ABI DPO_ABI_VERSION
#endif

#if defined(FAKE_NO_ENTRY)

extern "C" DPO_EXPORT int dpo_not_a_backend() { return 0; }

#elif defined(FAKE_REFUSES)

extern "C" DPO_EXPORT const dpo_backend* dpo_backend_open(const dpo_host*) { return nullptr; }

#else

namespace {

std::int32_t score(char* reason, std::size_t capacity) {
  std::snprintf(reason, capacity, "was built to score %d", FAKE_SCORE);
  return FAKE_SCORE;
}

constexpr dpo_backend kBackend = [] {
  dpo_backend backend{};  // no operation is supported
  backend.abi_version = FAKE_ABI;
  backend.name = FAKE_NAME;
  backend.variant = FAKE_VARIANT;
  backend.score = score;
  return backend;
}();

}  // namespace

extern "C" DPO_EXPORT const dpo_backend* dpo_backend_open(const dpo_host* host) {
  return host->abi_version == DPO_ABI_VERSION ? &kBackend : nullptr;
}

#endif
