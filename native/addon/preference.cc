#include <algorithm>

#include "native/addon/bindings.h"
#include "native/addon/shared_arguments.h"

namespace dpo {
namespace {

dpo_preference_options read_preference_options(Arguments& in) {
  dpo_preference_options options{};
  options.loss_count = in.integer();
  const std::int32_t room =
      std::min<std::int32_t>(options.loss_count, DPO_MAX_LOSSES);  // more are refused when the call is checked
  for (std::int32_t i = 0; i < room; ++i) options.losses[i] = {in.integer(), in.number()};
  options.transform = in.integer();
  options.transform_alpha = in.number();
  options.beta = in.number();
  options.gamma = in.number();
  options.label_smoothing = in.number();
  options.discopop_tau = in.number();
  options.simpo_gamma = in.number();
  options.cpo_alpha = in.number();
  options.bco_delta = in.number();
  options.bco_count = in.number();
  options.kto_kl = in.number();
  options.kto_desirable_weight = in.number();
  options.kto_undesirable_weight = in.number();
  return options;
}

}  // namespace

dpo_preference_args read_preference_args(Arguments& in) {
  dpo_preference_args args{};
  args.policy = in.tensor();
  args.reference = in.tensor();
  args.log_kernel = in.tensor();
  args.token_counts = in.tensor();
  args.pair_weights = in.tensor();
  args.options = read_preference_options(in);
  args.losses = in.tensor();
  args.rewards = in.tensor();
  args.grad_policy = in.tensor();
  args.grad_log_kernel = in.tensor();
  args.metrics = in.tensor();
  return args;
}

Operation read_preference(Arguments& in) { return operation(read_preference_args(in), &dpo_backend::preference); }

}  // namespace dpo
