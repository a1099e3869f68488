#include "native/simt/grid.h"

#include <bit>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "native/simt/fiber.h"
#include "native/simt/sanitizers.h"
#include "native/simt/traffic.h"

namespace dpo::simt {

[[gnu::tls_model("initial-exec")]] constinit thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

/// What a thread does that cannot run.
enum class State { at_barrier, in_warp, done };

struct Thread {
  Dim3 index;
  State state = State::done;
  unsigned place = 0;  // in the block
};

/// Numbers below a bound, evenly enough for an order to be unforeseeable. Marsaglia (2003), "Xorshift RNGs".
class Random {
 public:
  unsigned below(unsigned bound) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    state_ ^= state_ << 5;
    return static_cast<unsigned>(static_cast<std::uint64_t>(state_) * bound >> 32);
  }

 private:
  std::uint32_t state_ = 2463534242;
};

/// Which threads of a block can run.
class ReadySet {
 public:
  explicit ReadySet(unsigned count) : count_(count), word_count_((count + kWord - 1) / kWord) { set_all(); }

  void set_all() {
    for (unsigned t = 0; t < count_; t += kWord)
      words_[t / kWord] = count_ - t >= kWord ? ~std::uint64_t{0} : (std::uint64_t{1} << (count_ - t)) - 1;
  }
  void clear(unsigned t) { words_[t / kWord] &= ~(std::uint64_t{1} << t % kWord); }
  /// Threads first .. first + 31 of which `mask` has the bits.
  void set_warp(unsigned first, unsigned mask) { words_[first / kWord] |= static_cast<std::uint64_t>(mask) << first % kWord; }
  unsigned warp(unsigned first) const { return static_cast<unsigned>(words_[first / kWord] >> first % kWord); }
  bool has(unsigned t) const { return (words_[t / kWord] >> t % kWord & 1) != 0; }

  /// The first from t on, and then from the beginning; −1 if there is none.
  int at_or_after(unsigned t) const {
    const std::uint64_t here = words_[t / kWord] >> t % kWord << t % kWord;
    if (here != 0) return first_of(t / kWord, here);
    for (unsigned word = t / kWord + 1; word < word_count_; ++word)
      if (words_[word] != 0) return first_of(word, words_[word]);
    for (unsigned word = 0; word <= t / kWord; ++word)
      if (words_[word] != 0) return first_of(word, words_[word]);
    return -1;
  }
  /// The last up to t, and then from the end.
  int at_or_before(unsigned t) const {
    const unsigned above = kWord - 1 - t % kWord;
    const std::uint64_t here = words_[t / kWord] << above >> above;
    if (here != 0) return last_of(t / kWord, here);
    for (unsigned word = t / kWord; word-- > 0;)
      if (words_[word] != 0) return last_of(word, words_[word]);
    for (unsigned word = word_count_; word-- > t / kWord;)
      if (words_[word] != 0) return last_of(word, words_[word]);
    return -1;
  }

 private:
  static constexpr unsigned kWord = 64;
  static int first_of(unsigned word, std::uint64_t bits) { return static_cast<int>(word * kWord) + std::countr_zero(bits); }
  static int last_of(unsigned word, std::uint64_t bits) {
    return static_cast<int>(word * kWord + kWord - 1) - std::countl_zero(bits);
  }

  unsigned count_, word_count_;
  std::uint64_t words_[kMostThreads / kWord] = {};
};

struct Warp {
  std::uint64_t values[2][kWarp];  // two, for a lane may be one meeting ahead of another that still reads
  std::uint64_t generation = 0;
  unsigned mask = 0, arrived = 0;
  const char* operation = nullptr;
};

/// The threads of one block.
class Block {
 public:
  Block(std::vector<std::unique_ptr<Fiber>>& fibers, Order order, Random& random)
      : fibers_(fibers), order_(order), random_(random) {}

  std::string run(Dim3 index, Dim3 block, Dim3 grid, std::size_t shared_bytes, const std::function<void()>& kernel);

  void barrier();
  void pause() { yield(); }
  void warp_barrier(unsigned mask);
  const std::uint64_t* gather(unsigned mask, std::uint64_t value, const char* operation);
  [[noreturn]] void fail(const char* operation, const char* why, const char* other = "");
  void* shared() const { return shared_.get(); }
  void run_current();

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  int next();
  void leave_for(State state);
  void yield();
  void go_to_next(Fiber& from);
  void release_barrier();
  std::string deadlock() const;
  std::string name(const Thread& thread) const;

