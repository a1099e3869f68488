#include "native/addon/bindings.h"
#include "native/addon/shared_arguments.h"

namespace dpo {

Operation read_token_log_probs(Arguments& in) {
  dpo_token_log_probs_args args{};
  args.logits = in.resident_tensor();
  args.targets = in.tensor();
  args.options = read_logit_options(in);
  args.log_probs = in.resident_tensor();
  args.log_sum_exp = in.tensor();
  args.entropy = in.resident_tensor();
  args.mean_logit = in.resident_tensor();
  return operation(args, &dpo_backend::token_log_probs);
}

Operation read_token_log_probs_vjp(Arguments& in) {
  dpo_token_log_probs_vjp_args args{};
  args.logits = in.resident_tensor();
  args.targets = in.tensor();
  args.log_sum_exp = in.tensor();
  args.upstream = in.tensor();
  args.options = read_logit_options(in);
  args.grad_logits = in.resident_tensor();
  return operation(args, &dpo_backend::token_log_probs_vjp);
}

}  // namespace dpo
