// One CUDA thread's own stack, and the switch between stacks.
#pragma once

#include <cstddef>

namespace dpo::simt {

/// A stack that a function runs on until it switches away. Reused for one function after another.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Prepares entry(argument) to run at the next resume(). It must never return, but leave() for the last time.
  void start(void (*entry)(void*), void* argument);
  /// Goes on where the fiber last left, on the caller's thread; returns when it leaves again.
  void resume();
  /// Back to the resume() that runs this fiber. To be called on its own stack.
  void leave();

 private:
  void* stack_;        // lowest address, above a page that may not be touched
  std::size_t shift_;  // bytes at the other end that stay unused
  void* pointer_;      // stack pointer where the fiber left
  void* caller_;       // the same of who resumed it
  void* sanitizer_;    // what sanitizers know this fiber as
  void* caller_sanitizer_;
  const void* caller_stack_;
  std::size_t caller_size_;
  void (*entry_)(void*);
  void* argument_;

  friend void fiber_main(Fiber*);
};

}  // namespace dpo::simt
