#include "native/simt/grid.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "native/simt/fiber.h"
#include "native/simt/sanitizers.h"

namespace dpo::simt {

thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

enum class State { ready, at_barrier, in_warp, done };

struct Thread {
  Dim3 index;
  State state = State::ready;
  unsigned place = 0;                 // in the block
  std::uint64_t warp_generation = 0;  // that it waits to end
};

struct Warp {
  std::uint64_t values[2][kWarp] = {};  // two, for a lane may be one meeting ahead of another that still reads
  std::uint64_t generation = 0;
  unsigned mask = 0, arrived = 0;
  const char* operation = nullptr;
};

/// The threads of one block.
class Block {
 public:
  Block(std::vector<std::unique_ptr<Fiber>>& fibers, Order order, std::mt19937& random)
      : fibers_(fibers), order_(order), random_(random) {}

  std::string run(Dim3 index, Dim3 block, Dim3 grid, std::size_t shared_bytes, const std::function<void()>& kernel);

  void barrier();
  const std::uint64_t* gather(unsigned mask, std::uint64_t value, const char* operation);
  [[noreturn]] void fail(const char* operation, const char* why, const char* other = "");
  void* shared() const { return shared_.get(); }
  void run_current();

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  int next();
  void yield() {
    release(&end_);
    fibers_[current_]->leave();
  }
  void release_barrier();
  std::string deadlock() const;
  std::string name(const Thread& thread) const;

