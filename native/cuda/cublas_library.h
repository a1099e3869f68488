// cuBLAS, opened when it is first needed.
#pragma once

#include <cublas_v2.h>

#include "native/cuda/library.h"

namespace dpo::cuda {

/// The functions of it that are called.
struct Cublas : Library {
  using Handle = cublasHandle_t;
  /// cublasGemmEx, which the header overloads.
  using Gemm = cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void*, const void*,
                              cudaDataType, int, const void*, cudaDataType, int, const void*, void*, cudaDataType, int,
                              cublasComputeType_t, cublasGemmAlgo_t);

  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  decltype(&cublasGetStatusString) describe = nullptr;
  Gemm* gemm = nullptr;
  decltype(&cublasDtrsm_v2) solve_triangular = nullptr;

  Cublas();
};

const Cublas& cublas();

}  // namespace dpo::cuda
