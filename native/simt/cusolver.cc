// The stand-in for cuSOLVER: Cholesky factors by rows, eigenvectors by Jacobi's rotations, reflections one after the other.
#include <cusolverDn.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

struct cusolverDnContext {
  cudaStream_t stream;
};

namespace {

constexpr int kSweeps = 60;

/// A triangle of a symmetric matrix in columns, as if it were the lower one.
struct Lower {
  double* data;
  std::size_t stride;
  bool upper;

  double& at(std::size_t row, std::size_t column) const {
    return upper ? data[column + row * stride] : data[row + column * stride];
  }
};

/// As LAPACK's dpotrf: 0, or the order of the first leading minor that is not positive.
int factorize(const Lower& a, std::size_t n) {
  for (std::size_t j = 0; j < n; ++j) {
    double pivot = a.at(j, j);
    for (std::size_t k = 0; k < j; ++k) pivot -= a.at(j, k) * a.at(j, k);
    a.at(j, j) = pivot;
    if (!(pivot > 0)) return static_cast<int>(j) + 1;
    a.at(j, j) = std::sqrt(pivot);
    for (std::size_t i = j + 1; i < n; ++i) {
      double sum = a.at(i, j);
      for (std::size_t k = 0; k < j; ++k) sum -= a.at(i, k) * a.at(j, k);
      a.at(i, j) = sum / a.at(j, j);
    }
  }
  return 0;
}

/// A symmetric matrix on its way to a diagonal one, and the vectors that take it there, in rows.
struct Rotations {
  std::size_t n, stride;  // more than n: the elements of a column would share few lines of the cache where n is a power of two
  std::vector<double> matrix, vectors;

  Rotations(const Lower& a, std::size_t order) : n(order), stride(order + 8), matrix(order * stride), vectors(order * stride) {
    for (std::size_t i = 0; i < n; ++i) {
      vectors[i * stride + i] = 1;
      for (std::size_t j = 0; j <= i; ++j) matrix[i * stride + j] = matrix[j * stride + i] = a.at(i, j);
    }
  }

  /// Golub & Van Loan, Matrix Computations, 8.5. The number of elements that were too large.
  std::size_t sweep() {
    const double norm = std::sqrt(std::inner_product(matrix.begin(), matrix.end(), matrix.begin(), 0.0));
    const double negligible = norm * std::numeric_limits<double>::epsilon() / 256;
    std::size_t rotated = 0;
    for (std::size_t p = 0; p < n; ++p) {
      for (std::size_t q = p + 1; q < n; ++q) {
        if (std::fabs(matrix[p * stride + q]) <= negligible) continue;
        rotate(p, q);
        ++rotated;
      }
    }
    return rotated;
  }

 private:
  void rotate(std::size_t p, std::size_t q) {
    const double theta = (matrix[q * stride + q] - matrix[p * stride + p]) / (2 * matrix[p * stride + q]);
    const double t = std::copysign(1 / (std::fabs(theta) + std::hypot(theta, 1.0)), theta), c = 1 / std::hypot(t, 1.0), s = t * c;
    const double moved = t * matrix[p * stride + q];
    const double first = matrix[p * stride + p] - moved, second = matrix[q * stride + q] + moved;
    turn(&matrix[p * stride], &matrix[q * stride], c, s);
    turn(&vectors[p * stride], &vectors[q * stride], c, s);
    for (std::size_t i = 0; i < n; ++i) {
      matrix[i * stride + p] = matrix[p * stride + i];
      matrix[i * stride + q] = matrix[q * stride + i];
    }
    matrix[p * stride + p] = first;
    matrix[q * stride + q] = second;
    matrix[p * stride + q] = matrix[q * stride + p] = 0;
  }

  /// Two rows.
  void turn(double* __restrict x, double* __restrict y, double c, double s) const {
    for (std::size_t i = 0; i < n; ++i) {
      const double before = x[i];
      x[i] = c * before - s * y[i];
      y[i] = s * before + c * y[i];
    }
  }
};

/// The number of elements that never became small enough.
int decompose(const Lower& a, std::size_t n, bool want_vectors, double* values) {
  Rotations rotations(a, n);
  std::size_t left = 1;
  for (int sweep = 0; left > 0 && sweep < kSweeps; ++sweep) left = rotations.sweep();
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto value = [&](std::size_t i) { return rotations.matrix[i * rotations.stride + i]; };
  std::stable_sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return value(i) < value(j); });
  for (std::size_t j = 0; j < n; ++j) {
    values[j] = value(order[j]);
    for (std::size_t i = 0; want_vectors && i < n; ++i) a.data[i + j * a.stride] = rotations.vectors[order[j] * rotations.stride + i];
  }
  return static_cast<int>(left);
}

