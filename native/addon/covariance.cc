#include "native/addon/bindings.h"

namespace dpo {

Operation read_covariance(Arguments& in) {
  dpo_covariance_args args{};
  args.x = in.tensor();
  args.method = in.integer();
  args.assume_centered = in.integer();
  args.clip = in.number();
  args.count = in.number();
  args.noise_scale = in.number();
  args.seed = in.long_integer();
  args.stream = in.long_integer();
  args.covariance = in.tensor();
  args.mean = in.tensor();
  args.shrinkage = in.tensor();
  return operation(args, &dpo_backend::covariance);
}

Operation read_gaussian_noise_scale(Arguments& in) {
  dpo_gaussian_noise_scale_args args{};
  args.epsilon = in.number();
  args.delta = in.number();
  args.sensitivity = in.number();
  args.noise_scale = in.tensor();
  return operation(args, &dpo_backend::gaussian_noise_scale);
}

}  // namespace dpo