  std::vector<std::unique_ptr<Fiber>>& fibers_;
  Order order_;
  std::mt19937& random_;
  const std::function<void()>* kernel_ = nullptr;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::unique_ptr<void, Free> shared_;
  char end_ = 0;  // all that threads did comes before what follows the block
  int turn_ = 0;
  unsigned current_ = 0, at_barrier_ = 0, done_ = 0;
  std::string failure_;
};

thread_local Block* running = nullptr;

void thread_main(void*) {
  running->run_current();
  std::abort();  // a fiber that is done is never resumed
}

std::string text(Dim3 at) { return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")"; }

std::string Block::run(Dim3 index, Dim3 block, Dim3 grid, std::size_t shared_bytes, const std::function<void()>& kernel) {
  kernel_ = &kernel;
  const unsigned count = block.count();
  while (fibers_.size() < count) fibers_.push_back(std::make_unique<Fiber>());
  // Of just that size, so that a sanitizer sees what goes beyond; all bits set are NaN.
  shared_.reset(std::malloc(shared_bytes));
  if (shared_bytes > 0) std::memset(shared_.get(), 0xff, shared_bytes);
  threads_.assign(count, {});
  warps_.assign((count + kWarp - 1) / kWarp, {});
  for (unsigned t = 0; t < count; ++t) {
    threads_[t].index = {t % block.x, t / block.x % block.y, t / block.x / block.y};
    threads_[t].place = t;
    fibers_[t]->start(thread_main, nullptr);
  }
  running = this;
  turn_ = order_ == Order::reverse ? static_cast<int>(count) - 1 : 0;
  blockIdx = index;
  blockDim = block;
  gridDim = grid;
  release(this);
  while (failure_.empty() && done_ < count) {
    const int chosen = next();
    if (chosen < 0) {
      failure_ = deadlock();
      break;
    }
    current_ = static_cast<unsigned>(chosen);
    threadIdx = threads_[current_].index;
    fibers_[current_]->resume();
  }
  acquire(&end_);
  running = nullptr;
  return failure_;
}

void Block::run_current() {
  acquire(this);
  (*kernel_)();
  threads_[current_].state = State::done;
  ++done_;
  yield();
}

/// The thread that runs next, or −1 when all that are left wait for each other. They take turns, from the one after the last on.
int Block::next() {
  const auto count = static_cast<int>(threads_.size());
  const auto ready = [&](int t) { return threads_[static_cast<std::size_t>(t)].state == State::ready; };
  if (order_ == Order::greedy) {
    // The one that ran, or else its warp, so that a warp gets as far ahead of the others as barriers let it.
    const auto current = static_cast<int>(current_);
    if (ready(current)) return current;
    const int warp = current / static_cast<int>(kWarp) * static_cast<int>(kWarp);
    for (int t = warp; t < std::min(count, warp + static_cast<int>(kWarp)); ++t) {
      if (ready(t)) return t;
    }
  }
  if (order_ == Order::random) turn_ = static_cast<int>(random_() % static_cast<unsigned>(count));
  const int step = order_ == Order::reverse ? count - 1 : 1;
  for (int i = 0; i < count; ++i) {
    const int t = turn_;
    turn_ = (turn_ + step) % count;
    if (ready(t)) return t;
  }
  return -1;
}

void Block::barrier() {
  release(&at_barrier_);
  threads_[current_].state = State::at_barrier;
  if (++at_barrier_ == threads_.size()) release_barrier();
  yield();
  acquire(&at_barrier_);
}

void Block::release_barrier() {
  at_barrier_ = 0;
  for (Thread& thread : threads_) thread.state = State::ready;
}

const std::uint64_t* Block::gather(unsigned mask, std::uint64_t value, const char* operation) {
  const unsigned me = current_, lane = me % kWarp;
  Warp& warp = warps_[me / kWarp];
  if ((mask >> lane & 1u) == 0) fail(operation, "a lane is not in its own mask");
  if (warp.arrived == 0) {
    warp.mask = mask;
    warp.operation = operation;
  } else if (warp.mask != mask || (warp.operation != operation && std::strcmp(warp.operation, operation) != 0)) {
    fail(operation, "lanes of the warp have another mask, or are at ", warp.operation);
  }
  std::uint64_t* values = warp.values[warp.generation % 2];
  values[lane] = value;
  warp.arrived |= 1u << lane;
  threads_[me].state = State::in_warp;
  if (warp.arrived == warp.mask) {
    warp.arrived = 0;
    ++warp.generation;
    const unsigned first = me / kWarp * kWarp;
    for (unsigned t = first; t < threads_.size() && t < first + kWarp; ++t) {
      if ((mask >> (t - first) & 1u) != 0 && threads_[t].state == State::in_warp) threads_[t].state = State::ready;
    }
  }
  yield();
  return values;
}

void Block::fail(const char* operation, const char* why, const char* other) {
  // Nothing on this stack may own memory: it is never gone back to.
  failure_ = name(threads_[current_]) + ", " + operation + ": " + why + other;
  yield();
  std::abort();  // after a failure no fiber is resumed
}

std::string Block::name(const Thread& thread) const { return "thread " + text(thread.index) + " of block " + text(blockIdx); }

std::string Block::deadlock() const {
  std::string why = "threads wait for each other:";
  std::size_t named = 0;
  const char* const doing[] = {" could run", " waits at a barrier", " waits for its warp", " is done"};
  for (const Thread& thread : threads_) {
    const bool differs = thread.place == 0 || thread.state != threads_[thread.place - 1].state;
    if (differs && named++ < 4) why += " from " + name(thread) + " on," + doing[static_cast<int>(thread.state)] + ";";
  }
  return why;
}

}  // namespace

std::string run_grid(Dim3 grid, Dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel) {
  if (block.count() == 0 || block.count() > kMostThreads || grid.count() == 0)
    return "a launch of no threads, or of more than 1024 a block";
  if (grid.y > 65535 || grid.z > 65535 || block.z > 64) return "a launch of more blocks along y or z than 65535";
  if (shared_bytes > kMostSharedMemory) return "a launch with more shared memory than 227 KiB";
  thread_local std::vector<std::unique_ptr<Fiber>> fibers;
  thread_local std::mt19937 random(1);
  const Order order = launch_order();
  const unsigned count = grid.count();
  for (unsigned b = 0; b < count; ++b) {
    const unsigned at = order == Order::reverse ? count - 1 - b : b;
    Block running_block(fibers, order, random);
    std::string failure =
        running_block.run({at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y}, block, grid, shared_bytes, kernel);
    if (!failure.empty()) {
      fibers.clear();  // some are in the middle of a kernel
      return failure;
    }
  }
  return {};
}

void block_barrier() { running->barrier(); }
const std::uint64_t* warp_gather(unsigned mask, std::uint64_t value, const char* operation) {
  return running->gather(mask, value, operation);
}
void fail_kernel(const char* operation, const char* why) { running->fail(operation, why); }
void* block_shared_memory() { return running->shared(); }

}  // namespace dpo::simt