  std::vector<std::unique_ptr<Fiber>>& fibers_;
  Order order_;
  Random& random_;
  const std::function<void()>* kernel_ = nullptr;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  ReadySet ready_{0};
  std::unique_ptr<void, Free> shared_;
  Fiber* host_ = nullptr;  // what run() is on
  char end_ = 0;  // all that threads did comes before what follows the block
  unsigned current_ = 0, at_barrier_ = 0, done_ = 0;
  std::string failure_;
};

[[gnu::tls_model("initial-exec")]] constinit thread_local Block* running = nullptr;

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
  ready_ = ReadySet(count);
  warps_.resize((count + kWarp - 1) / kWarp);
  for (unsigned t = 0; t < count; ++t) {
    threads_[t].index = {t % block.x, t / block.x % block.y, t / block.x / block.y};
    threads_[t].place = t;
    fibers_[t]->start(thread_main, nullptr);
  }
  running = this;
  host_ = &Fiber::host();
  done_ = at_barrier_ = 0;
  current_ = count - 1;
  blockIdx = index;
  blockDim = block;
  gridDim = grid;
  release(this);
  go_to_next(*host_);
  if (failure_.empty() && done_ < count) failure_ = deadlock();
  acquire(&end_);
  running = nullptr;
  return failure_;
}

void Block::run_current() {
  acquire(this);
  (*kernel_)();
  leave_for(State::done);
  ++done_;
  yield();
}

/// Lets another thread run that can, or else ends the block.
void Block::yield() {
  release(&end_);
  go_to_next(*fibers_[current_]);
}

void Block::go_to_next(Fiber& from) {
  const int chosen = failure_.empty() ? next() : -1;
  if (chosen >= 0) {
    current_ = static_cast<unsigned>(chosen);
    threadIdx = threads_[current_].index;
  }
  Fiber& to = chosen < 0 ? *host_ : *fibers_[current_];
  if (&to != &from) from.go_to(to);
}

/// The thread that runs next, or −1 when all that are left wait for each other.
int Block::next() {
  const auto count = static_cast<unsigned>(threads_.size());
  const unsigned following = current_ + 1 == count ? 0 : current_ + 1;
  switch (order_) {
    case Order::forward:
      return ready_.at_or_after(following);
    case Order::reverse:
      return ready_.at_or_before((current_ == 0 ? count : current_) - 1);
    case Order::random:
      return ready_.at_or_after(random_.below(count));
    case Order::greedy:
      break;
  }
  // The one that ran, or else its warp, so that a warp gets as far ahead of the others as barriers let it.
  if (ready_.has(current_)) return static_cast<int>(current_);
  const unsigned first = current_ / kWarp * kWarp, ready = ready_.warp(first);
  return ready != 0 ? static_cast<int>(first) + std::countr_zero(ready) : ready_.at_or_after(following);
}

void Block::leave_for(State state) {
  threads_[current_].state = state;
  ready_.clear(current_);
}

void Block::barrier() {
  release(&at_barrier_);
  leave_for(State::at_barrier);
  if (++at_barrier_ == threads_.size()) release_barrier();
  yield();
  acquire(&at_barrier_);
}

void Block::release_barrier() {
  at_barrier_ = 0;
  ready_.set_all();
}

void Block::warp_barrier(unsigned mask) {
  Warp& warp = warps_[current_ / kWarp];
  release(&warp);
  gather(mask, 0, "__syncwarp");
  acquire(&warp);
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
  leave_for(State::in_warp);
  if (warp.arrived == warp.mask) {
    warp.arrived = 0;
    ++warp.generation;
    ready_.set_warp(me / kWarp * kWarp, mask);
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
  const char* const doing[] = {" waits at a barrier", " waits for its warp", " is done"};
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
  thread_local Random random;
  const Order order = launch_order();
  const unsigned count = grid.count();
  Block one(fibers, order, random);
  for (unsigned b = 0; b < count; ++b) {
    const unsigned at = order == Order::reverse ? count - 1 - b : b;
    block_begins();
    std::string failure = one.run({at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y}, block, grid, shared_bytes, kernel);
    if (!failure.empty()) {
      fibers.clear();  // some are in the middle of a kernel
      return failure;
    }
  }
  return {};
}

void block_barrier() { running->barrier(); }
void warp_barrier(unsigned mask) { running->warp_barrier(mask); }
void pause_thread() { running->pause(); }
const std::uint64_t* warp_gather(unsigned mask, std::uint64_t value, const char* operation) {
  return running->gather(mask, value, operation);
}
void fail_kernel(const char* operation, const char* why) { running->fail(operation, why); }
void* block_shared_memory() { return running->shared(); }

}  // namespace dpo::simt
