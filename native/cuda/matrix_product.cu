#include "native/cuda/matrix_product.h"

#include <cublas_v2.h>
#include <device/library.h>

#include <string>

#include "native/cuda/pool.h"

namespace dpo::cuda {
namespace {

/// cublasGemmEx, which the header overloads.
using Gemm = cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void*, const void*,
                            cudaDataType, int, const void*, cudaDataType, int, const void*, void*, cudaDataType, int,
                            cublasComputeType_t, cublasGemmAlgo_t);

/// The functions of cuBLAS that are called.
struct Cublas {
  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  Gemm* gemm = nullptr;
  decltype(&cublasGetStatusString) describe = nullptr;
  std::string why_not;

  Cublas() {
    constexpr const char* kNames[] = {"libcublas.so.13", "libcublas.so", nullptr};
    void* library = open_library(kNames, why_not);
    if (!library) return;
    find(library, "cublasCreate_v2", create);
    find(library, "cublasSetStream_v2", set_stream);
    find(library, "cublasGemmEx", gemm);
    find(library, "cublasGetStatusString", describe);
  }

  bool usable() const { return create && set_stream && gemm && describe; }

 private:
  template <class Function>
  void find(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(find_symbol(library, name));
    if (!function) why_not += std::string(why_not.empty() ? "" : "; ") + "cuBLAS has no " + name;
  }
};

const Cublas& cublas() {
  // Never destroyed: the driver may be gone before static objects are.
  static const auto* library = new Cublas;
  return *library;
}

cublasStatus_t take_handle(cublasHandle_t* handle) {
  if (Pool<cublasHandle_t>::shared().take(handle)) return CUBLAS_STATUS_SUCCESS;
  return cublas().create(handle);
}

template <class S>
constexpr cudaDataType_t data_type() {
  if constexpr (std::is_same_v<S, double>) return CUDA_R_64F;
  if constexpr (std::is_same_v<S, __half>) return CUDA_R_16F;
  if constexpr (std::is_same_v<S, __nv_bfloat16>) return CUDA_R_16BF;
  return CUDA_R_32F;
}

constexpr cublasOperation_t operation(bool transposed) { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; }

}  // namespace

template <class S>
void multiply(Call& call, const ProductShape& shape, const MatrixOperand<S>& left, const MatrixOperand<S>& right,
              compute_t<S>* to, std::int64_t stride, Accumulate accumulate) {
  using T = compute_t<S>;
  if (!call.ok()) return;
  if (!cublas().usable()) {
    call.fail(DPO_ERR_BACKEND, "cuBLAS 13 is needed for products of matrices: %s", cublas().why_not.c_str());
    return;
  }
  cublasHandle_t handle = nullptr;
  cublasStatus_t status = take_handle(&handle);
  if (status == CUBLAS_STATUS_SUCCESS) {
    const T one = 1, kept = accumulate == Accumulate::yes ? T(1) : T(0);
    constexpr auto compute = std::is_same_v<S, double> ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;
    const auto as_int = [](std::int64_t extent) { return static_cast<int>(extent); };
    status = cublas().set_stream(handle, call.stream());
    // What is a matrix in rows is its transpose in columns, and (L·R)ᵀ = Rᵀ·Lᵀ.
    if (status == CUBLAS_STATUS_SUCCESS) {
      status = cublas().gemm(handle, operation(right.transposed), operation(left.transposed), as_int(shape.columns),
                             as_int(shape.rows), as_int(shape.depth), &one, right.data, data_type<S>(), as_int(right.stride),
                             left.data, data_type<S>(), as_int(left.stride), &kept, to, data_type<T>(), as_int(stride), compute,
                             CUBLAS_GEMM_DEFAULT);
    }
    Pool<cublasHandle_t>::shared().give_back(handle);
  }
  if (status != CUBLAS_STATUS_SUCCESS) call.fail(DPO_ERR_BACKEND, "cuBLAS, a product of matrices: %s", cublas().describe(status));
}

#define DPO_INSTANTIATE(S)                                                                                               \
  template void multiply<S>(Call&, const ProductShape&, const MatrixOperand<S>&, const MatrixOperand<S>&, compute_t<S>*, \
                            std::int64_t, Accumulate);
DPO_INSTANTIATE(float)
DPO_INSTANTIATE(double)
DPO_INSTANTIATE(__half)
DPO_INSTANTIATE(__nv_bfloat16)
#undef DPO_INSTANTIATE

}  // namespace dpo::cuda
