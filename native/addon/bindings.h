#pragma once

#include "native/addon/arguments.h"

namespace dpo {

Operation read_copy(Arguments& in);
Operation read_token_log_probs(Arguments& in);
Operation read_token_log_probs_vjp(Arguments& in);
Operation read_linear_token_log_probs(Arguments& in);
Operation read_linear_token_log_probs_vjp(Arguments& in);
Operation read_sequence_log_probs(Arguments& in);
Operation read_sequence_log_probs_vjp(Arguments& in);
Operation read_preference(Arguments& in);
Operation read_linear_preference(Arguments& in);
Operation read_pair_kernel(Arguments& in);
Operation read_pair_kernel_vjp(Arguments& in);
Operation read_divergence(Arguments& in);
Operation read_density_ratios(Arguments& in);
Operation read_linear_divergence(Arguments& in);
Operation read_random_frequencies(Arguments& in);
Operation read_random_features(Arguments& in);
Operation read_random_features_vjp(Arguments& in);
Operation read_covariance(Arguments& in);
Operation read_gaussian_noise_scale(Arguments& in);
Operation read_cholesky(Arguments& in);
Operation read_cholesky_vjp(Arguments& in);
Operation read_solve_triangular(Arguments& in);
Operation read_solve_triangular_vjp(Arguments& in);
Operation read_eigh(Arguments& in);
Operation read_eigh_vjp(Arguments& in);
Operation read_landmarks(Arguments& in);
Operation read_gram(Arguments& in);
Operation read_gram_vjp(Arguments& in);
Operation read_gram_reduce(Arguments& in);
Operation read_gram_reduce_vjp(Arguments& in);
Operation read_mmd(Arguments& in);

struct Binding {
  const char* name;
  ReadOperation read;
  bool (*supported_by)(const dpo_backend& backend);
};

template <auto kOperation>
bool has(const dpo_backend& backend) {
  return backend.*kOperation != nullptr;
}

/// Every operation that JavaScript can call.
inline constexpr Binding kBindings[] = {
    {"copy", read_copy, has<&dpo_backend::copy>},
    {"tokenLogProbs", read_token_log_probs, has<&dpo_backend::token_log_probs>},
    {"tokenLogProbsVjp", read_token_log_probs_vjp, has<&dpo_backend::token_log_probs_vjp>},
    {"linearTokenLogProbs", read_linear_token_log_probs, has<&dpo_backend::linear_token_log_probs>},
    {"linearTokenLogProbsVjp", read_linear_token_log_probs_vjp, has<&dpo_backend::linear_token_log_probs_vjp>},
    {"sequenceLogProbs", read_sequence_log_probs, has<&dpo_backend::sequence_log_probs>},
    {"sequenceLogProbsVjp", read_sequence_log_probs_vjp, has<&dpo_backend::sequence_log_probs_vjp>},
    {"preference", read_preference, has<&dpo_backend::preference>},
    {"linearPreference", read_linear_preference, has<&dpo_backend::linear_preference>},
    {"pairKernel", read_pair_kernel, has<&dpo_backend::pair_kernel>},
    {"pairKernelVjp", read_pair_kernel_vjp, has<&dpo_backend::pair_kernel_vjp>},
    {"divergence", read_divergence, has<&dpo_backend::divergence>},
    {"densityRatios", read_density_ratios, has<&dpo_backend::density_ratios>},
    {"linearDivergence", read_linear_divergence, has<&dpo_backend::linear_divergence>},
    {"randomFrequencies", read_random_frequencies, has<&dpo_backend::random_frequencies>},
    {"randomFeatures", read_random_features, has<&dpo_backend::random_features>},
    {"randomFeaturesVjp", read_random_features_vjp, has<&dpo_backend::random_features_vjp>},
    {"covariance", read_covariance, has<&dpo_backend::covariance>},
    {"gaussianNoiseScale", read_gaussian_noise_scale, has<&dpo_backend::gaussian_noise_scale>},
    {"cholesky", read_cholesky, has<&dpo_backend::cholesky>},
    {"choleskyVjp", read_cholesky_vjp, has<&dpo_backend::cholesky_vjp>},
    {"solveTriangular", read_solve_triangular, has<&dpo_backend::solve_triangular>},
    {"solveTriangularVjp", read_solve_triangular_vjp, has<&dpo_backend::solve_triangular_vjp>},
    {"eigh", read_eigh, has<&dpo_backend::eigh>},
    {"eighVjp", read_eigh_vjp, has<&dpo_backend::eigh_vjp>},
    {"landmarks", read_landmarks, has<&dpo_backend::landmarks>},
    {"gram", read_gram, has<&dpo_backend::gram>},
    {"gramVjp", read_gram_vjp, has<&dpo_backend::gram_vjp>},
    {"gramReduce", read_gram_reduce, has<&dpo_backend::gram_reduce>},
    {"gramReduceVjp", read_gram_reduce_vjp, has<&dpo_backend::gram_reduce_vjp>},
    {"mmd", read_mmd, has<&dpo_backend::mmd>},
};

}  // namespace dpo
