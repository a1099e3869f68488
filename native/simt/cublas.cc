// The stand-in for cuBLAS: products of matrices in columns, summed in the order of k.
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <device/library.h>

#include <cstring>
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
  std::vector<T> left(static_cast<std::size_t>(m) * static_cast<std::size_t>(k)), column(static_cast<std::size_t>(m));
  for (int p = 0; p < k; ++p) {
    for (int i = 0; i < m; ++i)
      left[static_cast<std::size_t>(p) * static_cast<std::size_t>(m) + static_cast<std::size_t>(i)] = static_cast<T>(a.at(i, p));
  }
  for (int j = 0; j < n; ++j) {
    column.assign(column.size(), T(0));
    for (int p = 0; p < k; ++p) {
      const T factor = static_cast<T>(b.at(p, j));
      const T* from = left.data() + static_cast<std::size_t>(p) * static_cast<std::size_t>(m);
      for (int i = 0; i < m; ++i) column[static_cast<std::size_t>(i)] += from[i] * factor;
    }
    T* to = c + static_cast<std::size_t>(j) * static_cast<std::size_t>(ldc);
    // With beta = 0, C is not read: it may hold anything.
    for (int i = 0; i < m; ++i) to[i] = alpha * column[static_cast<std::size_t>(i)] + (beta == 0 ? T(0) : beta * to[i]);
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
  return status == CUBLAS_STATUS_SUCCESS ? "success" : status == CUBLAS_STATUS_INVALID_VALUE ? "invalid value" : "not supported";
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

namespace dpo::cuda {

void* find_symbol(void*, const char* name) {
#define DPO_SYMBOL(function) \
  if (std::strcmp(name, #function) == 0) return reinterpret_cast<void*>(&function)
  DPO_SYMBOL(cublasCreate_v2);
  DPO_SYMBOL(cublasDestroy_v2);
  DPO_SYMBOL(cublasSetStream_v2);
  DPO_SYMBOL(cublasGetStatusString);
  DPO_SYMBOL(cublasGemmEx);
#undef DPO_SYMBOL
  return nullptr;
}

}  // namespace dpo::cuda
