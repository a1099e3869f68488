#include "native/addon/bindings.h"
#include "native/addon/kernel_arguments.h"

namespace dpo {
namespace {

dpo_gram_rows read_rows(Arguments& in) {
  dpo_gram_rows rows{};
  rows.x = in.resident_tensor();
  rows.y = in.resident_tensor();
  rows.kernel = read_kernel(in);
  rows.exact = in.integer();
  return rows;
}

dpo_gram_gradients read_gradients(Arguments& in, const dpo_kernel& kernel) {
  dpo_gram_gradients grads{};
  grads.x = in.resident_tensor();
  grads.y = in.resident_tensor();
  grads.kernel = read_kernel_gradients(in, kernel);
  return grads;
}

}  // namespace

Operation read_gram(Arguments& in) {
  dpo_gram_args args{};
  args.rows = read_rows(in);
  args.gram = in.resident_tensor();
  return operation(args, &dpo_backend::gram);
}

Operation read_gram_vjp(Arguments& in) {
  dpo_gram_vjp_args args{};
  args.rows = read_rows(in);
  args.upstream = in.resident_tensor();
  args.gram = in.resident_tensor();
  args.grads = read_gradients(in, args.rows.kernel);
  return operation(args, &dpo_backend::gram_vjp);
}

Operation read_gram_reduce(Arguments& in) {
  dpo_gram_reduce_args args{};
  args.rows = read_rows(in);
  args.vectors = in.tensor();
  args.sums = in.tensor();
  return operation(args, &dpo_backend::gram_reduce);
}

Operation read_gram_reduce_vjp(Arguments& in) {
  dpo_gram_reduce_vjp_args args{};
  args.rows = read_rows(in);
  args.vectors = in.tensor();
  args.upstream = in.tensor();
  args.grads = read_gradients(in, args.rows.kernel);
  args.grad_vectors = in.tensor();
  return operation(args, &dpo_backend::gram_reduce_vjp);
}

Operation read_mmd(Arguments& in) {
  dpo_mmd_args args{};
  args.rows = read_rows(in);
  args.unbiased = in.integer();
  const bool gradients = in.integer() != 0;
  args.mmd2 = in.tensor();
  if (gradients) args.grads = read_gradients(in, args.rows.kernel);
  return operation(args, &dpo_backend::mmd);
}

}  // namespace dpo
