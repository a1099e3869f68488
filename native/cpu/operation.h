// What every operation of this backend starts from: the host's services, typed access to tensors.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <new>
#include <type_traits>

#include "native/core/backend_abi.h"
#include "native/cpu/storage.h"

namespace dpo::cpu {

/// Set when the backend is opened.
extern const dpo_host* host;

/// Runs body(chunk) for every chunk on the pool. Chunks must be cut by shapes alone, never by the number of threads.
template <class Body>
dpo_status parallel_for(dpo_job* job, std::int64_t chunks, const Body& body) {
  const auto call = [](void* closure, std::int64_t chunk) { (*static_cast<const Body*>(closure))(chunk); };
  return host->parallel_for(job, chunks, call, const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

/// Uninitialised working memory for `count` elements, 64-byte aligned, or null.
template <class T>
T* allocate(dpo_job* job, std::int64_t count) {
  static_assert(std::is_trivially_copyable_v<T>);
  return static_cast<T*>(host->allocate(job, static_cast<std::size_t>(count) * sizeof(T)));
}

/// Ends the call with a status and a message; `index` is the first bad element, or -1.
[[gnu::format(printf, 4, 5)]] inline dpo_status fail(dpo_job* job, dpo_status status, std::int64_t index, const char* format,
                                                     ...) {
  char message[256];
  std::va_list values;
  va_start(values, format);
  std::vsnprintf(message, sizeof message, format, values);
  va_end(values);
  return host->fail(job, status, index, message);
}

inline dpo_status out_of_memory(dpo_job* job) { return fail(job, DPO_ERR_MEMORY, -1, "out of memory"); }

/// Runs the body of an operation that allocates objects of its own; none of their exceptions leaves the backend.
template <class Body>
dpo_status guarded(dpo_job* job, const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return out_of_memory(job);
  }
}

template <class T>
T* data(const dpo_tensor& tensor) {
  return static_cast<T*>(tensor.data);
}

inline bool present(const dpo_tensor& tensor) { return tensor.data != nullptr; }

/// Element i of an f32 or f64 tensor, and the way back: for arrays so small that reading them costs nothing.
inline double get(const dpo_tensor& tensor, std::int64_t i) {
  return tensor.dtype == DPO_F64 ? data<double>(tensor)[i] : static_cast<double>(data<float>(tensor)[i]);
}

inline void set(const dpo_tensor& tensor, std::int64_t i, double value) {
  if (tensor.dtype == DPO_F64) {
    data<double>(tensor)[i] = value;
  } else {
    data<float>(tensor)[i] = static_cast<float>(value);
  }
}

}  // namespace dpo::cpu
