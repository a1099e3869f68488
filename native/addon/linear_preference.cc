#include "native/addon/bindings.h"
#include "native/addon/shared_arguments.h"

namespace dpo {

Operation read_linear_preference(Arguments& in) {
  dpo_linear_preference_args args{};
  args.head = read_linear_head(in);
  args.targets = in.tensor();
  args.offsets = in.tensor();
  args.logit_options = read_logit_options(in);
  args.sequence_options = read_sequence_options(in);
  args.memory_limit = in.long_integer();
  args.mean_logit = in.tensor();
  args.preference = read_preference_args(in);
  args.grads = read_linear_head_gradients(in);
  return operation(args, &dpo_backend::linear_preference);
}

}  // namespace dpo
