// A library of CUDA that is opened when it is first needed, its functions, and its handles.
#pragma once

#include <device/library.h>

#include <limits>
#include <string>

#include "native/cuda/call.h"
#include "native/cuda/pool.h"

namespace dpo::cuda {

class Library {
 public:
  /// The first of these names (null at the end) that there is; messages call it `title`.
  Library(const char* title, const char* const* names) : title_(title) {
    std::string why;
    library_ = open_library(names, why);
    if (!library_) why_not_ = why;
  }

  const char* title() const { return title_; }
  /// Whether it is there, with every function that was looked for.
  bool usable() const { return why_not_.empty(); }
  const char* why_not() const { return why_not_.c_str(); }

 protected:
  template <class Function>
  void find(const char* name, Function& function) {
    if (!library_) return;
    function = reinterpret_cast<Function>(find_symbol(library_, name));
    if (!function) why_not_ += std::string(why_not_.empty() ? "" : "; ") + title_ + " has no " + name;
  }

 private:
  const char* title_;
  void* library_;
  std::string why_not_;
};

/// Calls body(handle), which gives the library work for the call's stream and returns a status of the library's. Functions is a
/// Library with the type Handle and create, set_stream and describe. What goes wrong ends the call.
template <class Functions, class Body>
void with_handle(Call& call, const Functions& library, const char* purpose, const Body& body) {
  using Handle = typename Functions::Handle;
  if (!call.goes_on()) return;
  if (!library.usable()) {
    call.fail(DPO_ERR_BACKEND, "%s is needed for %s: %s", library.title(), purpose, library.why_not());
    return;
  }
  Handle handle = nullptr;
  decltype(library.create(&handle)) status{};
  constexpr decltype(status) kSuccess{};
  if (!Pool<Handle>::shared().take(&handle)) status = library.create(&handle);
  if (status == kSuccess) {
    status = library.set_stream(handle, call.stream());
    if (status == kSuccess) status = body(handle);
    Pool<Handle>::shared().give_back(handle);
  }
  if (status != kSuccess) call.fail(DPO_ERR_BACKEND, "%s, %s: %s", library.title(), purpose, library.describe(status));
}

/// An extent as the libraries count.
inline int library_extent(Call& call, std::int64_t extent) {
  if (extent > std::numeric_limits<int>::max())
    call.fail(DPO_ERR_BACKEND, "matrices of more than %d rows or columns are too large for CUDA's libraries",
              std::numeric_limits<int>::max());
  return static_cast<int>(extent);
}

}  // namespace dpo::cuda
