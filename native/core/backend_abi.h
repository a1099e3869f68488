/* The contract between the addon (host) and a backend, in plain C. A backend is a shared object beside the addon that
 * exports dpo_backend_open; it includes nothing of the addon, and the addon nothing of it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "native/core/copy.h"
#include "native/core/covariance.h"
#include "native/core/divergence.h"
#include "native/core/gram.h"
#include "native/core/landmarks.h"
#include "native/core/linear_algebra.h"
#include "native/core/linear_divergence.h"
#include "native/core/linear_preference.h"
#include "native/core/linear_token_log_probs.h"
#include "native/core/pair_kernel.h"
#include "native/core/preference.h"
#include "native/core/random_features.h"
#include "native/core/sequence_log_probs.h"
#include "native/core/status.h"
#include "native/core/token_log_probs.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever a struct of the ABI changes; a backend of another number is not used. */
#define DPO_ABI_VERSION 5

#if defined(_WIN32)
#define DPO_EXPORT __declspec(dllexport)
#else
#define DPO_EXPORT __attribute__((visibility("default")))
#endif

/* One running call. Opaque to backends: they hand it back to the host's services. */
typedef struct dpo_job dpo_job;

typedef void (*dpo_chunk_body)(void* closure, int64_t chunk);

/* What the host does for a backend. */
typedef struct dpo_host {
  int32_t abi_version;
  /* Runs body(closure, 0 .. chunks-1) on the pool, in any order; chunks must not depend on each other. Returns
   * DPO_ERR_ABORTED, with some chunks not run, when the job was cancelled. */
  dpo_status (*parallel_for)(dpo_job* job, int64_t chunks, dpo_chunk_body body, void* closure);
  /* DPO_ERR_ABORTED when the job was cancelled: between parts that do not go through parallel_for. */
  dpo_status (*check_cancelled)(dpo_job* job);
  /* Working memory, 64-byte aligned, uninitialised, returned when the job ends. NULL when there is none. Thread-safe. */
  void* (*allocate)(dpo_job* job, size_t bytes);
  /* To be called after the last check of input contents and before the first write to a result. Results that the
   * caller supplied must not be left half written: from here on such a job is no longer cancelled. */
  dpo_status (*begin_writes)(dpo_job* job);
  /* Nonzero when nobody sees the results of a call that fails: contents may then be checked along with the writes. */
  int32_t (*discards_results)(const dpo_job* job);
  /* Records why the call fails; index is the first bad element, or -1. Returns `status`. */
  dpo_status (*fail)(dpo_job* job, dpo_status status, int64_t index, const char* message);
} dpo_host;

/* A backend's table. Names are static. A null operation is not supported. */
typedef struct dpo_backend {
  int32_t abi_version;
  const char* name;    /* "cpu", "cuda", "cuda-sim" */
  const char* variant; /* "x86-64-v4", or "" */
  /* How well it would run here; 0 = not at all. Writes one sentence saying why to reason. */
  int32_t (*score)(char* reason, size_t capacity);

  /* Memory of its device, for tensors at DPO_DEVICE; both null where it works in the host's memory alone. device_allocate
   * returns NULL and writes one sentence saying why to reason. device_free is given what it returned, when no call uses it. */
  void* (*device_allocate)(size_t bytes, char* reason, size_t capacity);
  void (*device_free)(void* memory);

  dpo_status (*copy)(dpo_job*, const dpo_copy_args*);
  dpo_status (*token_log_probs)(dpo_job*, const dpo_token_log_probs_args*);
  dpo_status (*token_log_probs_vjp)(dpo_job*, const dpo_token_log_probs_vjp_args*);
  dpo_status (*linear_token_log_probs)(dpo_job*, const dpo_linear_token_log_probs_args*);
  dpo_status (*linear_token_log_probs_vjp)(dpo_job*, const dpo_linear_token_log_probs_vjp_args*);
  dpo_status (*sequence_log_probs)(dpo_job*, const dpo_sequence_log_probs_args*);
  dpo_status (*sequence_log_probs_vjp)(dpo_job*, const dpo_sequence_log_probs_vjp_args*);
  dpo_status (*preference)(dpo_job*, const dpo_preference_args*);
  dpo_status (*linear_preference)(dpo_job*, const dpo_linear_preference_args*);
  dpo_status (*pair_kernel)(dpo_job*, const dpo_pair_kernel_args*);
  dpo_status (*pair_kernel_vjp)(dpo_job*, const dpo_pair_kernel_vjp_args*);
  dpo_status (*divergence)(dpo_job*, const dpo_divergence_args*);
  dpo_status (*density_ratios)(dpo_job*, const dpo_density_ratios_args*);
  dpo_status (*linear_divergence)(dpo_job*, const dpo_linear_divergence_args*);
  dpo_status (*cholesky)(dpo_job*, const dpo_cholesky_args*);
  dpo_status (*cholesky_vjp)(dpo_job*, const dpo_cholesky_vjp_args*);
  dpo_status (*solve_triangular)(dpo_job*, const dpo_solve_triangular_args*);
  dpo_status (*solve_triangular_vjp)(dpo_job*, const dpo_solve_triangular_vjp_args*);
  dpo_status (*eigh)(dpo_job*, const dpo_eigh_args*);
  dpo_status (*eigh_vjp)(dpo_job*, const dpo_eigh_vjp_args*);
  dpo_status (*landmarks)(dpo_job*, const dpo_landmarks_args*);
  dpo_status (*gram)(dpo_job*, const dpo_gram_args*);
  dpo_status (*gram_vjp)(dpo_job*, const dpo_gram_vjp_args*);
  dpo_status (*gram_reduce)(dpo_job*, const dpo_gram_reduce_args*);
  dpo_status (*gram_reduce_vjp)(dpo_job*, const dpo_gram_reduce_vjp_args*);
  dpo_status (*mmd)(dpo_job*, const dpo_mmd_args*);
  dpo_status (*random_frequencies)(dpo_job*, const dpo_random_frequencies_args*);
  dpo_status (*random_features)(dpo_job*, const dpo_random_features_args*);
  dpo_status (*random_features_vjp)(dpo_job*, const dpo_random_features_vjp_args*);
  dpo_status (*covariance)(dpo_job*, const dpo_covariance_args*);
  dpo_status (*gaussian_noise_scale)(dpo_job*, const dpo_gaussian_noise_scale_args*);
} dpo_backend;

typedef const dpo_backend* (*dpo_backend_open_fn)(const dpo_host* host);
#define DPO_BACKEND_OPEN "dpo_backend_open"

#ifdef __cplusplus
}
#endif
