#pragma once

#include "native/addon/arguments.h"

namespace dpo {

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
};

/// Every operation that JavaScript can call.
inline constexpr Binding kBindings[] = {
    {"tokenLogProbs", read_token_log_probs},
    {"tokenLogProbsVjp", read_token_log_probs_vjp},
    {"linearTokenLogProbs", read_linear_token_log_probs},
    {"linearTokenLogProbsVjp", read_linear_token_log_probs_vjp},
    {"sequenceLogProbs", read_sequence_log_probs},
    {"sequenceLogProbsVjp", read_sequence_log_probs_vjp},
    {"preference", read_preference},
    {"linearPreference", read_linear_preference},
    {"pairKernel", read_pair_kernel},
    {"pairKernelVjp", read_pair_kernel_vjp},
    {"divergence", read_divergence},
    {"densityRatios", read_density_ratios},
    {"linearDivergence", read_linear_divergence},
    {"randomFrequencies", read_random_frequencies},
    {"randomFeatures", read_random_features},
    {"randomFeaturesVjp", read_random_features_vjp},
    {"covariance", read_covariance},
    {"gaussianNoiseScale", read_gaussian_noise_scale},
    {"cholesky", read_cholesky},
    {"choleskyVjp", read_cholesky_vjp},
    {"solveTriangular", read_solve_triangular},
    {"solveTriangularVjp", read_solve_triangular_vjp},
    {"eigh", read_eigh},
    {"eighVjp", read_eigh_vjp},
    {"landmarks", read_landmarks},
    {"gram", read_gram},
    {"gramVjp", read_gram_vjp},
    {"gramReduce", read_gram_reduce},
    {"gramReduceVjp", read_gram_reduce_vjp},
    {"mmd", read_mmd},
};

}  // namespace dpo
