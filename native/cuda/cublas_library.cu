#include "native/cuda/cublas_library.h"

namespace dpo::cuda {
namespace {

constexpr const char* kNames[] = {"libcublas.so.13", "libcublas.so", nullptr};

}  // namespace

Cublas::Cublas() : Library("cuBLAS 13", kNames) {
  find("cublasCreate_v2", create);
  find("cublasSetStream_v2", set_stream);
  find("cublasGetStatusString", describe);
  find("cublasGemmEx", gemm);
  find("cublasDtrsm_v2", solve_triangular);
}

const Cublas& cublas() {
  // Never destroyed: the driver may be gone before static objects are.
  static const auto* library = new Cublas;
  return *library;
}

}  // namespace dpo::cuda
