// The backend's table. Compiled for the baseline instruction set, since score() decides whether the rest can run.
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "native/core/backend_abi.h"
#include "native/cpu/operations.h"

namespace dpo::cpu {

const dpo_host* host = nullptr;

namespace {

#if defined(__x86_64__)
/// 2, 3 or 4: the level's last digit, so that the widest one that runs wins.
std::int32_t score(char* reason, std::size_t capacity) {
  const bool runs = std::strcmp(DPO_CPU_LEVEL, "x86-64-v4") == 0   ? __builtin_cpu_supports("x86-64-v4") != 0
                    : std::strcmp(DPO_CPU_LEVEL, "x86-64-v3") == 0 ? __builtin_cpu_supports("x86-64-v3") != 0
                                                                   : __builtin_cpu_supports("x86-64-v2") != 0;
  std::snprintf(reason, capacity,
                runs ? "this processor runs " DPO_CPU_LEVEL : "this processor lacks instructions of " DPO_CPU_LEVEL);
  return runs ? DPO_CPU_LEVEL[sizeof(DPO_CPU_LEVEL) - 2] - '0' : 0;
}
#else
std::int32_t score(char* reason, std::size_t capacity) {
  std::snprintf(reason, capacity, "plain code for this processor");
  return 2;
}
#endif

constexpr dpo_backend kBackend{
    .abi_version = DPO_ABI_VERSION,
    .name = "cpu",
    .variant = DPO_CPU_LEVEL,
    .score = score,
    .device_allocate = nullptr,
    .device_free = nullptr,
    .copy = copy,
    .token_log_probs = token_log_probs,
    .token_log_probs_vjp = token_log_probs_vjp,
    .linear_token_log_probs = linear_token_log_probs,
    .linear_token_log_probs_vjp = linear_token_log_probs_vjp,
    .sequence_log_probs = sequence_log_probs,
    .sequence_log_probs_vjp = sequence_log_probs_vjp,
    .preference = preference,
    .linear_preference = linear_preference,
    .pair_kernel = pair_kernel,
    .pair_kernel_vjp = pair_kernel_vjp,
    .divergence = divergence,
    .density_ratios = density_ratios,
    .linear_divergence = linear_divergence,
    .cholesky = cholesky,
    .cholesky_vjp = cholesky_vjp,
    .solve_triangular = solve_triangular,
    .solve_triangular_vjp = solve_triangular_vjp,
    .eigh = eigh,
    .eigh_vjp = eigh_vjp,
    .landmarks = landmarks,
    .gram = gram,
    .gram_vjp = gram_vjp,
    .gram_reduce = gram_reduce,
    .gram_reduce_vjp = gram_reduce_vjp,
    .mmd = mmd,
    .random_frequencies = random_frequencies,
    .random_features = random_features,
    .random_features_vjp = random_features_vjp,
    .covariance = covariance,
    .gaussian_noise_scale = gaussian_noise_scale,
};

}  // namespace
}  // namespace dpo::cpu

extern "C" DPO_EXPORT const dpo_backend* dpo_backend_open(const dpo_host* host) {
  if (host->abi_version != DPO_ABI_VERSION) return nullptr;
  dpo::cpu::host = host;
  return &dpo::cpu::kBackend;
}
