// The stand-in for cuBLAS: products of matrices in columns, summed in the order of k.
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <vector>

struct cublasContext {
  cudaStream_t stream;
};

namespace {

double element(const void* from, cudaDataType type, std::size_t i) {
  switch (type) {
    case CUDA_R_64F:
      return static_cast<const double*>(from)[i];
    case CUDA_R_16F:
      return static_cast<double>(__half2float(static_cast<const __half*>(from)[i]));
    case CUDA_R_16BF:
      return static_cast<double>(__bfloat162float(static_cast<const __nv_bfloat16*>(from)[i]));
    default:
      return static_cast<double>(static_cast<const float*>(from)[i]);
  }
}

struct Operand {
  const void* data;
  cudaDataType type;
  int stride;
  bool transposed;

  /// Of the matrix as it enters the product.
  double at(int row, int column) const {
    const auto i = static_cast<std::size_t>(transposed ? column : row), j = static_cast<std::size_t>(transposed ? row : column);
    return element(data, type, i + j * static_cast<std::size_t>(stride));
  }
};

/// C = alpha·A·B + beta·C, in T.
template <class T>
void multiply(int m, int n, int k, T alpha, const Operand& a, const Operand& b, T beta, T* c, int ldc) {
  const auto rows = static_cast<std::size_t>(m), stride = static_cast<std::size_t>(ldc);
  std::vector<T> left(rows * static_cast<std::size_t>(k));
  for (int p = 0; p < k; ++p) {
    for (int i = 0; i < m; ++i) left[static_cast<std::size_t>(p) * rows + static_cast<std::size_t>(i)] = static_cast<T>(a.at(i, p));
  }
  constexpr int kColumns = 8;  // for which a column of A stays in the cache
  std::vector<T> sums(rows * kColumns);
  for (int first = 0; first < n; first += kColumns) {
    const int columns = std::min(kColumns, n - first);
    std::fill(sums.begin(), sums.end(), T(0));
    for (int p = 0; p < k; ++p) {
      const T* from = left.data() + static_cast<std::size_t>(p) * rows;
      for (int j = 0; j < columns; ++j) {
        const T factor = static_cast<T>(b.at(p, first + j));
        T* sum = sums.data() + static_cast<std::size_t>(j) * rows;
        for (std::size_t i = 0; i < rows; ++i) sum[i] += from[i] * factor;
      }
    }
    for (int j = 0; j < columns; ++j) {
      const T* sum = sums.data() + static_cast<std::size_t>(j) * rows;
      T* to = c + static_cast<std::size_t>(first + j) * stride;
      // With beta = 0, C is not read: it may hold anything.
      for (std::size_t i = 0; i < rows; ++i) to[i] = alpha * sum[i] + (beta == 0 ? T(0) : beta * to[i]);
    }
  }
}

/// A triangular matrix in columns, as it enters a system.
struct TriangularOperand {
  const double* data;
  std::size_t stride;
  bool transposed, lower, unit;

  TriangularOperand flipped() const { return {data, stride, !transposed, !lower, unit}; }
  double at(std::size_t row, std::size_t column) const {
    return transposed ? data[column + row * stride] : data[row + column * stride];
  }
};

/// a·x = x, in place; x's numbers are `stride` apart.
void solve(const TriangularOperand& a, std::size_t n, double* x, std::size_t stride) {
  for (std::size_t step = 0; step < n; ++step) {
    const std::size_t i = a.lower ? step : n - 1 - step, begin = a.lower ? 0 : i + 1, end = a.lower ? i : n;
    double sum = x[i * stride];
    for (std::size_t k = begin; k < end; ++k) sum -= a.at(i, k) * x[k * stride];
    x[i * stride] = a.unit ? sum : sum / a.at(i, i);
  }
}

}  // namespace

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  *handle = new cublasContext{nullptr};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "not initialized";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "invalid value";
    default:
      return "not supported";
  }
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
                            const void* alpha, const void* A, cudaDataType Atype, int lda, const void* B, cudaDataType Btype,
                            int ldb, const void* beta, void* C, cudaDataType Ctype, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t) {
  const bool wide = compute == CUBLAS_COMPUTE_64F;
  if (Atype != Btype || (Ctype == CUDA_R_64F) != wide || (Atype == CUDA_R_64F) != wide ||
      (Ctype != CUDA_R_32F && Ctype != CUDA_R_64F))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  const int a_rows = transa == CUBLAS_OP_N ? m : k, b_rows = transb == CUBLAS_OP_N ? k : n;
  if (m < 0 || n < 0 || k < 0 || lda < (a_rows > 1 ? a_rows : 1) || ldb < (b_rows > 1 ? b_rows : 1) || ldc < (m > 1 ? m : 1))
    return CUBLAS_STATUS_INVALID_VALUE;
  const Operand a{A, Atype, lda, transa == CUBLAS_OP_T}, b{B, Btype, ldb, transb == CUBLAS_OP_T};
  const double scale = wide ? *static_cast<const double*>(alpha) : static_cast<double>(*static_cast<const float*>(alpha));
  const double keep = wide ? *static_cast<const double*>(beta) : static_cast<double>(*static_cast<const float*>(beta));
  dpo::simt::enqueue(handle->stream, [=] {
    if (wide)
      multiply(m, n, k, scale, a, b, keep, static_cast<double*>(C), ldc);
    else
      multiply(m, n, k, static_cast<float>(scale), a, b, static_cast<float>(keep), static_cast<float*>(C), ldc);
  });
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDtrsm_v2(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t uplo, cublasOperation_t trans,
                              cublasDiagType_t diag, int m, int n, const double* alpha, const double* A, int lda, double* B,
                              int ldb) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  const bool left = side == CUBLAS_SIDE_LEFT;
  const int order = left ? m : n;
  if ((!left && side != CUBLAS_SIDE_RIGHT) || (uplo != CUBLAS_FILL_MODE_LOWER && uplo != CUBLAS_FILL_MODE_UPPER) ||
      (trans != CUBLAS_OP_N && trans != CUBLAS_OP_T) || m < 0 || n < 0 || lda < (order > 1 ? order : 1) ||
      ldb < (m > 1 ? m : 1) || !alpha || (m > 0 && n > 0 && (!A || !B)))
    return CUBLAS_STATUS_INVALID_VALUE;
  const bool transposed = trans == CUBLAS_OP_T;
  const TriangularOperand a{A, static_cast<std::size_t>(lda), transposed, (uplo == CUBLAS_FILL_MODE_LOWER) != transposed,
                            diag == CUBLAS_DIAG_UNIT};
  dpo::simt::enqueue(handle->stream, [=, scale = *alpha] {
    const auto rows = static_cast<std::size_t>(m), columns = static_cast<std::size_t>(n), stride = static_cast<std::size_t>(ldb);
    for (std::size_t j = 0; j < columns; ++j) {
      for (std::size_t i = 0; i < rows; ++i) B[i + j * stride] *= scale;
    }
    // X·A = B is Aᵀ·Xᵀ = Bᵀ, a system for each row.
    for (std::size_t j = 0; left && j < columns; ++j) solve(a, rows, B + j * stride, 1);
    for (std::size_t i = 0; !left && i < rows; ++i) solve(a.flipped(), columns, B + i, stride);
  });
  return CUBLAS_STATUS_SUCCESS;
}
