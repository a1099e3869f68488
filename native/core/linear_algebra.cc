#include "native/core/linear_algebra.h"

#include "native/core/checks.h"

namespace dpo {
namespace {

void check_square(Checks& checks, const char* name, const dpo_tensor& matrix) {
  checks.shape(name, matrix, {-1, -1});
  if (checks.ok()) checks.shape(name, matrix, {matrix.shape[0], matrix.shape[0]}).arithmetic(name, matrix);
}

/// A matrix or vector that goes with the square matrix `first`.
void check_like(Checks& checks, const char* name, const dpo_tensor& tensor, std::initializer_list<std::int64_t> shape,
                const dpo_tensor& first) {
  checks.shape(name, tensor, shape).dtype(name, tensor, first.dtype);
}

double diagonal(const dpo_tensor& a, std::int64_t i) {
  const std::int64_t at = i * a.shape[0] + i;
  return a.dtype == DPO_F64 ? static_cast<const double*>(a.data)[at] : static_cast<double>(static_cast<const float*>(a.data)[at]);
}

void check_nonzero_diagonal(Checks& checks, const char* name, const dpo_tensor& a) {
  for (std::int64_t i = 0; checks.ok() && i < a.shape[0]; ++i) {
    if (diagonal(a, i) == 0) {
      const std::string message = std::string(name) + ": element " + std::to_string(i) + " of the diagonal is zero";
      checks.require(false, DPO_ERR_RANGE, message.c_str(), i * a.shape[0] + i);
    }
  }
}

}  // namespace

Status check(const dpo_cholesky_args& args) {
  Checks checks;
  check_square(checks, "a", args.a);
  checks.non_negative("jitter", args.jitter);
  check_like(checks, "out.factor", args.factor, {args.a.shape[0], args.a.shape[0]}, args.a);
  checks.shape("jitter", args.used_jitter, {1}).dtype("jitter", args.used_jitter, DPO_F64);
  return checks.status();
}

Status check_contents(const dpo_cholesky_args& args) {
  Checks checks;
  checks.finite_contents("a", args.a);
  return checks.status();
}

Status check(const dpo_cholesky_vjp_args& args) {
  Checks checks;
  check_square(checks, "factor", args.factor);
  const std::int64_t n = args.factor.shape[0];
  check_like(checks, "upstream", args.upstream, {n, n}, args.factor);
  check_like(checks, "out.a", args.grad_a, {n, n}, args.factor);
  return checks.status();
}

Status check_contents(const dpo_cholesky_vjp_args& args) {
  Checks checks;
  checks.finite_contents("factor", args.factor).finite_contents("upstream", args.upstream);
  check_nonzero_diagonal(checks, "factor", args.factor);
  return checks.status();
}

Status check(const dpo_solve_triangular_args& args) {
  Checks checks;
  check_square(checks, "a", args.a);
  check_like(checks, "b", args.b, {args.a.shape[0], -1}, args.a);
  check_like(checks, "out.x", args.x, {args.a.shape[0], args.b.shape[1]}, args.a);
  return checks.status();
}

Status check_contents(const dpo_solve_triangular_args& args) {
  Checks checks;
  checks.finite_contents("a", args.a).finite_contents("b", args.b);
  check_nonzero_diagonal(checks, "a", args.a);
  return checks.status();
}

Status check(const dpo_solve_triangular_vjp_args& args) {
  Checks checks;
  check_square(checks, "a", args.a);
  check_like(checks, "x", args.x, {args.a.shape[0], -1}, args.a);
  check_like(checks, "upstream", args.upstream, {args.a.shape[0], args.x.shape[1]}, args.a);
  check_like(checks, "out.a", args.grad_a, {args.a.shape[0], args.a.shape[0]}, args.a);
  check_like(checks, "out.b", args.grad_b, {args.a.shape[0], args.x.shape[1]}, args.a);
  return checks.status();
}

Status check_contents(const dpo_solve_triangular_vjp_args& args) {
  Checks checks;
  checks.finite_contents("a", args.a).finite_contents("x", args.x).finite_contents("upstream", args.upstream);
  check_nonzero_diagonal(checks, "a", args.a);
  return checks.status();
}

Status check(const dpo_eigh_args& args) {
  Checks checks;
  check_square(checks, "a", args.a);
  check_like(checks, "out.values", args.values, {args.a.shape[0]}, args.a);
  check_like(checks, "out.vectors", args.vectors, {args.a.shape[0], args.a.shape[0]}, args.a);
  return checks.status();
}

Status check_contents(const dpo_eigh_args& args) {
  Checks checks;
  checks.finite_contents("a", args.a);
  return checks.status();
}

Status check(const dpo_eigh_vjp_args& args) {
  Checks checks;
  check_square(checks, "vectors", args.vectors);
  const std::int64_t n = args.vectors.shape[0];
  check_like(checks, "values", args.values, {n}, args.vectors);
  checks.optional_shape("upstream.values", args.upstream_values, {n})
      .dtype("upstream.values", args.upstream_values, args.vectors.dtype);
  checks.optional_shape("upstream.vectors", args.upstream_vectors, {n, n});
  checks.dtype("upstream.vectors", args.upstream_vectors, args.vectors.dtype);
  checks.require(present(args.upstream_values) || present(args.upstream_vectors), DPO_ERR_SHAPE, "upstream: is missing");
  check_like(checks, "out.a", args.grad_a, {n, n}, args.vectors);
  return checks.status();
}

Status check_contents(const dpo_eigh_vjp_args& args) {
  Checks checks;
  checks.finite_contents("values", args.values).finite_contents("vectors", args.vectors);
  if (present(args.upstream_values)) checks.finite_contents("upstream.values", args.upstream_values);
  if (present(args.upstream_vectors)) checks.finite_contents("upstream.vectors", args.upstream_vectors);
  return checks.status();
}

}  // namespace dpo
