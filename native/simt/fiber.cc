#include "native/simt/fiber.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <new>

#include "native/simt/sanitizers.h"

// switch_stack(&from, to): keeps the callee-saved registers and the stack pointer of this stack, and goes on with those of
// another (System V ABI of x86-64).
asm(R"(
.text
.globl dpo_simt_switch_stack
.hidden dpo_simt_switch_stack
.type dpo_simt_switch_stack, @function
dpo_simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size dpo_simt_switch_stack, . - dpo_simt_switch_stack
)");
extern "C" void dpo_simt_switch_stack(void** from, void* to);

namespace dpo::simt {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kStack = 128 * 1024;  // sanitizers make frames several times larger

// The two ends of the latest switch.
[[gnu::tls_model("initial-exec")]] constinit thread_local Fiber *leaving = nullptr, *arriving = nullptr;

}  // namespace

void fiber_main() {
  end_switch(nullptr, &leaving->bottom_, &leaving->size_);
  arriving->entry_(arriving->argument_);
}

Fiber::Fiber() : sanitizer_(create_thread()), size_(kStack) {
  memory_ = mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory_ == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory_, kPage, PROT_NONE);
  bottom_ = static_cast<char*>(memory_) + kPage;
  // Stacks begin at different places of their pages: at the same one they would all contend for the same lines of the cache.
  static std::atomic<unsigned> count = 0;
  constexpr unsigned kLine = 64;
  shift_ = count++ * 7 % (kPage / kLine) * kLine;
}

Fiber::~Fiber() {
  if (memory_ == nullptr) return;
  destroy_thread(sanitizer_);
  munmap(memory_, kStack + kPage);
}

Fiber& Fiber::host() {
  thread_local Fiber fiber(nullptr);
  fiber.sanitizer_ = current_thread();
  return fiber;
}

void Fiber::start(void (*entry)(void*), void* argument) {
  entry_ = entry;
  argument_ = argument;
  auto* top = reinterpret_cast<void**>(static_cast<char*>(memory_) + kPage + kStack - shift_);
  *--top = nullptr;  // where a return address would be: keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(&fiber_main);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  pointer_ = top;
}

void Fiber::go_to(Fiber& to) {
  void* fake_stack = nullptr;
  leaving = this;
  arriving = &to;
  begin_switch(&fake_stack, to.bottom_, to.size_);
  switch_thread(to.sanitizer_);
  dpo_simt_switch_stack(&pointer_, to.pointer_);
  end_switch(fake_stack, &leaving->bottom_, &leaving->size_);
}

}  // namespace dpo::simt
