// The stand-ins for cuBLAS and cuSOLVER: that they refuse what the libraries refuse, and work when the stream's turn comes.
#include <cusolverDn.h>
#include <device/library.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "native/simt/grid.h"

namespace dpo::simt {
namespace {

class SimtLibraries : public testing::Test {
 protected:
  SimtLibraries() {
    cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
    cusolverDnCreate(&solver_);
    cusolverDnSetStream(solver_, stream_);
    cublasCreate_v2(&blas_);
    cublasSetStream_v2(blas_, stream_);
  }
  ~SimtLibraries() override {
    cublasDestroy_v2(blas_);
    cusolverDnDestroy(solver_);
    cudaStreamDestroy(stream_);
  }

  cublasStatus_t solve(int m, int n, int lda, int ldb, const double* scale) {
    return cublasDtrsm_v2(blas_, CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_N, CUBLAS_DIAG_NON_UNIT, m, n, scale,
                          a_.data(), lda, b_.data(), ldb);
  }
  cusolverStatus_t factorize(int n, int lda, int count) {
    return cusolverDnDpotrf(solver_, CUBLAS_FILL_MODE_LOWER, n, a_.data(), lda, workspace_.data(), count, &info_);
  }
  cusolverStatus_t decompose(int n, int lda, int count) {
    return cusolverDnDsyevd(solver_, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n, a_.data(), lda, b_.data(),
                            workspace_.data(), count, &info_);
  }
  cusolverStatus_t reflect(int m, int n, int lda, int count) {
    return cusolverDnDgeqrf(solver_, m, n, a_.data(), lda, b_.data(), workspace_.data(), count, &info_);
  }
  cusolverStatus_t join_reflections(int m, int n, int k, int lda, int count) {
    return cusolverDnDorgqr(solver_, m, n, k, a_.data(), lda, b_.data(), workspace_.data(), count, &info_);
  }

