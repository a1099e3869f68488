#include "native/cuda/matrix_product.h"

#include "native/cuda/cublas_library.h"

namespace dpo::cuda {
namespace {

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
  const int rows = library_extent(call, shape.rows), columns = library_extent(call, shape.columns),
            depth = library_extent(call, shape.depth), left_stride = library_extent(call, left.stride),
            right_stride = library_extent(call, right.stride), to_stride = library_extent(call, stride);
  with_handle(call, cublas(), "products of matrices", [&](cublasHandle_t handle) {
    const T one = 1, kept = accumulate == Accumulate::yes ? T(1) : T(0);
    constexpr auto compute = std::is_same_v<S, double> ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;
    // What is a matrix in rows is its transpose in columns, and (L·R)ᵀ = Rᵀ·Lᵀ.
    return cublas().gemm(handle, operation(right.transposed), operation(left.transposed), columns, rows, depth, &one, right.data,
                         data_type<S>(), right_stride, left.data, data_type<S>(), left_stride, &kept, to, data_type<T>(),
                         to_stride, compute, CUBLAS_GEMM_DEFAULT);
  });
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
