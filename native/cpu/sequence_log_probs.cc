#include "native/core/sequence_log_probs.h"

#include "native/cpu/operation.h"
#include "native/cpu/operations.h"
#include "native/cpu/sequences.h"

namespace dpo::cpu {

dpo_status sequence_log_probs(dpo_job* job, const dpo_sequence_log_probs_args* args) {
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  const Sequences sequences(args->targets, args->offsets, args->options);
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    double sum = 0;
    sequences.for_each_token(s, [&](std::int64_t token, double weight) { sum += weight * get(args->log_probs, token); });
    set(args->sequence_log_probs, s, sum);
    set(args->token_counts, s, static_cast<double>(sequences.token_count(s)));
  }
  return DPO_OK;
}

dpo_status sequence_log_probs_vjp(dpo_job* job, const dpo_sequence_log_probs_vjp_args* args) {
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  const Sequences sequences(args->targets, args->offsets, args->options);
  for (std::int64_t token = 0; token < args->targets.shape[0]; ++token) set(args->grad_log_probs, token, 0);
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const double upstream = get(args->upstream, s);
    sequences.for_each_token(s, [&](std::int64_t token, double weight) { set(args->grad_log_probs, token, weight * upstream); });
  }
  return DPO_OK;
}

}  // namespace dpo::cpu
