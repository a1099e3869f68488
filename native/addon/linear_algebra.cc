#include "native/addon/bindings.h"

namespace dpo {

Operation read_cholesky(Arguments& in) {
  dpo_cholesky_args args{};
  args.a = in.tensor();
  args.jitter = in.number();
  args.factor = in.tensor();
  args.used_jitter = in.tensor();
  return operation(args, &dpo_backend::cholesky);
}

Operation read_cholesky_vjp(Arguments& in) {
  dpo_cholesky_vjp_args args{};
  args.factor = in.tensor();
  args.upstream = in.tensor();
  args.grad_a = in.tensor();
  return operation(args, &dpo_backend::cholesky_vjp);
}

Operation read_solve_triangular(Arguments& in) {
  dpo_solve_triangular_args args{};
  args.a = in.tensor();
  args.b = in.tensor();
  args.lower = in.integer();
  args.transpose = in.integer();
  args.x = in.tensor();
  return operation(args, &dpo_backend::solve_triangular);
}

Operation read_solve_triangular_vjp(Arguments& in) {
  dpo_solve_triangular_vjp_args args{};
  args.a = in.tensor();
  args.x = in.tensor();
  args.upstream = in.tensor();
  args.lower = in.integer();
  args.transpose = in.integer();
  args.grad_a = in.tensor();
  args.grad_b = in.tensor();
  return operation(args, &dpo_backend::solve_triangular_vjp);
}

Operation read_eigh(Arguments& in) {
  dpo_eigh_args args{};
  args.a = in.tensor();
  args.values = in.tensor();
  args.vectors = in.tensor();
  return operation(args, &dpo_backend::eigh);
}

Operation read_eigh_vjp(Arguments& in) {
  dpo_eigh_vjp_args args{};
  args.values = in.tensor();
  args.vectors = in.tensor();
  args.upstream_values = in.tensor();
  args.upstream_vectors = in.tensor();
  args.grad_a = in.tensor();
  return operation(args, &dpo_backend::eigh_vjp);
}

}  // namespace dpo
