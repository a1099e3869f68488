#include "native/addon/bindings.h"
#include "native/addon/kernel_arguments.h"

namespace dpo {
namespace {

dpo_pair_kernel_args read_forward(Arguments& in) {
  dpo_pair_kernel_args args{};
  args.u = in.resident_tensor();
  args.side_count = in.integer();
  for (std::int32_t side = 0; side < args.side_count; ++side) args.v[side] = in.resident_tensor();
  args.kernel = read_kernel(in);
  return args;
}

void read_values(Arguments& in, dpo_pair_kernel_args& args) {
  args.log_k = in.tensor();
  args.shares = in.tensor();
  args.entropies = in.tensor();
  args.responsibilities = in.tensor();
}

}  // namespace

Operation read_pair_kernel(Arguments& in) {
  dpo_pair_kernel_args args = read_forward(in);
  read_values(in, args);
  return operation(args, &dpo_backend::pair_kernel);
}

Operation read_pair_kernel_vjp(Arguments& in) {
  dpo_pair_kernel_vjp_args args{};
  args.forward = read_forward(in);
  args.upstream = in.tensor();
  args.entropy_upstream = in.number();
  read_values(in, args.forward);
  args.grad_u = in.resident_tensor();
  for (std::int32_t side = 0; side < args.forward.side_count; ++side) args.grad_v[side] = in.resident_tensor();
  args.grad_kernel = read_kernel_gradients(in, args.forward.kernel);
  return operation(args, &dpo_backend::pair_kernel_vjp);
}

}  // namespace dpo
