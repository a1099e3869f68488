#include "native/addon/bindings.h"
#include "native/addon/shared_arguments.h"

namespace dpo {

Operation read_linear_divergence(Arguments& in) {
  dpo_linear_divergence_args args{};
  args.policy = read_linear_head(in);
  args.reference = read_linear_head(in);
  args.targets = in.tensor();
  args.divergence = read_divergence_kind(in);
  args.options = read_logit_options(in);
  args.memory_limit = in.long_integer();
  args.upstream = in.tensor();
  args.target_upstream = in.tensor();
  args.values = in.resident_tensor();
  args.grads = read_linear_head_gradients(in);
  return operation(args, &dpo_backend::linear_divergence);
}

}  // namespace dpo
