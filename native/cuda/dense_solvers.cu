#include "native/cuda/dense_solvers.h"

#include <cusolverDn.h>

#include "native/cuda/cublas_library.h"
#include "native/cuda/grid.h"

namespace dpo::cuda {
namespace {

constexpr const char* kNames[] = {"libcusolver.so.12", "libcusolver.so", nullptr};

/// The functions of cuSOLVER that are called.
struct Cusolver : Library {
  using Handle = cusolverDnHandle_t;

  decltype(&cusolverDnCreate) create = nullptr;
  decltype(&cusolverDnSetStream) set_stream = nullptr;
  decltype(&cusolverDnDpotrf_bufferSize) factorize_size = nullptr;
  decltype(&cusolverDnDpotrf) factorize = nullptr;
  decltype(&cusolverDnDsyevd_bufferSize) decompose_size = nullptr;
  decltype(&cusolverDnDsyevd) decompose = nullptr;
  decltype(&cusolverDnDgeqrf_bufferSize) reflect_size = nullptr;
  decltype(&cusolverDnDgeqrf) reflect = nullptr;
  decltype(&cusolverDnDorgqr_bufferSize) join_reflections_size = nullptr;
  decltype(&cusolverDnDorgqr) join_reflections = nullptr;

  Cusolver() : Library("cuSOLVER 12", kNames) {
    find("cusolverDnCreate", create);
    find("cusolverDnSetStream", set_stream);
    find("cusolverDnDpotrf_bufferSize", factorize_size);
    find("cusolverDnDpotrf", factorize);
    find("cusolverDnDsyevd_bufferSize", decompose_size);
    find("cusolverDnDsyevd", decompose);
    find("cusolverDnDgeqrf_bufferSize", reflect_size);
    find("cusolverDnDgeqrf", reflect);
    find("cusolverDnDorgqr_bufferSize", join_reflections_size);
    find("cusolverDnDorgqr", join_reflections);
  }

