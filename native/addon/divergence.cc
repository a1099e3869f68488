#include "native/addon/bindings.h"
#include "native/addon/shared_arguments.h"

namespace dpo {
namespace {

dpo_transport_options read_transport_options(Arguments& in) {
  dpo_transport_options transport{};
  transport.cost = in.tensor();
  transport.embeddings = in.tensor();
  transport.top_k = in.long_integer();
  transport.metric = in.integer();
  transport.method = in.integer();
  transport.epsilon = in.number();
  transport.debias = in.integer();
  transport.max_iterations = in.integer();
  transport.tolerance = in.number();
  return transport;
}

}  // namespace

dpo_divergence_kind read_divergence_kind(Arguments& in) {
  dpo_divergence_kind divergence{};
  divergence.kind = in.integer();
  divergence.parameter = in.number();
  divergence.transport = read_transport_options(in);
  return divergence;
}

Operation read_divergence(Arguments& in) {
  dpo_divergence_args args{};
  args.policy = in.resident_tensor();
  args.reference = in.resident_tensor();
  args.targets = in.tensor();
  args.divergence = read_divergence_kind(in);
  args.options = read_logit_options(in);
  args.generator_values = in.resident_tensor();
  args.generator_slopes = in.resident_tensor();
  args.upstream = in.tensor();
  args.target_upstream = in.tensor();
  args.values = in.resident_tensor();
  args.grad_policy = in.resident_tensor();
  return operation(args, &dpo_backend::divergence);
}

Operation read_density_ratios(Arguments& in) {
  dpo_density_ratios_args args{};
  args.policy = in.resident_tensor();
  args.reference = in.resident_tensor();
  args.targets = in.tensor();
  args.options = read_logit_options(in);
  args.ratios = in.resident_tensor();
  return operation(args, &dpo_backend::density_ratios);
}

}  // namespace dpo
