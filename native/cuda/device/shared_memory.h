// The dynamic shared memory of a block, as many bytes as its launch asked for.
#pragma once

namespace dpo::cuda {

// Not a template, for those may not declare it.
__device__ inline void* shared_memory() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return bytes;
}

}  // namespace dpo::cuda
