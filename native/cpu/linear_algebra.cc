#include "native/core/linear_algebra.h"

#include <limits>

#include "native/cpu/eigen_matrix.h"
#include "native/cpu/operations.h"
#include "native/cpu/symmetric_eigen.h"
#include "native/math/linear_algebra.h"

namespace dpo::cpu {
namespace {

double epsilon(const dpo_tensor& tensor) {
  return tensor.dtype == DPO_F64 ? std::numeric_limits<double>::epsilon()
                                 : static_cast<double>(std::numeric_limits<float>::epsilon());
}

/// Whether the tensor's dtype has a finite number for each element.
bool fits(const dpo_tensor& tensor, const Matrix& matrix) {
  const double largest =
      tensor.dtype == DPO_F64 ? std::numeric_limits<double>::max() : static_cast<double>(std::numeric_limits<float>::max());
  return (matrix.array().abs() <= largest).all();
}

Matrix symmetric_part(const Matrix& a) { return (a + a.transpose()) / 2; }

struct Factor {
  Matrix lower;
  double jitter;
};

/// a + jitter·I, the jitter growing from none until the matrix has a factor. False when none of the attempts has one.
bool factorize(const Matrix& a, double jitter, Factor& result) {
  const double mean = a.diagonal().cwiseAbs().mean();
  for (int attempt = 0; attempt < math::jitter_attempts(jitter); ++attempt) {
    const double added = math::added_jitter(jitter, attempt, mean);
    Matrix moved = a;
    moved.diagonal().array() += added;
    const Eigen::LLT<Matrix> llt(moved);
    const Matrix lower = llt.matrixL();
    if (llt.info() == Eigen::Success && lower.diagonal().minCoeff() > 0 && lower.allFinite()) {
      result = {lower, added};
      return true;
    }
  }
  return false;
}

dpo_status run_cholesky(dpo_job* job, const dpo_cholesky_args& args) {
  Factor factor;
  if (!factorize(matrix_of(args.a), args.jitter, factor)) {
    const double largest = math::jitter_share(args.jitter, math::kJitterAttempts);
    return fail(job, DPO_ERR_NOT_PSD, -1,
                "a: is not positive definite, not with %g of its mean diagonal added to the diagonal either", largest);
  }
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  write(args.factor, factor.lower);
  set(args.used_jitter, 0, factor.jitter);
  return DPO_OK;
}

/// ½·L⁻ᵀ(P + Pᵀ)L⁻¹, P the lower triangle of LᵀL̄ with half its diagonal. Murray (2016), arXiv 1602.07527.
dpo_status run_cholesky_vjp(dpo_job* job, const dpo_cholesky_vjp_args& args) {
  const Matrix factor = matrix_of(args.factor), upstream = matrix_of(args.upstream);
  const auto lower = factor.triangularView<Eigen::Lower>();
  const Matrix masked = upstream.triangularView<Eigen::Lower>();
  Matrix product = lower.transpose() * masked;
  product = Matrix(product.triangularView<Eigen::Lower>());
  product.diagonal() /= 2;
  const Matrix both = product + product.transpose();
  const Matrix left = lower.transpose().solve(both);
  const Matrix gradient = symmetric_part(lower.transpose().solve(left.transpose()) / 2);
  if (!fits(args.grad_a, gradient)) return fail(job, DPO_ERR_RANGE, -1, "factor, upstream: the gradient overflows");
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  write(args.grad_a, gradient);
  return DPO_OK;
}

Matrix solve(const Matrix& a, const Matrix& b, bool lower, bool transpose) {
  if (lower)
    return transpose ? Matrix(a.triangularView<Eigen::Lower>().transpose().solve(b))
                     : Matrix(a.triangularView<Eigen::Lower>().solve(b));
  return transpose ? Matrix(a.triangularView<Eigen::Upper>().transpose().solve(b))
                   : Matrix(a.triangularView<Eigen::Upper>().solve(b));
}

dpo_status run_solve_triangular(dpo_job* job, const dpo_solve_triangular_args& args) {
  const Matrix x = solve(matrix_of(args.a), matrix_of(args.b), args.lower != 0, args.transpose != 0);
  if (!fits(args.x, x)) return fail(job, DPO_ERR_RANGE, -1, "a, b: the solution overflows");
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  write(args.x, x);
  return DPO_OK;
}

/// b̄ = a⁻ᵀx̄ and ā = −b̄xᵀ, of the transposed system a⁻¹x̄ and −xb̄ᵀ; of ā the triangle that is read.
dpo_status run_solve_triangular_vjp(dpo_job* job, const dpo_solve_triangular_vjp_args& args) {
  const bool lower = args.lower != 0, transpose = args.transpose != 0;
  const Matrix x = matrix_of(args.x);
  const Matrix grad_b = solve(matrix_of(args.a), matrix_of(args.upstream), lower, !transpose);
  const Matrix full = transpose ? Matrix(-x * grad_b.transpose()) : Matrix(-grad_b * x.transpose());
  const Matrix grad_a = lower ? Matrix(full.triangularView<Eigen::Lower>()) : Matrix(full.triangularView<Eigen::Upper>());
  if (!fits(args.grad_a, grad_a) || !fits(args.grad_b, grad_b))
    return fail(job, DPO_ERR_RANGE, -1, "a, x, upstream: the gradient overflows");
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  write(args.grad_a, grad_a);
  write(args.grad_b, grad_b);
  return DPO_OK;
}

dpo_status run_eigh(dpo_job* job, const dpo_eigh_args& args) {
  const Matrix a = matrix_of(args.a);
  Vector values(a.rows());
  Matrix vectors(a.rows(), a.rows());
  if (!symmetric_eigen(a.rows(), a.data(), values.data(), vectors.data()))
    return fail(job, DPO_ERR_RANGE, -1, "a: its eigenvalues could not be found");
  if (!fits(args.values, values)) return fail(job, DPO_ERR_RANGE, -1, "a: its eigenvalues overflow");
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  write(args.values, values);
  write(args.vectors, vectors);
  return DPO_OK;
}

/// math::turn_term of all elements; `undefined`: of an eigenvalue that has no gradient.
struct VectorTerm {
  Matrix value;
  Eigen::Index undefined = -1;
};

VectorTerm vector_term(const Vector& values, const Matrix& vectors, const Matrix& upstream, double relative) {
  const Matrix turned = vectors.transpose() * upstream;
  const auto bounds = math::TurnBounds::of(relative, values.size(), values.cwiseAbs().maxCoeff(), upstream.norm());
  VectorTerm term{Matrix::Zero(vectors.rows(), vectors.cols())};
  for (Eigen::Index i = 0; i < values.size(); ++i) {
    for (Eigen::Index j = 0; j < values.size(); ++j) {
      const math::TurnTerm element = math::turn_term(turned(i, j), turned(j, i), values(i), values(j), bounds);
      term.value(i, j) = element.value;
      if (element.undefined) term.undefined = i;
    }
  }
  return term;
}

dpo_status run_eigh_vjp(dpo_job* job, const dpo_eigh_vjp_args& args) {
  const Vector values = matrix_of(args.values);
  const Matrix vectors = matrix_of(args.vectors);
  Matrix inner = Matrix::Zero(values.size(), values.size());
  if (present(args.upstream_vectors)) {
    const VectorTerm term = vector_term(values, vectors, matrix_of(args.upstream_vectors), epsilon(args.vectors));
    if (term.undefined >= 0) {
      return fail(job, DPO_ERR_RANGE, term.undefined,
                  "upstream.vectors: eigenvalue %lld is repeated, and its vectors have no gradient",
                  static_cast<long long>(term.undefined));
    }
    inner = term.value;
  }
  if (present(args.upstream_values)) inner.diagonal() += Vector(matrix_of(args.upstream_values));
  const Matrix gradient = symmetric_part(vectors * inner * vectors.transpose());
  if (!fits(args.grad_a, gradient)) return fail(job, DPO_ERR_RANGE, -1, "vectors, upstream: the gradient overflows");
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  write(args.grad_a, gradient);
  return DPO_OK;
}

}  // namespace

dpo_status cholesky(dpo_job* job, const dpo_cholesky_args* args) {
  return guarded(job, [&] { return run_cholesky(job, *args); });
}

dpo_status cholesky_vjp(dpo_job* job, const dpo_cholesky_vjp_args* args) {
  return guarded(job, [&] { return run_cholesky_vjp(job, *args); });
}

dpo_status solve_triangular(dpo_job* job, const dpo_solve_triangular_args* args) {
  return guarded(job, [&] { return run_solve_triangular(job, *args); });
}

dpo_status solve_triangular_vjp(dpo_job* job, const dpo_solve_triangular_vjp_args* args) {
  return guarded(job, [&] { return run_solve_triangular_vjp(job, *args); });
}

dpo_status eigh(dpo_job* job, const dpo_eigh_args* args) {
  return guarded(job, [&] { return run_eigh(job, *args); });
}

dpo_status eigh_vjp(dpo_job* job, const dpo_eigh_vjp_args* args) {
  return guarded(job, [&] { return run_eigh_vjp(job, *args); });
}

}  // namespace dpo::cpu
