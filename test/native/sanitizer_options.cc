// Linked into the programs that run under a sanitizer: an allocation that is too large returns null there, too.
#define DPO_OPTIONS extern "C" __attribute__((visibility("default"))) const char*

DPO_OPTIONS __asan_default_options() { return "allocator_may_return_null=1"; }
DPO_OPTIONS __tsan_default_options() { return "allocator_may_return_null=1"; }
