#include "native/core/copy.h"

#include "native/cuda/call.h"
#include "native/cuda/operations.h"

namespace dpo::cuda {

dpo_status copy(dpo_job* job, const dpo_copy_args* args) {
  return run(job, [&](Call& call) { return call.copy(args->from, args->to); });
}

}  // namespace dpo::cuda