  cudaStream_t stream_ = nullptr;
  cusolverDnHandle_t solver_ = nullptr;
  cublasHandle_t blas_ = nullptr;
  /// In columns, of which the lower triangle counts.
  std::vector<double> a_ = {4, 2, 9, 2}, b_ = {8, 6}, workspace_ = std::vector<double>(128);
  double one_ = 1;
  int info_ = -1, size_ = 0;
};

TEST_F(SimtLibraries, RefuseSystemsThatTheyCannotRead) {
  EXPECT_EQ(solve(2, 1, 1, 2, &one_), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(solve(2, 1, 2, 1, &one_), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(solve(-1, 1, 2, 2, &one_), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(solve(2, 1, 2, 2, nullptr), CUBLAS_STATUS_INVALID_VALUE);
}

TEST_F(SimtLibraries, SolveSystemsWhenTheStreamDoes) {
  ASSERT_EQ(solve(2, 1, 2, 2, &one_), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(b_, (std::vector<double>{8, 6}));
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(b_, (std::vector<double>{2, 1}));
}

TEST_F(SimtLibraries, RefuseMatricesThatTheyCannotRead) {
  EXPECT_EQ(cusolverDnDpotrf_bufferSize(solver_, CUBLAS_FILL_MODE_LOWER, 2, a_.data(), 1, &size_), CUSOLVER_STATUS_INVALID_VALUE);
  EXPECT_EQ(cusolverDnDpotrf_bufferSize(solver_, CUBLAS_FILL_MODE_LOWER, 2, nullptr, 2, &size_), CUSOLVER_STATUS_INVALID_VALUE);
  ASSERT_EQ(cusolverDnDpotrf_bufferSize(solver_, CUBLAS_FILL_MODE_LOWER, 2, a_.data(), 2, &size_), CUSOLVER_STATUS_SUCCESS);
  EXPECT_EQ(factorize(2, 1, size_), CUSOLVER_STATUS_INVALID_VALUE);
  EXPECT_EQ(factorize(2, 2, size_ - 1), CUSOLVER_STATUS_INVALID_VALUE);
  ASSERT_EQ(
      cusolverDnDsyevd_bufferSize(solver_, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, 2, a_.data(), 2, b_.data(), &size_),
      CUSOLVER_STATUS_SUCCESS);
  EXPECT_EQ(decompose(2, 1, size_), CUSOLVER_STATUS_INVALID_VALUE);
  EXPECT_EQ(decompose(2, 2, size_ - 1), CUSOLVER_STATUS_INVALID_VALUE);
}

TEST_F(SimtLibraries, FactorizeWhenTheStreamDoesAndLeaveTheOtherTriangle) {
  ASSERT_EQ(factorize(2, 2, 64), CUSOLVER_STATUS_SUCCESS);
  EXPECT_EQ(info_, -1);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(info_, 0);
  EXPECT_EQ(a_, (std::vector<double>{2, 1, 9, 1}));
  a_ = {1, 2, 0, 1};
  factorize(2, 2, 64);
  cudaStreamSynchronize(stream_);
  EXPECT_EQ(info_, 2);
}

TEST_F(SimtLibraries, DecomposeWithVectorsInColumns) {
  a_ = {2, -1, 9, 2};
  ASSERT_EQ(decompose(2, 2, 64), CUSOLVER_STATUS_SUCCESS);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(info_, 0);
  EXPECT_NEAR(b_[0], 1, 1e-15);
  EXPECT_NEAR(b_[1], 3, 1e-15);
  EXPECT_NEAR(a_[0], a_[1], 1e-15);
  EXPECT_NEAR(a_[2], -a_[3], 1e-15);
}

TEST_F(SimtLibraries, RefuseReflectionsThatTheyCannotMake) {
  EXPECT_EQ(cusolverDnDgeqrf_bufferSize(solver_, 2, 2, a_.data(), 1, &size_), CUSOLVER_STATUS_INVALID_VALUE);
  ASSERT_EQ(cusolverDnDgeqrf_bufferSize(solver_, 2, 2, a_.data(), 2, &size_), CUSOLVER_STATUS_SUCCESS);
  EXPECT_EQ(reflect(2, 2, 1, size_), CUSOLVER_STATUS_INVALID_VALUE);
  EXPECT_EQ(reflect(2, 2, 2, size_ - 1), CUSOLVER_STATUS_INVALID_VALUE);
  EXPECT_EQ(cusolverDnDorgqr_bufferSize(solver_, 1, 2, 1, a_.data(), 2, b_.data(), &size_), CUSOLVER_STATUS_INVALID_VALUE);
  EXPECT_EQ(cusolverDnDorgqr_bufferSize(solver_, 2, 2, 2, a_.data(), 2, nullptr, &size_), CUSOLVER_STATUS_INVALID_VALUE);
  ASSERT_EQ(cusolverDnDorgqr_bufferSize(solver_, 2, 2, 2, a_.data(), 2, b_.data(), &size_), CUSOLVER_STATUS_SUCCESS);
  EXPECT_EQ(join_reflections(2, 2, 3, 2, size_), CUSOLVER_STATUS_INVALID_VALUE);
  EXPECT_EQ(join_reflections(2, 2, 2, 2, size_ - 1), CUSOLVER_STATUS_INVALID_VALUE);
}

TEST_F(SimtLibraries, ReflectWhenTheStreamDoes) {
  a_ = {3, 4, 1, 2};
  ASSERT_EQ(reflect(2, 2, 2, 128), CUSOLVER_STATUS_SUCCESS);
  EXPECT_EQ(info_, -1);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(info_, 0);
  EXPECT_NEAR(a_[0], -5, 1e-15);
  EXPECT_NEAR(a_[1], 0.5, 1e-15);
  EXPECT_NEAR(a_[2], -2.2, 1e-15);
  EXPECT_NEAR(a_[3], 0.4, 1e-15);
  ASSERT_EQ(join_reflections(2, 2, 2, 2, 128), CUSOLVER_STATUS_SUCCESS);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_NEAR(a_[0], -0.6, 1e-15);
  EXPECT_NEAR(a_[1], -0.8, 1e-15);
  EXPECT_NEAR(a_[2], -0.8, 1e-15);
  EXPECT_NEAR(a_[3], 0.6, 1e-15);
}

TEST_F(SimtLibraries, FindFunctionsInTheirLibraryOnly) {
  std::string why;
  constexpr const char *kBlas[] = {"libcublas.so.13", nullptr}, *kSolver[] = {"libcusolver.so.12", nullptr};
  EXPECT_TRUE(cuda::find_symbol(cuda::open_library(kBlas, why), "cublasDtrsm_v2"));
  EXPECT_FALSE(cuda::find_symbol(cuda::open_library(kSolver, why), "cublasDtrsm_v2"));
  EXPECT_FALSE(cuda::find_symbol(cuda::open_library(kSolver, why), "cusolverDnNothing"));
}

}  // namespace
}  // namespace dpo::simt
