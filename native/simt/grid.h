// Runs the threads of a CUDA kernel on the host: a fiber each, a block at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace dpo::simt {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  unsigned count() const { return x * y * z; }
};

/// In which order threads run between barriers, and blocks after each other. greedy: a thread that completes a barrier runs on at
/// once, as far as it can, ahead of all others; when it has to wait, its warp does.
enum class Order { forward, reverse, random, greedy };
/// Of the launches from now on.
Order& launch_order();

inline constexpr unsigned kWarp = 32;
inline constexpr unsigned kMostThreads = 1024;
inline constexpr std::size_t kMostSharedMemory = 227 * 1024;

/// Runs kernel() in every thread. Returns what went wrong, or nothing.
std::string run_grid(Dim3 grid, Dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel);

// For the thread that runs.

// initial-exec: kernels ask for them so often that looking them up in a loaded library would take a tenth of all time.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;
void block_barrier();
/// Lets the other threads of the block go on that can.
void pause_thread();
/// All lanes of `mask` meet; returns what each of the 32 has brought. `operation` is its name: lanes must agree.
const std::uint64_t* warp_gather(unsigned mask, std::uint64_t value, const char* operation);
/// The same as a barrier for these lanes.
void warp_barrier(unsigned mask);
/// Ends the kernel because of a wrong call.
[[noreturn]] void fail_kernel(const char* operation, const char* why);
/// As many bytes as the launch asked for, NaN at first.
void* block_shared_memory();

}  // namespace dpo::simt
