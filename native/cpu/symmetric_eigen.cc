#include "native/cpu/symmetric_eigen.h"

#include <new>

#include "native/cpu/eigen_matrix.h"

namespace dpo::cpu {

bool symmetric_eigen(std::int64_t n, const double* a, double* values, double* vectors) {
  try {
    const Eigen::SelfAdjointEigenSolver<Matrix> solver(Eigen::Map<const Matrix>(a, n, n));
    if (solver.info() != Eigen::Success) return false;
    Eigen::Map<Vector>(values, n) = solver.eigenvalues();
    Eigen::Map<Matrix> columns(vectors, n, n);
    columns = solver.eigenvectors();
    for (Eigen::Index j = 0; j < n; ++j) {
      Eigen::Index largest = 0;
      columns.col(j).cwiseAbs().maxCoeff(&largest);
      if (columns(largest, j) < 0) columns.col(j) = -columns.col(j);
    }
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

}  // namespace dpo::cpu
