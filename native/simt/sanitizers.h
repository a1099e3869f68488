// What sanitizers have to be told about a thread that changes stacks, and about the order that barriers make. Without a sanitizer
// all of it is nothing.
#pragma once

#include <cstddef>

#if defined(DPO_SIMT_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(DPO_SIMT_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace dpo::simt {

#if defined(DPO_SIMT_ASAN)
inline void begin_switch(void** fake_stack, const void* bottom, std::size_t size) {
  __sanitizer_start_switch_fiber(fake_stack, bottom, size);
}
inline void end_switch(void* fake_stack, const void** bottom, std::size_t* size) {
  __sanitizer_finish_switch_fiber(fake_stack, bottom, size);
}
#else
inline void begin_switch(void**, const void*, std::size_t) {}
inline void end_switch(void*, const void**, std::size_t*) {}
#endif

#if defined(DPO_SIMT_TSAN)
inline void* create_thread() { return __tsan_create_fiber(0); }
inline void destroy_thread(void* thread) { __tsan_destroy_fiber(thread); }
inline void* current_thread() { return __tsan_get_current_fiber(); }
inline void switch_thread(void* thread) { __tsan_switch_to_fiber(thread, __tsan_switch_to_fiber_no_sync); }
inline void release(void* at) { __tsan_release(at); }
inline void acquire(void* at) { __tsan_acquire(at); }
#else
inline void* create_thread() { return nullptr; }
inline void destroy_thread(void*) {}
inline void* current_thread() { return nullptr; }
inline void switch_thread(void*) {}
inline void release(void*) {}
inline void acquire(void*) {}
#endif

}  // namespace dpo::simt
