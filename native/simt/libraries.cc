// The functions of the stand-ins for libraries, by name.
#include <cublas_v2.h>
#include <cusolverDn.h>
#include <device/library.h>

#include <cstring>

namespace dpo::cuda {

/// `library` is its name, "lib…".
void* find_symbol(void* library, const char* name) {
  const char* owner = static_cast<const char*>(library) + std::strlen("lib");
  if (std::strncmp(name, owner, std::strcspn(owner, ".")) != 0) return nullptr;
#define DPO_SYMBOL(function) \
  if (std::strcmp(name, #function) == 0) return reinterpret_cast<void*>(&function)
  DPO_SYMBOL(cublasCreate_v2);
  DPO_SYMBOL(cublasDestroy_v2);
  DPO_SYMBOL(cublasSetStream_v2);
  DPO_SYMBOL(cublasGetStatusString);
  DPO_SYMBOL(cublasGemmEx);
  DPO_SYMBOL(cublasDtrsm_v2);
  DPO_SYMBOL(cusolverDnCreate);
  DPO_SYMBOL(cusolverDnDestroy);
  DPO_SYMBOL(cusolverDnSetStream);
  DPO_SYMBOL(cusolverDnDpotrf_bufferSize);
  DPO_SYMBOL(cusolverDnDpotrf);
  DPO_SYMBOL(cusolverDnDsyevd_bufferSize);
  DPO_SYMBOL(cusolverDnDsyevd);
  DPO_SYMBOL(cusolverDnDgeqrf_bufferSize);
  DPO_SYMBOL(cusolverDnDgeqrf);
  DPO_SYMBOL(cusolverDnDorgqr_bufferSize);
  DPO_SYMBOL(cusolverDnDorgqr);
#undef DPO_SYMBOL
  return nullptr;
}

}  // namespace dpo::cuda
