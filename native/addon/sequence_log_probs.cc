#include "native/addon/bindings.h"
#include "native/addon/shared_arguments.h"

namespace dpo {

Operation read_sequence_log_probs(Arguments& in) {
  dpo_sequence_log_probs_args args{};
  args.log_probs = in.tensor();
  args.targets = in.tensor();
  args.offsets = in.tensor();
  args.options = read_sequence_options(in);
  args.sequence_log_probs = in.tensor();
  args.token_counts = in.tensor();
  return operation(args, &dpo_backend::sequence_log_probs);
}

Operation read_sequence_log_probs_vjp(Arguments& in) {
  dpo_sequence_log_probs_vjp_args args{};
  args.targets = in.tensor();
  args.offsets = in.tensor();
  args.upstream = in.tensor();
  args.options = read_sequence_options(in);
  args.grad_log_probs = in.tensor();
  return operation(args, &dpo_backend::sequence_log_probs_vjp);
}

}  // namespace dpo