/// A matrix in columns.
struct Columns {
  double* data;
  std::size_t stride, rows, count;

  double* column(std::size_t j) const { return data + j * stride; }
  /// column(j) −= scale·v·(v·column(j)) from row `from` on, where v is 1 and then what lies below the diagonal of column `from`.
  void reflect(std::size_t from, double scale, std::size_t j) const {
    const double* v = column(from);
    double* to = column(j);
    double along = to[from];
    for (std::size_t i = from + 1; i < rows; ++i) along += v[i] * to[i];
    to[from] -= scale * along;
    for (std::size_t i = from + 1; i < rows; ++i) to[i] -= scale * along * v[i];
  }
};

/// As LAPACK's dgeqrf: R in the upper triangle, the reflections' vectors below it.
void reflect(const Columns& a, double* scales) {
  for (std::size_t k = 0; k < std::min(a.rows, a.count); ++k) {
    double* column = a.column(k);
    double below = 0;
    for (std::size_t i = k + 1; i < a.rows; ++i) below = std::hypot(below, column[i]);
    scales[k] = 0;
    if (below == 0) continue;
    const double end = -std::copysign(std::hypot(column[k], below), column[k]);
    scales[k] = (end - column[k]) / end;
    for (std::size_t i = k + 1; i < a.rows; ++i) column[i] /= column[k] - end;
    for (std::size_t j = k + 1; j < a.count; ++j) a.reflect(k, scales[k], j);
    column[k] = end;
  }
}

/// As LAPACK's dorgqr: the first columns of the product of the first `reflections` of reflect().
void join_reflections(const Columns& a, std::size_t reflections, const double* scales) {
  for (std::size_t j = reflections; j < a.count; ++j) {
    std::fill_n(a.column(j), a.rows, 0.0);
    a.column(j)[j] = 1;
  }
  for (std::size_t k = reflections; k-- > 0;) {
    for (std::size_t j = k + 1; j < a.count; ++j) a.reflect(k, scales[k], j);
    double* column = a.column(k);
    for (std::size_t i = k + 1; i < a.rows; ++i) column[i] *= -scales[k];
    column[k] = 1 - scales[k];
    std::fill_n(column, k, 0.0);
  }
}

bool is_matrix(int m, int n, const double* data, int stride) {
  return m >= 0 && n >= 0 && stride >= std::max(m, 1) && (m == 0 || n == 0 || data);
}

/// Whether k reflections may make n orthonormal columns of m rows.
bool are_reflections(int m, int n, int k, const double* data, int stride, const double* scales) {
  return is_matrix(m, n, data, stride) && n <= m && k >= 0 && k <= n && (k == 0 || scales);
}

Columns columns_of(double* data, int stride, int m, int n) {
  return {data, static_cast<std::size_t>(stride), static_cast<std::size_t>(m), static_cast<std::size_t>(n)};
}

bool is_matrix(cublasFillMode_t uplo, int n, const double* data, int stride) {
  return (uplo == CUBLAS_FILL_MODE_LOWER || uplo == CUBLAS_FILL_MODE_UPPER) && n >= 0 && stride >= std::max(n, 1) &&
         (n == 0 || data);
}

Lower lower_of(cublasFillMode_t uplo, double* data, int stride) {
  return {data, static_cast<std::size_t>(stride), uplo == CUBLAS_FILL_MODE_UPPER};
}

int factorize_size(int n) { return 2 * n + 32; }
int reflect_size(int n) { return 32 * n + 1; }
int decompose_size(int n) { return 1 + 6 * n + 2 * n * n; }

