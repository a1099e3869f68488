// The operations of this backend; each is in the file of its name.
#pragma once

#include "native/core/backend_abi.h"

namespace dpo::cuda {

dpo_status copy(dpo_job* job, const dpo_copy_args* args);
dpo_status token_log_probs(dpo_job* job, const dpo_token_log_probs_args* args);
dpo_status token_log_probs_vjp(dpo_job* job, const dpo_token_log_probs_vjp_args* args);
dpo_status sequence_log_probs(dpo_job* job, const dpo_sequence_log_probs_args* args);
dpo_status sequence_log_probs_vjp(dpo_job* job, const dpo_sequence_log_probs_vjp_args* args);
dpo_status linear_token_log_probs(dpo_job* job, const dpo_linear_token_log_probs_args* args);
dpo_status linear_token_log_probs_vjp(dpo_job* job, const dpo_linear_token_log_probs_vjp_args* args);
dpo_status preference(dpo_job* job, const dpo_preference_args* args);
dpo_status linear_preference(dpo_job* job, const dpo_linear_preference_args* args);
dpo_status divergence(dpo_job* job, const dpo_divergence_args* args);
dpo_status linear_divergence(dpo_job* job, const dpo_linear_divergence_args* args);
dpo_status density_ratios(dpo_job* job, const dpo_density_ratios_args* args);
dpo_status pair_kernel(dpo_job* job, const dpo_pair_kernel_args* args);
dpo_status pair_kernel_vjp(dpo_job* job, const dpo_pair_kernel_vjp_args* args);
dpo_status cholesky(dpo_job* job, const dpo_cholesky_args* args);
dpo_status cholesky_vjp(dpo_job* job, const dpo_cholesky_vjp_args* args);
dpo_status solve_triangular(dpo_job* job, const dpo_solve_triangular_args* args);
dpo_status solve_triangular_vjp(dpo_job* job, const dpo_solve_triangular_vjp_args* args);
dpo_status eigh(dpo_job* job, const dpo_eigh_args* args);
dpo_status eigh_vjp(dpo_job* job, const dpo_eigh_vjp_args* args);
dpo_status landmarks(dpo_job* job, const dpo_landmarks_args* args);
dpo_status random_frequencies(dpo_job* job, const dpo_random_frequencies_args* args);
dpo_status random_features(dpo_job* job, const dpo_random_features_args* args);
dpo_status random_features_vjp(dpo_job* job, const dpo_random_features_vjp_args* args);
dpo_status covariance(dpo_job* job, const dpo_covariance_args* args);
dpo_status gaussian_noise_scale(dpo_job* job, const dpo_gaussian_noise_scale_args* args);
dpo_status gram(dpo_job* job, const dpo_gram_args* args);
dpo_status gram_vjp(dpo_job* job, const dpo_gram_vjp_args* args);
dpo_status gram_reduce(dpo_job* job, const dpo_gram_reduce_args* args);
dpo_status gram_reduce_vjp(dpo_job* job, const dpo_gram_reduce_vjp_args* args);
dpo_status mmd(dpo_job* job, const dpo_mmd_args* args);

}  // namespace dpo::cuda