  static const char* describe(cusolverStatus_t status) {
    switch (status) {
      case CUSOLVER_STATUS_NOT_INITIALIZED:
        return "it could not be initialised";
      case CUSOLVER_STATUS_ALLOC_FAILED:
        return "out of memory";
      case CUSOLVER_STATUS_INVALID_VALUE:
        return "invalid value";
      case CUSOLVER_STATUS_ARCH_MISMATCH:
        return "the device is not supported";
      case CUSOLVER_STATUS_EXECUTION_FAILED:
        return "a kernel failed";
      default:
        return "internal error";
    }
  }
};

const Cusolver& cusolver() {
  // Never destroyed: the driver may be gone before static objects are.
  static const auto* library = new Cusolver;
  return *library;
}

/// What is the lower triangle of a matrix in rows is the upper one in columns.
constexpr cublasFillMode_t fill_mode(bool lower) { return lower ? CUBLAS_FILL_MODE_UPPER : CUBLAS_FILL_MODE_LOWER; }

/// Runs solve(handle, workspace, size, info) with a workspace of as many numbers as size(handle, &count) says. Whether `info` is
/// 0 then. The handle has memory of its own on the device, so it is no other call's before the work is done.
template <class Size, class Solve>
bool run_solver(Call& call, const char* purpose, const Size& size, const Solve& solve) {
  int* info = call.allocate<int>(1);
  bool solved = false;
  with_handle(call, cusolver(), purpose, [&](cusolverDnHandle_t handle) {
    int count = 0;
    if (const cusolverStatus_t status = size(handle, &count); status != CUSOLVER_STATUS_SUCCESS) return status;
    auto* workspace = call.allocate<double>(count);
    if (!call.ok()) return CUSOLVER_STATUS_SUCCESS;
    const cusolverStatus_t status = solve(handle, workspace, count, info);
    if (status == CUSOLVER_STATUS_SUCCESS) solved = call.read(info) == 0 && call.ok();
    return status;
  });
  return solved;
}

/// In columns everything is transposed, and so a factor from the left is one from the right: b [m, k] in columns.
void solve_in_columns(Call& call, cublasSideMode_t side, const Triangle& a, double* b, std::int64_t m, std::int64_t k) {
  const int extent = library_extent(call, a.n), rows = library_extent(call, m), columns = library_extent(call, k);
  with_handle(call, cublas(), "triangular systems", [&](cublasHandle_t handle) {
    const double one = 1;
    return cublas().solve_triangular(handle, side, fill_mode(a.lower), a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                                     CUBLAS_DIAG_NON_UNIT, rows, columns, &one, a.data, extent, b, rows);
  });
}

__global__ void take_diagonal(const double* a, std::int64_t n, double* diagonal) {
  for_each_index(n, [&](std::int64_t i) { diagonal[i] = a[i * n + i]; });
}

__global__ void turn_rows(double* rows, std::int64_t n, const double* signs) {
  for_each_index(n * n, [&](std::int64_t i) { rows[i] = signs[i / n] < 0 ? -rows[i] : rows[i]; });
}

}  // namespace

bool factorize(Call& call, std::int64_t n, double* a) {
  const int extent = library_extent(call, n);
  return run_solver(
      call, "Cholesky factors",
      [&](cusolverDnHandle_t handle, int* count) {
        return cusolver().factorize_size(handle, fill_mode(true), extent, a, extent, count);
      },
      [&](cusolverDnHandle_t handle, double* workspace, int count, int* info) {
        return cusolver().factorize(handle, fill_mode(true), extent, a, extent, workspace, count, info);
      });
}

bool decompose(Call& call, std::int64_t n, double* a, double* values) {
  const int extent = library_extent(call, n);
  return run_solver(
      call, "eigenvectors",
      [&](cusolverDnHandle_t handle, int* count) {
        return cusolver().decompose_size(handle, CUSOLVER_EIG_MODE_VECTOR, fill_mode(true), extent, a, extent, values, count);
      },
      [&](cusolverDnHandle_t handle, double* workspace, int count, int* info) {
        return cusolver().decompose(handle, CUSOLVER_EIG_MODE_VECTOR, fill_mode(true), extent, a, extent, values, workspace,
                                    count, info);
      });
}

void make_rows_orthonormal(Call& call, std::int64_t n, double* a) {
  // In columns it is aᵀ = Qᵀ·Lᵀ.
  constexpr const char* kPurpose = "orthonormal rows";
  const int extent = library_extent(call, n);
  auto *scales = call.allocate<double>(n), *diagonal = call.allocate<double>(n);
  const bool reflected = run_solver(
      call, kPurpose,
      [&](cusolverDnHandle_t handle, int* count) { return cusolver().reflect_size(handle, extent, extent, a, extent, count); },
      [&](cusolverDnHandle_t handle, double* workspace, int count, int* info) {
        return cusolver().reflect(handle, extent, extent, a, extent, scales, workspace, count, info);
      });
  call.launch(take_diagonal, grid_of(n), a, n, diagonal);
  const bool joined = run_solver(
      call, kPurpose,
      [&](cusolverDnHandle_t handle, int* count) {
        return cusolver().join_reflections_size(handle, extent, extent, extent, a, extent, scales, count);
      },
      [&](cusolverDnHandle_t handle, double* workspace, int count, int* info) {
        return cusolver().join_reflections(handle, extent, extent, extent, a, extent, scales, workspace, count, info);
      });
  if (!reflected || !joined) call.fail(DPO_ERR_BACKEND, "%s, %s: an argument is out of range", cusolver().title(), kPurpose);
  call.launch(turn_rows, passes(n * n), a, n, diagonal);
}

void solve_left(Call& call, const Triangle& a, double* b, std::int64_t columns) {
  solve_in_columns(call, CUBLAS_SIDE_RIGHT, a, b, columns, a.n);
}

void solve_right(Call& call, const Triangle& a, double* b, std::int64_t rows) {
  solve_in_columns(call, CUBLAS_SIDE_LEFT, a, b, a.n, rows);
}

}  // namespace dpo::cuda