/// Uses all of it, as the caller may expect.
void spoil(double* workspace, int count) { std::fill_n(workspace, count, std::numeric_limits<double>::quiet_NaN()); }

}  // namespace

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
  if (!handle) return CUSOLVER_STATUS_INVALID_VALUE;
  *handle = new cusolverDnContext{nullptr};
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
  delete handle;
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream) {
  if (!handle) return CUSOLVER_STATUS_NOT_INITIALIZED;
  handle->stream = stream;
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDpotrf_bufferSize(cusolverDnHandle_t handle, cublasFillMode_t uplo, int n, double* A, int lda,
                                             int* Lwork) {
  if (!handle) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if (!is_matrix(uplo, n, A, lda) || !Lwork) return CUSOLVER_STATUS_INVALID_VALUE;
  *Lwork = factorize_size(n);
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDpotrf(cusolverDnHandle_t handle, cublasFillMode_t uplo, int n, double* A, int lda, double* Workspace,
                                  int Lwork, int* devInfo) {
  if (!handle) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if (!is_matrix(uplo, n, A, lda) || !Workspace || Lwork < factorize_size(n) || !devInfo) return CUSOLVER_STATUS_INVALID_VALUE;
  dpo::simt::enqueue(handle->stream, [=] {
    spoil(Workspace, Lwork);
    *devInfo = factorize(lower_of(uplo, A, lda), static_cast<std::size_t>(n));
  });
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDsyevd_bufferSize(cusolverDnHandle_t handle, cusolverEigMode_t jobz, cublasFillMode_t uplo, int n,
                                             const double* A, int lda, const double* W, int* lwork) {
  if (!handle) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if ((jobz != CUSOLVER_EIG_MODE_VECTOR && jobz != CUSOLVER_EIG_MODE_NOVECTOR) || !is_matrix(uplo, n, A, lda) || !W || !lwork)
    return CUSOLVER_STATUS_INVALID_VALUE;
  *lwork = decompose_size(n);
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDsyevd(cusolverDnHandle_t handle, cusolverEigMode_t jobz, cublasFillMode_t uplo, int n, double* A,
                                  int lda, double* W, double* work, int lwork, int* info) {
  if (!handle) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if ((jobz != CUSOLVER_EIG_MODE_VECTOR && jobz != CUSOLVER_EIG_MODE_NOVECTOR) || !is_matrix(uplo, n, A, lda) || !W || !work ||
      lwork < decompose_size(n) || !info)
    return CUSOLVER_STATUS_INVALID_VALUE;
  dpo::simt::enqueue(handle->stream, [=] {
    spoil(work, lwork);
    *info = decompose(lower_of(uplo, A, lda), static_cast<std::size_t>(n), jobz == CUSOLVER_EIG_MODE_VECTOR, W);
  });
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDgeqrf_bufferSize(cusolverDnHandle_t handle, int m, int n, double* A, int lda, int* lwork) {
  if (!handle) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if (!is_matrix(m, n, A, lda) || !lwork) return CUSOLVER_STATUS_INVALID_VALUE;
  *lwork = reflect_size(n);
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDgeqrf(cusolverDnHandle_t handle, int m, int n, double* A, int lda, double* TAU, double* Workspace,
                                  int Lwork, int* devInfo) {
  if (!handle) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if (!is_matrix(m, n, A, lda) || !TAU || !Workspace || Lwork < reflect_size(n) || !devInfo) return CUSOLVER_STATUS_INVALID_VALUE;
  dpo::simt::enqueue(handle->stream, [=] {
    spoil(Workspace, Lwork);
    reflect(columns_of(A, lda, m, n), TAU);
    *devInfo = 0;
  });
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDorgqr_bufferSize(cusolverDnHandle_t handle, int m, int n, int k, const double* A, int lda,
                                             const double* tau, int* lwork) {
  if (!handle) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if (!are_reflections(m, n, k, A, lda, tau) || !lwork) return CUSOLVER_STATUS_INVALID_VALUE;
  *lwork = reflect_size(n);
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDorgqr(cusolverDnHandle_t handle, int m, int n, int k, double* A, int lda, const double* tau,
                                  double* work, int lwork, int* info) {
  if (!handle) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if (!are_reflections(m, n, k, A, lda, tau) || !work || lwork < reflect_size(n) || !info) return CUSOLVER_STATUS_INVALID_VALUE;
  dpo::simt::enqueue(handle->stream, [=] {
    spoil(work, lwork);
    join_reflections(columns_of(A, lda, m, n), static_cast<std::size_t>(k), tau);
    *info = 0;
  });
  return CUSOLVER_STATUS_SUCCESS;
}
