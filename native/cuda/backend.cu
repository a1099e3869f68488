// The backend's table.
#include <cstdio>
#include <string_view>

#include "native/cuda/call.h"
#include "native/cuda/device_memory.h"
#include "native/cuda/operations.h"

namespace dpo::cuda {
namespace {

constexpr int kLeastMajor = 7, kLeastMinor = 5;
constexpr const char* kNeeded =
    "needed: an NVIDIA GPU of compute capability 7.5 or newer, and a driver for CUDA 13 (580 or newer)";

/// Above any CPU backend on a device, although exact transport is missing here; below them where the host stands in for one.
constexpr std::int32_t kScore = std::string_view(DPO_CUDA_NAME) == "cuda" ? 100 : 1;

std::int32_t score(char* reason, std::size_t capacity) {
  int count = 0;  // stays as it is on an error
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    std::snprintf(reason, capacity, "no usable device: %s; %s",
                  error == cudaSuccess ? "the driver has none" : cudaGetErrorString(error), kNeeded);
    cudaGetLastError();
    return 0;
  }
  cudaDeviceProp properties{};
  if (const cudaError_t failed = cudaGetDeviceProperties(&properties, 0); failed != cudaSuccess) {
    std::snprintf(reason, capacity, "no usable device: %s; %s", cudaGetErrorString(failed), kNeeded);
    return 0;
  }
  const bool runs = properties.major > kLeastMajor || (properties.major == kLeastMajor && properties.minor >= kLeastMinor);
  std::snprintf(reason, capacity, "%s, compute capability %d.%d%s%s", properties.name, properties.major, properties.minor,
                runs ? "" : "; ", runs ? "" : kNeeded);
  return runs ? kScore : 0;
}

constexpr dpo_backend make_backend() {
  dpo_backend backend{};
  backend.abi_version = DPO_ABI_VERSION;
  backend.name = DPO_CUDA_NAME;
  backend.variant = DPO_CUDA_VARIANT;
  backend.score = score;
  backend.device_allocate = allocate_device_memory;
  backend.device_free = free_device_memory;
  backend.copy = copy;
  backend.token_log_probs = token_log_probs;
  backend.token_log_probs_vjp = token_log_probs_vjp;
  backend.sequence_log_probs = sequence_log_probs;
  backend.sequence_log_probs_vjp = sequence_log_probs_vjp;
  backend.linear_token_log_probs = linear_token_log_probs;
  backend.linear_token_log_probs_vjp = linear_token_log_probs_vjp;
  backend.preference = preference;
  backend.linear_preference = linear_preference;
  backend.divergence = divergence;
  backend.linear_divergence = linear_divergence;
  backend.density_ratios = density_ratios;
  backend.pair_kernel = pair_kernel;
  backend.pair_kernel_vjp = pair_kernel_vjp;
  backend.cholesky = cholesky;
  backend.cholesky_vjp = cholesky_vjp;
  backend.solve_triangular = solve_triangular;
  backend.solve_triangular_vjp = solve_triangular_vjp;
  backend.eigh = eigh;
  backend.eigh_vjp = eigh_vjp;
  backend.landmarks = landmarks;
  backend.random_frequencies = random_frequencies;
  backend.random_features = random_features;
  backend.random_features_vjp = random_features_vjp;
  backend.covariance = covariance;
  backend.gaussian_noise_scale = gaussian_noise_scale;
  backend.gram = gram;
  backend.gram_vjp = gram_vjp;
  backend.gram_reduce = gram_reduce;
  backend.gram_reduce_vjp = gram_reduce_vjp;
  backend.mmd = mmd;
  return backend;
}

constexpr dpo_backend kBackend = make_backend();

}  // namespace
}  // namespace dpo::cuda

extern "C" DPO_EXPORT const dpo_backend* dpo_backend_open(const dpo_host* host) {
  if (host->abi_version != DPO_ABI_VERSION) return nullptr;
  dpo::cuda::host = host;
  return &dpo::cuda::kBackend;
}
