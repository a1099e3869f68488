// One CUDA thread's own stack, and the switch between stacks.
#pragma once

#include <cstddef>

namespace dpo::simt {

/// A stack that a function runs on until it goes to another one. Reused for one function after another.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// What the calling thread runs on while it is on no other fiber.
  static Fiber& host();

  /// Prepares entry(argument) to run when this fiber is gone to. It must never return, but go to another for the last time.
  void start(void (*entry)(void*), void* argument);
  /// Goes on where `to` last left, on the same thread; returns when this fiber is gone to again. To be called on this fiber's stack.
  void go_to(Fiber& to);

 private:
  explicit Fiber(std::nullptr_t) {}

  void* memory_ = nullptr;        // of fibers that own a stack: above a page that may not be touched
  std::size_t shift_ = 0;         // bytes at the other end that stay unused
  void* pointer_ = nullptr;       // stack pointer where the fiber left
  void* sanitizer_ = nullptr;     // what sanitizers know this fiber as
  const void* bottom_ = nullptr;  // lowest address of its stack, and its size
  std::size_t size_ = 0;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;

  friend void fiber_main();
};

}  // namespace dpo::simt
