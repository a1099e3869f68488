#include "native/core/gram.h"

#include "native/core/kernel_checks.h"

namespace dpo {
namespace {

std::int64_t columns_of(const dpo_gram_rows& rows) { return present(rows.y) ? rows.y.shape[0] : rows.x.shape[0]; }

void check_rows(Checks& checks, const dpo_gram_rows& rows) {
  checks.shape("x", rows.x, {-1, -1}).floating("x", rows.x);
  if (!checks.ok()) return;
  checks.optional_shape("y", rows.y, {-1, rows.x.shape[1]}).dtype("y", rows.y, rows.x.dtype);
  if (checks.ok()) check_kernel(checks, rows.kernel, rows.x.shape[1]);
}

void check_gradients(Checks& checks, const dpo_gram_rows& rows, const dpo_gram_gradients& grads) {
  if (!checks.ok()) return;
  checks.shape("out.x", grads.x, {rows.x.shape[0], rows.x.shape[1]}).dtype("out.x", grads.x, rows.x.dtype);
  if (present(rows.y)) {
    checks.shape("out.y", grads.y, {rows.y.shape[0], rows.y.shape[1]}).dtype("out.y", grads.y, rows.x.dtype);
  }
  if (checks.ok()) check_kernel_gradients(checks, rows.kernel, grads.kernel);
}

Status kernel_contents(const dpo_gram_rows& rows) {
  Checks checks;
  check_kernel_contents(checks, rows.kernel);
  return checks.status();
}

void check_vectors(Checks& checks, const dpo_gram_rows& rows, const dpo_tensor& vectors) {
  if (checks.ok()) checks.shape("vectors", vectors, {columns_of(rows), -1}).arithmetic("vectors", vectors);
}

}  // namespace

Status check(const dpo_gram_args& args) {
  Checks checks;
  check_rows(checks, args.rows);
  if (!checks.ok()) return checks.status();
  checks.shape("out.gram", args.gram, {args.rows.x.shape[0], columns_of(args.rows)});
  checks.dtype("out.gram", args.gram, result_dtype(args.rows.x.dtype));
  return checks.status();
}

Status check_contents(const dpo_gram_args& args) { return kernel_contents(args.rows); }

Status check(const dpo_gram_vjp_args& args) {
  Checks checks;
  check_rows(checks, args.rows);
  if (!checks.ok()) return checks.status();
  checks.shape("upstream", args.upstream, {args.rows.x.shape[0], columns_of(args.rows)}).arithmetic("upstream", args.upstream);
  checks.optional_shape("gram", args.gram, {args.rows.x.shape[0], columns_of(args.rows)});
  checks.dtype("gram", args.gram, result_dtype(args.rows.x.dtype));
  check_gradients(checks, args.rows, args.grads);
  return checks.status();
}

Status check_contents(const dpo_gram_vjp_args& args) { return kernel_contents(args.rows); }

Status check(const dpo_gram_reduce_args& args) {
  Checks checks;
  check_rows(checks, args.rows);
  check_vectors(checks, args.rows, args.vectors);
  if (!checks.ok()) return checks.status();
  checks.shape("out.sums", args.sums, {args.rows.x.shape[0], args.vectors.shape[1]});
  checks.dtype("out.sums", args.sums, result_dtype(args.rows.x.dtype));
  return checks.status();
}

Status check_contents(const dpo_gram_reduce_args& args) { return kernel_contents(args.rows); }

Status check(const dpo_gram_reduce_vjp_args& args) {
  Checks checks;
  check_rows(checks, args.rows);
  check_vectors(checks, args.rows, args.vectors);
  if (!checks.ok()) return checks.status();
  const std::int64_t width = args.vectors.shape[1];
  checks.shape("upstream", args.upstream, {args.rows.x.shape[0], width}).arithmetic("upstream", args.upstream);
  check_gradients(checks, args.rows, args.grads);
  checks.shape("out.vectors", args.grad_vectors, {columns_of(args.rows), width});
  checks.dtype("out.vectors", args.grad_vectors, result_dtype(args.rows.x.dtype));
  return checks.status();
}

Status check_contents(const dpo_gram_reduce_vjp_args& args) { return kernel_contents(args.rows); }

Status check(const dpo_mmd_args& args) {
  Checks checks;
  check_rows(checks, args.rows);
  checks.given("y", args.rows.y);
  if (!checks.ok()) return checks.status();
  const bool enough = args.rows.x.shape[0] >= 2 && args.rows.y.shape[0] >= 2;
  checks.require(!args.unbiased || enough, DPO_ERR_SHAPE, "x, y: the unbiased estimator needs at least 2 rows of each");
  checks.shape("out.mmd2", args.mmd2, {1}).dtype("out.mmd2", args.mmd2, DPO_F64);
  if (present(args.grads.x)) check_gradients(checks, args.rows, args.grads);
  return checks.status();
}

Status check_contents(const dpo_mmd_args& args) { return kernel_contents(args.rows); }

}  // namespace dpo
