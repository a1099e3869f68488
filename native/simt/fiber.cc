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

thread_local Fiber* starting = nullptr;

}  // namespace

void fiber_main(Fiber* self) {
  end_switch(nullptr, &self->caller_stack_, &self->caller_size_);
  self->entry_(self->argument_);
}

namespace {
void first_frame() { fiber_main(starting); }
}  // namespace

Fiber::Fiber() : pointer_(nullptr), caller_(nullptr), sanitizer_(create_thread()) {
  void* memory = mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kPage, PROT_NONE);
  stack_ = static_cast<char*>(memory) + kPage;
  // Stacks begin at different places of their pages: at the same one they would all contend for the same lines of the cache.
  static std::atomic<unsigned> count = 0;
  constexpr unsigned kLine = 64;
  shift_ = count++ * 7 % (kPage / kLine) * kLine;
}

Fiber::~Fiber() {
  destroy_thread(sanitizer_);
  munmap(static_cast<char*>(stack_) - kPage, kStack + kPage);
}

void Fiber::start(void (*entry)(void*), void* argument) {
  entry_ = entry;
  argument_ = argument;
  auto* top = reinterpret_cast<void**>(static_cast<char*>(stack_) + kStack - shift_);
  *--top = nullptr;  // where a return address would be: keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(&first_frame);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  pointer_ = top;
}

void Fiber::resume() {
  void* fake_stack = nullptr;
  starting = this;
  caller_sanitizer_ = current_thread();
  begin_switch(&fake_stack, stack_, kStack);
  switch_thread(sanitizer_);
  dpo_simt_switch_stack(&caller_, pointer_);
  end_switch(fake_stack, nullptr, nullptr);
}

void Fiber::leave() {
  void* fake_stack = nullptr;
  begin_switch(&fake_stack, caller_stack_, caller_size_);
  switch_thread(caller_sanitizer_);
  dpo_simt_switch_stack(&pointer_, caller_);
  end_switch(fake_stack, &caller_stack_, &caller_size_);
}

}  // namespace dpo::simt
