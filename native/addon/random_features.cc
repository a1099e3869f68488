#include "native/addon/bindings.h"

namespace dpo {

Operation read_random_frequencies(Arguments& in) {
  dpo_random_frequencies_args args{};
  args.density = in.integer();
  args.freedom = in.integer();
  args.orthogonal = in.integer();
  args.sigma = in.number();
  args.seed = in.long_integer();
  args.frequencies = in.tensor();
  return operation(args, &dpo_backend::random_frequencies);
}

Operation read_random_features(Arguments& in) {
  dpo_random_features_args args{};
  args.x = in.tensor();
  args.frequencies = in.tensor();
  args.normalize = in.integer();
  args.features = in.tensor();
  return operation(args, &dpo_backend::random_features);
}

Operation read_random_features_vjp(Arguments& in) {
  dpo_random_features_vjp_args args{};
  args.x = in.tensor();
  args.frequencies = in.tensor();
  args.upstream = in.tensor();
  args.normalize = in.integer();
  args.grad_x = in.tensor();
  args.grad_frequencies = in.tensor();
  return operation(args, &dpo_backend::random_features_vjp);
}

}  // namespace dpo
